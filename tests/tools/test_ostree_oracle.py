"""The real `ostree` reads what we write and says the same; we read what it writes."""

from __future__ import annotations

import ctypes
import filecmp
import os
import stat
from pathlib import Path

import pytest

from strata.core.errors import NoSpaceError, ObjectError, StrataError
from strata.core.process import Completed, run
from strata.ostree.checkout import checkout
from strata.ostree.gvariant import Variant
from strata.ostree.modes import read_xattrs
from strata.ostree.objects import Checksum, Commit, FileHeader, Xattrs
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory, commit_tree, scan
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

TIME = 1_700_000_000
CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
Row = tuple[str, int, int, int, int, str, Xattrs, bytes]


def ostree(repo: Path | Repo, verb: str, *arguments: str) -> Completed:
    path = repo.path if isinstance(repo, Repo) else repo
    return run(["ostree", verb, f"--repo={path}", *arguments])


def fsck(repo: Repo) -> None:
    ostree(repo, "fsck", "-q")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with every kind of thing a commit can hold; needs root for owners and attributes."""
    root = tmp_path / "source"
    for folder in ("usr/bin", "usr/etc", "usr/lib/deep/er", "usr/share/ünï", "var", "a", "a-b"):
        (root / folder).mkdir(parents=True)
    files = {
        "usr/bin/su": (b"#!/bin/sh\n", 0o4755, 0, 0),
        "usr/bin/ping": (b"ping", 0o755, 0, 0),
        "usr/etc/shadow": (b"root:*:::::::\n", 0, 0, 42),
        "usr/etc/empty": (b"", 0o644, 0, 0),
        "usr/etc/also-empty": (b"", 0o644, 0, 0),
        "usr/lib/deep/er/data": (bytes(range(256)) * 9000, 0o640, 7, 8),
        "usr/lib/same": (b"ping", 0o755, 0, 0),
        "usr/share/ünï/ß": ("ß".encode(), 0o664, 65534, 65534),
        "a/x": (b"x", 0o2755, 0, 5),
        "a-b/x": (b"y", 0o644, 0, 0),
        "big owner": (b"z", 0o644, 2_097_153, 4_000_000_000),
    }
    for name, (data, mode, uid, gid) in files.items():
        path = root / name
        path.write_bytes(data)
        os.chown(path, uid, gid)
        path.chmod(mode)
    os.setxattr(root / "usr/bin/ping", "security.capability", CAP_NET_RAW)
    os.setxattr(root / "usr/bin/ping", "user.zero\u00e9", b"a\0b")
    os.setxattr(root / "usr/bin/ping", "user.empty", b"")
    os.setxattr(root / "usr/share", "user.folder", b"1" * 300)
    os.symlink("su", root / "usr/bin/sudo")
    os.symlink("//no//such/./place/" + "n" * 200, root / "usr/dangling")
    os.lchown(root / "usr/dangling", 3, 4)
    os.setxattr(root / "usr/dangling", "trusted.link", b"on a link", follow_symlinks=False)
    os.link(root / "usr/etc/shadow", root / "usr/etc/shadow-")
    os.chown(root / "var", 9, 10)
    (root / "var").chmod(0o3775)
    (root / "usr/lib/deep").chmod(0o700)
    return root


def rows(root: Path) -> list[Row]:
    """Everything about a tree but times: path, mode, owner, group, size, target, xattrs, bytes."""
    found: list[Row] = []
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = Path(folder) / name
            status = path.lstat()
            link = stat.S_ISLNK(status.st_mode)
            regular = stat.S_ISREG(status.st_mode)
            found.append(
                (
                    str(path.relative_to(root)),
                    status.st_mode,
                    status.st_uid,
                    status.st_gid,
                    status.st_size if regular else 0,
                    os.readlink(path) if link else "",
                    read_xattrs(str(path)),
                    path.read_bytes() if regular else b"",
                )
            )
    return sorted(found)


def commit_ours(repo: Repo, source: Path, *, adopt: bool = False) -> Checksum:
    with writing(repo, sync=False) as writer:
        commit = commit_directory(
            repo, writer, str(source), timestamp=TIME, subject="subject", adopt=adopt
        )
        writer.set_ref("test/branch", commit)
    return commit


def commit_theirs(repo: Path, source: Path, mode: str = "bare") -> str:
    ostree(repo, "init", f"--mode={mode}")
    return ostree(
        repo,
        "commit",
        "--branch=test/branch",
        "--subject=subject",
        f"--timestamp=@{TIME}",
        "--no-bindings",
        f"--tree=dir={source}",
    ).stdout.strip()


MODES = ("bare", "bare-user", "archive")


@pytest.mark.parametrize("mode", MODES)
def test_a_commit_has_the_checksum_ostree_gives_it(tmp_path: Path, source: Path, mode: str) -> None:
    repo = Repo.init(tmp_path / "ours", mode)
    assert commit_ours(repo, source) == commit_theirs(tmp_path / "theirs", source, mode)


@pytest.mark.parametrize("mode", MODES)
def test_objects_are_the_files_ostree_writes(tmp_path: Path, source: Path, mode: str) -> None:
    """Names, modes, owners, attributes and (compression apart) bytes of every object file."""
    repo = Repo.init(tmp_path / "ours", mode)
    commit_ours(repo, source)
    commit_theirs(tmp_path / "theirs", source, mode)
    ours, theirs = rows(repo.path / "objects"), rows(tmp_path / "theirs/objects")
    # Deflate streams may differ from build to build of zlib; fsck compares what is in them.
    columns = 4 if mode == "archive" else 8
    assert [row[:columns] for row in ours] == [row[:columns] for row in theirs]


@pytest.mark.parametrize("mode", MODES)
def test_fsck_ls_show_and_rev_parse_agree(tmp_path: Path, source: Path, mode: str) -> None:
    repo = Repo.init(tmp_path / "ours", mode)
    commit = commit_ours(repo, source)
    commit_theirs(tmp_path / "theirs", source)
    fsck(repo)
    assert ostree(repo, "rev-parse", "test/branch").stdout.strip() == commit
    assert repo.rev_parse("test/branch") == repo.rev_parse(commit) == commit
    for absent in ("nope", "f" * 64):
        with pytest.raises(ObjectError, match=f"has no commit or ref {absent}"):
            repo.rev_parse(absent)
    listing = ostree(repo, "ls", "-R", "-C", "-X", "test/branch").stdout
    assert listing == ostree(tmp_path / "theirs", "ls", "-R", "-C", "-X", "test/branch").stdout
    assert "/usr/share/ünï/ß" in listing
    shown = ostree(repo, "show", commit).stdout
    assert f"commit {commit}" in shown
    assert "subject" in shown


def test_what_ostree_checks_out_is_the_source(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    before = rows(source)
    commit = commit_ours(repo, source)
    for option in ("-H", "-C"):
        ostree(repo, "checkout", option, commit, str(tmp_path / f"out{option}"))
        assert rows(tmp_path / f"out{option}") == before


@pytest.mark.parametrize("mode", ["bare-user", "archive"])
def test_every_mode_is_checked_out_exactly(tmp_path: Path, source: Path, mode: str) -> None:
    commit = commit_theirs(tmp_path / "theirs", source, mode)
    repo = Repo.open(tmp_path / "theirs")
    tree = Tree.load(repo, commit)
    checkout(repo, tree, str(tmp_path / "out"), link=False)
    assert rows(tmp_path / "out") == rows(source)
    with pytest.raises(ObjectError, match="cannot be checked out by hard links"):
        checkout(repo, tree, str(tmp_path / "linked"), link=True)


@pytest.mark.parametrize("link", [True, False])
def test_what_we_check_out_is_what_ostree_checks_out(
    tmp_path: Path, source: Path, link: bool
) -> None:
    theirs = tmp_path / "theirs"
    commit = commit_theirs(theirs, source)
    repo = Repo.open(theirs)
    checkout(repo, Tree.load(repo, commit), str(tmp_path / "out"), link=link)
    ostree(repo, "checkout", "-H" if link else "-C", commit, str(tmp_path / "expected"))
    assert rows(tmp_path / "out") == rows(tmp_path / "expected") == rows(source)
    for folder, folders, files in os.walk(tmp_path / "out"):
        for name in [*folders, *files]:
            path = Path(folder) / name
            twin = tmp_path / "expected" / path.relative_to(tmp_path / "out")
            assert path.is_symlink() or path.lstat().st_mtime == 0
            same_inode = path.lstat().st_ino == twin.lstat().st_ino
            empty = stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size == 0
            assert same_inode == (link and not path.is_dir() and not empty) or path.is_symlink()


def test_a_copy_may_be_changed_without_harm(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    checkout(repo, Tree.load(repo, commit), str(tmp_path / "out"), link=False)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(b"changed")
            path.chmod(0o777)
            os.chown(path, 99, 99)
    fsck(repo)


def test_our_linked_checkout_survives_fsck_and_empty_files_are_apart(
    tmp_path: Path, source: Path
) -> None:
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    checkout(repo, Tree.load(repo, commit), str(tmp_path / "out"), link=True)
    (tmp_path / "out/usr/etc/empty").write_text("no longer empty")
    assert (tmp_path / "out/usr/etc/also-empty").read_bytes() == b""
    fsck(repo)


def test_adopting_gives_the_same_commit_and_copies_nothing(tmp_path: Path, source: Path) -> None:
    before = rows(source)
    copied = Repo.init(tmp_path / "copied")
    commit = commit_ours(copied, source)
    adopted = Repo.init(tmp_path / "adopted")
    assert commit_ours(adopted, source, adopt=True) == commit
    fsck(adopted)
    tree = Tree.load(adopted, commit)
    checksum = tree.lookup("usr/lib/deep/er/data")
    assert isinstance(checksum, str)
    own = os.lstat(adopted.object_path(checksum, "file"))
    assert own.st_ino == (source / "usr/lib/deep/er/data").lstat().st_ino
    assert own.st_mtime == 0
    assert rows(source) == before


def test_writing_twice_writes_nothing(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    objects = {p: p.lstat().st_ino for p in (repo.path / "objects").rglob("*") if not p.is_dir()}
    assert commit_ours(repo, source) == commit
    again = {p: p.lstat().st_ino for p in (repo.path / "objects").rglob("*") if not p.is_dir()}
    assert again == objects
    assert list((repo.path / "tmp").iterdir()) == [repo.path / "tmp/cache"]


def test_metadata_and_parent_are_read_by_ostree(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    parent = commit_ours(repo, source)
    metadata = {
        "version": Variant.text("12.9.1 ü"),
        "ostree.bootable": Variant.flag(True),
        "long": Variant.text("x" * 70_000),
    }
    with writing(repo, sync=False) as writer:
        commit = commit_tree(
            writer,
            Tree.load(repo, parent),
            timestamp=TIME,
            subject="with metadata",
            parent=parent,
            metadata=metadata,
        )
        writer.set_ref("test/branch", commit)
    fsck(repo)

    def value(key: str) -> str:
        return ostree(repo, "show", f"--print-metadata-key={key}", commit).stdout.strip()

    assert value("version") == "'12.9.1 ü'"
    assert value("ostree.bootable") == "true"
    assert value("long") == "'" + "x" * 70_000 + "'"
    assert f"Parent:  {parent}" in ostree(repo, "show", commit).stdout
    assert ostree(repo, "diff", parent, commit).stdout == ""
    read = repo.commit(commit)
    assert read == Commit(
        read.root_contents, read.root_meta, TIME, "with metadata", "", parent, metadata
    )
    assert read.metadata["version"].as_text() == "12.9.1 ü"
    assert read.metadata["ostree.bootable"].as_flag()


def test_metadata_written_by_ostree_is_read_and_encoded_back(tmp_path: Path, source: Path) -> None:
    theirs = tmp_path / "theirs"
    ostree(theirs, "init", "--mode=bare")
    commit = ostree(
        theirs,
        "commit",
        "--branch=b",
        "--body=a body",
        "--subject=s",
        "--add-metadata-string=version=1.2",
        "--add-metadata=flag=true",
        "--add-metadata=number=uint64 7",
        "--add-metadata=list=['a','b']",
        f"--timestamp=@{TIME}",
        f"--tree=dir={source}",
    ).stdout.strip()
    repo = Repo.open(theirs)
    read = repo.commit(commit)
    assert (read.subject, read.body, read.timestamp, read.parent) == ("s", "a body", TIME, "")
    assert read.metadata["version"].as_text() == "1.2"
    assert read.metadata["flag"].as_flag() is True
    assert read.metadata["number"] == Variant("t", (7).to_bytes(8, "little"))
    assert read.encode() == repo.read_metadata(commit, "commit")


@pytest.mark.parametrize("mode", MODES)
def test_every_object_ostree_writes_is_read_and_encoded_back(
    tmp_path: Path, source: Path, mode: str
) -> None:
    theirs = tmp_path / "theirs"
    commit_theirs(theirs, source, mode)
    repo = Repo.open(theirs)
    count = 0
    for path in (theirs / "objects").glob("??/*"):
        checksum, kind = path.parent.name + path.name.split(".")[0], path.suffix[1:]
        count += 1
        if kind in ("file", "filez"):
            header = repo.header(checksum)
            assert FileHeader.decode(header.encode()) == header
            digest = header.digest()
            if not header.is_symlink:
                with repo.open_content(checksum) as stream:
                    data = b"".join(iter(lambda: stream.read(1 << 16), b""))
                digest.update(data)
                assert repo.size(checksum) == len(data)
            assert digest.hexdigest() == checksum
        elif kind == "dirtree":
            assert repo.dirtree(checksum).encode() == path.read_bytes()
        elif kind == "dirmeta":
            assert repo.dirmeta(checksum).encode() == path.read_bytes()
        else:
            assert repo.commit(checksum).encode() == path.read_bytes()
    assert count > 25


def test_a_tree_of_thousands_in_one_folder(tmp_path: Path) -> None:
    """Past 65,535 bytes a dirtree's offsets are four bytes wide."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3000):
        (source / f"{number:04}-{'n' * 20}").write_bytes(b"%d" % (number % 7))
        (source / f"d{number:04}").mkdir()
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    assert commit == commit_theirs(tmp_path / "theirs", source)
    fsck(repo)


