"""Paths inside a tree nobody vouches for: never out of it, whatever its links say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from strata.core import rooted
from strata.core.errors import TreeError

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with links of every kind, and a file of the host beside it."""
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "run").mkdir()
    (root / "var").mkdir()
    (root / "usr/lib/file").write_text("tree")
    (root / "lib").symlink_to("usr/lib")
    (root / "var/run").symlink_to("/run")
    (root / "out").symlink_to("../../../../../..")
    (root / "host").symlink_to(tmp_path)
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("/one")
    (tmp_path / "file").write_text("host")
    return root


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("usr/lib/file", "usr/lib/file"),
        ("/lib//./file", "usr/lib/file"),
        ("../../file", "file"),
        ("usr/../../..", ""),
        ("lib/..", "usr"),
        ("var/run/x", "run/x"),
        ("out/file", "file"),
        ("missing/../lib/file", "usr/lib/file"),
        ("missing/a", "missing/a"),
    ],
)
def test_a_path_is_followed_as_in_a_chroot(root: Path, path: str, inside: str) -> None:
    assert rooted.resolve(root, path) == root / inside


def test_a_link_to_a_folder_of_the_host_means_the_trees(root: Path, tmp_path: Path) -> None:
    assert rooted.resolve(root, "host/file") == root / str(tmp_path)[1:] / "file"


def test_the_last_name_is_followed_only_when_wanted(root: Path) -> None:
    assert rooted.resolve(root, "var/run") == root / "run"
    assert rooted.resolve(root, "var/run", follow_last=False) == root / "var/run"
    assert rooted.resolve(root, "lib/x", follow_last=False) == root / "usr/lib/x"


def test_a_circle_of_links_is_named(root: Path) -> None:
    with pytest.raises(TreeError, match="go in a circle at /one/x"):
        rooted.resolve(root, "one/x")
    assert rooted.resolve(root, "one", follow_last=False) == root / "one"


def test_removing_takes_links_and_folders_of_the_tree(root: Path) -> None:
    for path in ("usr/lib/file/below", "not/there"):
        rooted.remove(root, path)
    assert (root / "usr/lib/file").exists()
    rooted.remove(root, "lib")
    assert not os.path.lexists(root / "lib")
    assert (root / "usr/lib/file").exists()
    rooted.remove(root, "/../usr/lib")
    assert not (root / "usr/lib").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What would be removed; nothing is, so that a fault shows here and not on the host."""
    asked: list[Path] = []
    monkeypatch.setattr(rooted, "remove_tree", asked.append)
    return asked


def test_nothing_outside_of_the_tree_is_asked_for(root: Path, asked: list[Path]) -> None:
    for path in ("host/file", "../file", "out/file"):
        rooted.remove(root, path)
    assert all(root in place.parents for place in asked)
    asked.clear()
    for path in ("", "/", "..", "usr/.."):
        with pytest.raises(TreeError, match="does not name something inside the tree"):
            rooted.remove(root, path)
    assert asked == []


@pytest.mark.parametrize("wrong", ["..", "../file", "host/file", "usr/../../file", ""])
def test_a_wrong_resolver_alone_removes_nothing_outside(
    root: Path, asked: list[Path], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr(rooted, "resolve", lambda root, path, follow_last: root / wrong)
    with pytest.raises(TreeError, match="does not name something inside the tree"):
        rooted.remove(root, "x")
    assert asked == []


def test_only_files_are_read_and_only_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rooted.read_text(root, "/lib/file") == "tree"
    with pytest.raises(FileNotFoundError):
        rooted.read_text(root, "host/file")
    os.mkfifo(root / "pipe")
    with pytest.raises(TreeError, match="/pipe of the tree is not a file"):
        rooted.read_text(root, "pipe")
    (root / "bytes").write_bytes(b"\xff")
    with pytest.raises(TreeError, match="/bytes of the tree is not UTF-8"):
        rooted.read_text(root, "bytes")
    monkeypatch.setattr(rooted, "MAX_TEXT_BYTES", 3)
    with pytest.raises(TreeError, match="is larger than 3 bytes"):
        rooted.read_text(root, "lib/file")


def test_writing_replaces_the_file_and_not_what_shares_its_content(
    root: Path, tmp_path: Path
) -> None:
    os.link(tmp_path / "file", root / "shared")
    rooted.write_text(root, "shared", "new")
    assert (tmp_path / "file").read_text() == "host"
    rooted.write_text(root, "host/file", "new")
    assert (tmp_path / "file").read_text() == "host"
    assert (root / str(tmp_path)[1:] / "file").read_text() == "new"


def test_a_folder_that_must_be_one_may_be_no_link(root: Path) -> None:
    assert rooted.real_folder(root, "usr/lib") == root / "usr/lib"
    with pytest.raises(TreeError, match="/lib of the tree is a link; it must be a folder"):
        rooted.real_folder(root, "lib/x")
    with pytest.raises(TreeError, match="/usr/nope of the tree is not there"):
        rooted.real_folder(root, "usr/nope")


def test_children_are_the_trees(root: Path) -> None:
    assert rooted.children(root, "lib") == [root / "usr/lib/file"]
    assert rooted.children(root, "host") == []
    assert rooted.children(root, "usr/lib/file") == []
