"""A delta laid over the old /usr by the kernel's overlayfs shows the new one, file by file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import leftovers
from importlab import make_tree
from strata.node.delta import Delta, plan
from strata.ostree.objects import Checksum, DirMeta
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

# In a mount namespace of its own: lay the delta over the old tree, verify, say what differs.
_SHOW = """
import json, subprocess, sys
from pathlib import Path
from strata.node import delta
from strata.node.verify import compare
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree
repo, old, new, usr, top = Repo.open(Path(sys.argv[1])), *sys.argv[2:6]
trees = [Tree.load(repo, name).folder("usr") for name in (old, new)]
made = delta.plan(*trees, {"lib/modules"})
copied = delta.build(repo, made, top)
lower = f"lowerdir={top}:{usr}"
subprocess.run(["mount", "-t", "overlay", "overlay", "-o", lower, usr], check=True)
done = compare(trees[1], usr, without={"lib/modules"})
kernel = Path(usr, "lib/modules/6.1/vmlinuz").read_text()
found = [[item.path, item.what] for item in done.differences]
print(json.dumps([found, done.files, copied, len(made.files), kernel]))
"""


def change(root: Path) -> None:
    """The old tree becomes the new one: every way in which two can differ."""
    usr = root / "usr"
    (usr / "lib/pkg/a").write_text("changed")
    (usr / "lib/pkg/b").unlink()
    (usr / "lib/pkg/inner").chmod(0o700)
    (usr / "share/doc/ünï").rename(usr / "share/doc/mövéd")
    (usr / "bin/sh").unlink()
    (usr / "bin/sh").mkdir()
    (usr / "bin/sh/now-a-folder").write_text("x")
    os.setxattr(usr / "bin", "user.note", b"here")
    (usr / "etc/ssh/sshd_config").unlink()
    (usr / "etc/ssh").rmdir()
    (usr / "etc/ssh").write_text("a file now")
    (usr / "lib/new/deep").mkdir(parents=True)
    (usr / "lib/new/deep/file").write_text("n")
    (usr / "lib/modules/6.1/vmlinuz").write_text("another kernel")
    (usr / "lib/alias").unlink()
    (usr / "lib/alias").symlink_to("new")


def test_a_delta_over_the_old_usr_is_the_new_one(tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    (source / "usr/lib/modules/6.1").mkdir(parents=True)
    (source / "usr/lib/modules/6.1/vmlinuz").write_text("kernel")
    medium = Repo.init(tmp_path / "medium")
    with writing(medium, sync=False) as writer:
        old = commit_directory(medium, writer, str(source), timestamp=0)
    subprocess.run(["cp", "-a", source, tmp_path / "booted"], check=True)
    change(source)
    live = Repo.init(tmp_path / "live", parent=medium.path)
    with writing(live, sync=False) as writer:
        new = commit_directory(live, writer, str(source), timestamp=0)
    usr, top = str(tmp_path / "booted/usr"), str(tmp_path / "delta")
    argv = ["unshare", "--mount", sys.executable, "-c", _SHOW, str(live.path), old, new, usr, top]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    differences, files, copied, in_delta, kernel = json.loads(done.stdout)
    assert differences == []
    assert kernel == "kernel"
    # The moved file is on the medium: it is copied. What did not change is nowhere but there.
    assert copied == len("ü".encode()) * 3000
    assert files > in_delta == 6
    assert not live.owns(old, "commit")
    assert live.is_complete(old)
    assert leftovers(tmp_path) == []


names = st.sampled_from(["a", "b", "c"])
checksums = st.sampled_from([Checksum("0" * 63 + digit) for digit in "12"])
metas = st.builds(DirMeta, st.integers(0, 1), st.just(0), st.just(0o40755))
trees = st.recursive(
    st.builds(Tree, metas, st.dictionaries(names, checksums), st.just({})),
    lambda inner: st.builds(
        Tree,
        metas,
        st.dictionaries(st.sampled_from(["a", "b", "x"]), checksums),
        st.dictionaries(st.sampled_from(["c", "d"]), inner),
    ),
    max_leaves=8,
)


def lay(old: Tree, delta: Delta) -> Tree:
    """What overlayfs makes of it, as its documentation says."""
    result = Tree(old.meta, dict(old.files), {n: lay(t, Delta()) for n, t in old.dirs.items()})
    for path, meta in delta.folders:
        result.make_folder(path).meta = meta
    for path in delta.whiteouts:
        result.remove(path)
    for path, checksum in delta.files:
        parent, _, name = path.rpartition("/")
        folder = result.make_folder(parent)
        folder.dirs.pop(name, None)
        folder.files[name] = checksum
    return result


@given(trees, trees)
def test_a_delta_over_the_old_tree_is_the_new_tree(old: Tree, new: Tree) -> None:
    assert lay(old, plan(old, new)) == new


@given(trees)
def test_equal_trees_have_no_delta(tree: Tree) -> None:
    assert plan(tree, tree).inodes == 1
