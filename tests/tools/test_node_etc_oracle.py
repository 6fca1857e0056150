"""The /etc merge against `ostree admin deploy`, which merges the same three trees for a reboot.

Every path of the trees is one combination of what base, mine and theirs have there. Where the two
differ, the difference is named here, and explained in docs/node.md.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from strata.core.errors import ToolFailedError
from strata.core.files import remove_tree
from strata.core.process import run
from strata.node import etcapply, etcmerge
from strata.node.etcmerge import FILE, FOLDER, LINK, Entry

pytestmark = pytest.mark.tools

FILES = ("a", "b", "a-private", "link")
FOLDERS = ("folder", "folder-more", "folder-private")
KINDS = ("none", *FILES, *FOLDERS)
OPEN = ("folder", "folder-more")  # of mode 0755
Names = tuple[str, ...]


def each(base: Names, mine: Names, theirs: Names) -> set[str]:
    """The combinations of some kinds, as names."""
    return {".".join(kinds) for kinds in itertools.product(base, mine, theirs)}


# Combinations for which ostree refuses the whole deployment.
A_FILE_HERE = {
    name for name in each(KINDS, FILES, FOLDERS) if name.split(".")[0] != name.split(".")[1]
}
CHANGES_BELOW_A_FILE = each(("folder-more",), ("folder", "folder-private"), FILES[:3]) | each(
    ("folder",), ("folder-more",), FILES
)
REFUSED = A_FILE_HERE | CHANGES_BELOW_A_FILE

# A folder's mode that was changed here, or that is a file by default: ostree takes the image's.
MODE_LOST = (
    each(FILES, OPEN, ("folder-private",))
    | each((*FILES, *OPEN), ("folder-private",), OPEN)
    | each(("folder-private",), ("folder",), ("folder-private",))
)
# A folder whose mode the image changed and in which a file was added here: ostree takes mine.
IMAGES_MODE_LOST = each(("folder",), ("folder-more",), ("folder-private",))
# A folder made here where the default is a file, and a folder in the image: its files are lost.
FILES_LOST = each(FILES, ("folder-more",), ("folder", "folder-private"))
# A folder that the image lacks and whose mode was changed here: ostree keeps default files in it.
DEFAULTS_KEPT = each(OPEN, ("folder-private",), ("none", *FILES)) | each(
    ("folder-private",), OPEN, ("none", *FILES)
)


def put(top: Path, name: str, kind: str) -> None:
    """Make what a kind says at a path."""
    path = top / name
    if kind == "link":
        path.symlink_to("target")
    elif kind.startswith("folder"):
        path.mkdir()
        path.chmod(0o700 if kind == "folder-private" else 0o755)
        (path / "default").write_text("d")
        if kind == "folder-more":
            (path / "more").write_text("m")
    elif kind != "none":
        path.write_text(kind[0])
        path.chmod(0o600 if kind == "a-private" else 0o644)


def fill(top: Path, names: Iterable[str], which: int) -> Path:
    """The base's (0), the machine's (1) or the image's (2) tree, made anew."""
    remove_tree(top)
    top.mkdir(parents=True)
    for name in names:
        put(top, name, name.split(".")[which])
    return top


def merged_here(folder: Path, names: list[str]) -> dict[str, Entry]:
    """What our merge makes of the trees."""
    base, mine, theirs = (str(fill(folder / str(which), names, which)) for which in range(3))
    plan = etcmerge.plan(*(etcapply.read_tree(top) for top in (base, mine, theirs)))
    etcapply.carry_out(plan, theirs, mine, folder / "backup")
    return etcapply.read_tree(mine)


def deployed(folder: Path, names: list[str]) -> dict[str, Entry]:
    """What ostree's makes of them. Raises ToolFailedError."""
    sysroot, tree = folder / "sysroot", folder / "tree"
    sysroot.mkdir()
    run(["ostree", "admin", "init-fs", str(sysroot)])
    at, repo = f"--sysroot={sysroot}", f"--repo={sysroot}/ostree/repo"
    run(["ostree", "admin", "os-init", at, "test"])
    run(["ostree", repo, "config", "set", "sysroot.bootloader", "none"])
    modules = tree / "usr/lib/modules/6.1"
    modules.mkdir(parents=True)
    for name in ("vmlinuz", "initramfs.img"):
        (modules / name).write_text(name)
    (tree / "usr/lib/os-release").write_text('ID=test\nPRETTY_NAME="test"\n')

    def deploy(which: int) -> Path:
        fill(tree / "usr/etc", names, which)
        commit = run(["ostree", repo, "commit", "--branch=test", str(tree)]).stdout.strip()
        run(["ostree", "admin", "deploy", at, "--os=test", "test"])
        return sysroot / f"ostree/deploy/test/deploy/{commit}.0/etc"

    try:
        mine = deploy(0)
        for name in names:
            if os.path.lexists(mine / name):
                remove_tree(mine / name)
            put(mine, name, name.split(".")[1])
        return etcapply.read_tree(str(deploy(2)))
    finally:
        remove_tree(sysroot)


def test_all_combinations_merge_as_ostree_merges_them(tmp_path: Path) -> None:
    names = sorted(each(KINDS, KINDS, KINDS) - REFUSED)
    theirs, ours = deployed(tmp_path, names), merged_here(tmp_path, names)
    different = {path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path)}
    assert len(names) > 400
    assert different == {
        *MODE_LOST,
        *IMAGES_MODE_LOST,
        *(f"{name}/more" for name in FILES_LOST),
        *(f"{name}/default" for name in DEFAULTS_KEPT - REFUSED),
    }
    for name in MODE_LOST:
        assert ours[name].mode == (0o700 if name.split(".")[1] == "folder-private" else 0o755)
    for name in FILES_LOST:
        assert f"{name}/more" in ours


@pytest.mark.parametrize(
    ("name", "told", "kind"),
    [
        ("none.a.folder", "Modified config file newly defaults to directory", FILE),
        ("folder.link.folder", "Modified config file newly defaults to directory", LINK),
        ("folder-more.folder.a", "Not a directory", FILE),
        ("folder.folder-more.a", "Not a directory", FOLDER),
    ],
)
def test_what_ostree_refuses_is_merged_here(
    tmp_path: Path, name: str, told: str, kind: str
) -> None:
    assert name in REFUSED
    with pytest.raises(ToolFailedError) as failed:
        deployed(tmp_path, [name])
    assert told in str(failed.value.context["output"])
    assert merged_here(tmp_path, [name])[name].kind == kind
