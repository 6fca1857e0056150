"""`strata-node verify` on a checkout that was changed in every way a file can differ."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_disk import make_disk
from importlab import make_lab, make_tree
from layertar import Tar
from strata.core.events import silent
from strata.node import cli, host
from strata.node.verify import compare, verify
from strata.ostree.checkout import checkout
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools


@pytest.fixture
def usr(tmp_path: Path) -> tuple[Repo, str, Path]:
    """A small system's commit, and its /usr checked out in copies."""
    make_tree(tmp_path / "source")
    (tmp_path / "source/usr/lib/modules/6.1").mkdir(parents=True)
    (tmp_path / "source/usr/lib/modules/6.1/vmlinuz").write_text("kernel")
    repo = Repo.init(tmp_path / "repo")
    with writing(repo, sync=False) as writer:
        commit = commit_directory(repo, writer, str(tmp_path / "source"), timestamp=0)
    checkout(repo, Tree.load(repo, commit), str(tmp_path / "out"), link=False)
    return repo, commit, tmp_path / "out/usr"


def write(path: Path) -> None:
    path.write_text("z")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("path", "change", "what"),
    [
        ("lib/pkg/a", write, "has another content, mode, owner or attribute"),
        ("lib/pkg/a", lambda p: p.chmod(0o600), "has another content, mode, owner or attribute"),
        ("lib/pkg/a", lambda p: os.chown(p, 5, 0), "has another content, mode, owner or attribute"),
        (
            "bin/ping",
            lambda p: os.removexattr(p, "security.capability"),
            "has another content, mode, owner or attribute",
        ),
        ("lib/pkg/a", Path.unlink, "is missing"),
        ("lib/pkg/a", replace_by_pipe, "is neither a file nor a link"),
        ("lib/pkg/new", write, "is not in the node image"),
        ("lib/pkg/inner", lambda p: p.chmod(0o700), "has another mode"),
        ("lib/pkg", lambda p: os.setxattr(p, "user.x", b"y"), "has another xattrs"),
    ],
)
def test_a_change_is_found(
    usr: tuple[Repo, str, Path], path: str, change: Callable[[Path], object], what: str
) -> None:
    repo, commit, top = usr
    tree = Tree.load(repo, commit).folder("usr")
    assert tree is not None
    assert compare(tree, str(top)).differences == ()
    change(top / path)
    found = compare(tree, str(top)).differences
    assert [(item.path, item.what) for item in found] == [(path, what)]


def test_modules_are_the_booted_ones_and_all_else_is_read(
    usr: tuple[Repo, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, commit, top = usr
    (top / "lib/modules/6.1/vmlinuz").write_text("another kernel")
    monkeypatch.setattr(host, "REPO", repo.path)
    monkeypatch.setattr(host, "USR", str(top))
    monkeypatch.setattr(host, "STATE", top.parent / "state.json")
    host.State(phase=host.OVERLAID, merge_commit=commit).save()
    done = verify(silent())
    on_disk = [
        path
        for path in top.rglob("*")
        if (path.is_file() or path.is_symlink()) and "modules" not in path.parts
    ]
    assert (done.files, done.differences) == (len(on_disk), ())
    assert done.size_bytes == sum(path.lstat().st_size for path in on_disk)


def test_a_machine_that_booted_an_image_is_verified_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `switch` and a reboot: no state is left of the overlay, and the modules count too."""
    lab = make_lab(tmp_path / "lab")
    lab.derive(Tar().add("usr/lib/modules/6.1/vmlinuz", b"kernel").bytes())
    repo = Repo.init(tmp_path / "repo")
    disk = make_disk(lab, tmp_path / "machine", repo, monkeypatch)
    monkeypatch.setattr(host, "booted_commit", lambda: lab.commit)
    lab.pull(repo, "base")
    assert cli.main(["verify"]) == 1
    assert "nothing is overlaid, and this machine did not boot an image" in capsys.readouterr().err
    booted = lab.pull(repo)
    monkeypatch.setattr(host, "booted_commit", lambda: booted.merge_commit)
    checkout(repo, Tree.load(repo, booted.merge_commit), str(tmp_path / "out"), link=False)
    monkeypatch.setattr(host, "USR", str(tmp_path / "out/usr"))
    assert cli.main(["verify"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"booted {booted.manifest_digest}: ")
    assert out.endswith(", 0 differ\n")
    (tmp_path / "out/usr/lib/modules/6.1/vmlinuz").write_text("another")
    assert cli.main(["verify"]) == 10
    assert "/usr/lib/modules/6.1/vmlinuz has another content" in capsys.readouterr().out
    assert disk.pull().phase == host.BOOTED_NODE
    assert cli.main(["verify"]) == 10
    host.State(phase=host.PULLED).save()
    assert cli.main(["verify"]) == 1