def test_an_edited_tree_is_what_ostree_diff_says(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    tree = Tree.load(repo, commit)
    tree.remove("usr/bin/sudo")
    tree.remove("a-b")
    with writing(repo, sync=False) as writer:
        new = writer.content(FileHeader(0, 0, 0o100644), b"new")
        tree.make_folder("opt/new").files["file"] = new
        folder = tree.folder("usr/bin")
        assert folder is not None
        folder.files["su"] = new
        changed = commit_tree(writer, tree, timestamp=TIME)
        writer.set_ref("test/branch", changed)
    fsck(repo)
    lines = [line.split() for line in ostree(repo, "diff", commit, changed).stdout.splitlines()]
    assert sorted((line[0], line[1]) for line in lines) == [
        ("A", "/opt"),
        ("A", "/opt/new"),
        ("A", "/opt/new/file"),
        ("D", "/a-b"),
        ("D", "/usr/bin/sudo"),
        ("M", "/usr/bin/su"),
    ]


def test_refs_are_those_ostree_lists(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    with writing(repo, sync=False) as writer:
        for name in ("ostree/container/blob/sha256_3A_00", "ostree/0/1/0", "plain"):
            writer.set_ref(name, commit)
    assert set(repo.refs()) == set(ostree(repo, "refs").stdout.split())
    assert list(repo.refs("ostree/container/")) == ["ostree/container/blob/sha256_3A_00"]
    repo.delete_ref("ostree/container/blob/sha256_3A_00")
    repo.delete_ref("ostree/container/blob/sha256_3A_00")
    assert set(repo.refs()) == set(ostree(repo, "refs").stdout.split())
    assert repo.resolve("ostree/container/blob/sha256_3A_00") is None
    ostree(repo, "refs", "--create=other", commit)
    assert repo.resolve("other") == commit


def test_a_partial_commit_is_partial_for_ostree_too(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    assert repo.is_complete(commit)
    repo.mark_partial(commit)
    assert not repo.is_complete(commit)
    listing = run(["ostree", "fsck", f"--repo={repo.path}"], check=False)
    assert "1 partial commits not verified" in listing.stdout + listing.stderr
    repo.clear_partial(commit)
    assert repo.is_complete(commit)
    fsck(repo)


def test_names_libostree_refuses_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / os.fsdecode(b"latin-\xff")).write_text("x")
    with pytest.raises(StrataError):
        commit_theirs(tmp_path / "theirs", source)
    repo = Repo.init(tmp_path / "ours")
    with pytest.raises(ObjectError, match="not UTF-8"):
        commit_ours(repo, source)
    assert repo.refs() == {}
    fsck(repo)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_no_commit_can_hold_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "source" / "odd"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, stat.S_IFCHR if kind == "device" else stat.S_IFSOCK)
    repo = Repo.init(tmp_path / "ours")
    with pytest.raises(ObjectError, match=str(path)):
        commit_ours(repo, tmp_path / "source")
    assert repo.refs() == {}
    assert list((repo.path / "tmp").iterdir()) == [repo.path / "tmp/cache"]


def test_a_full_disk_is_one_sentence_and_leaves_the_repository_valid(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", os.fsencode(small), b"tmpfs", 0, b"size=13m") == 0
    try:
        source = tmp_path / "source"
        source.mkdir()
        for number in range(8):
            (source / str(number)).write_bytes(os.urandom(2 << 20))
        repo = Repo.init(small / "repo")
        with pytest.raises(NoSpaceError, match="no space left"):
            commit_ours(repo, source)
        assert repo.refs() == {}
        assert list((repo.path / "tmp").iterdir()) == [repo.path / "tmp/cache"]
        fsck(repo)
        for path in source.iterdir():
            path.write_bytes(b"small enough")
        commit_ours(repo, source)
        fsck(repo)
    finally:
        assert libc.umount2(os.fsencode(small), 2) == 0


def test_adopting_from_another_file_system_copies(tmp_path: Path, source: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", os.fsencode(other), b"tmpfs", 0, b"size=64m") == 0
    try:
        repo = Repo.init(other / "repo")
        commit = commit_ours(repo, source, adopt=True)
        fsck(repo)
        assert commit == commit_ours(Repo.init(tmp_path / "ours"), source)
    finally:
        assert libc.umount2(os.fsencode(other), 2) == 0


def test_a_scan_of_a_hard_linked_checkout_gives_the_tree_back(tmp_path: Path, source: Path) -> None:
    repo = Repo.init(tmp_path / "ours")
    commit = commit_ours(repo, source)
    tree = Tree.load(repo, commit)
    checkout(repo, tree, str(tmp_path / "out"), link=True)
    with writing(repo, sync=False) as writer:
        assert scan(writer, str(tmp_path / "out")) == tree
    comparison = filecmp.dircmp(source, tmp_path / "out")
    assert not comparison.left_only
    assert not comparison.right_only
