"""The repository under interruption and beside other writers; trees to disk and back."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strata.core.errors import DigestError, ObjectError, StrataError
from strata.core.process import run
from strata.ostree import writer
from strata.ostree.checkout import checkout
from strata.ostree.objects import Checksum, Commit, DirMeta, DirTree, FileHeader
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree, scan
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

PLAIN = FileHeader(0, 0, 0o100644)


def fsck(repo: Repo) -> None:
    run(["ostree", "fsck", "-q", f"--repo={repo.path}"])


def leftovers(repo: Repo) -> list[str]:
    """Files that are neither objects, refs nor the repository's own."""
    return [str(p) for p in (repo.path / "tmp").iterdir() if p.name != "cache"] + [
        str(p) for p in (repo.path / "refs").rglob(".*")
    ]


def test_wrong_bytes_are_a_digest_error_and_leave_nothing(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo")
    right = "0" * 64
    with writing(repo, sync=False) as writer:
        with pytest.raises(DigestError) as raised:
            writer.content(PLAIN, b"x", right)
        assert raised.value.context["expected"] == right
        with pytest.raises(DigestError):
            writer.content(FileHeader(0, 0, 0o120777, "t"), None, right)
        with pytest.raises(DigestError):
            writer.metadata("dirtree", DirTree().encode(), right)
    assert not [p for p in (repo.path / "objects").rglob("*") if not p.is_dir()]
    assert leftovers(repo) == []


def test_objects_get_their_names_after_a_sync_and_refs_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut an object may be missing, but never there with other bytes."""
    repo = Repo.init(tmp_path / "repo")
    seen: list[tuple[int, int]] = []

    def count() -> tuple[int, int]:
        objects = [p for p in (repo.path / "objects").rglob("*") if not p.is_dir()]
        return len(objects), len(repo.refs())

    monkeypatch.setattr("strata.ostree.writer.syncfs", lambda path: seen.append(count()))
    with writing(repo) as writer:
        tree = Tree(files={"file": writer.content(PLAIN, b"bytes")})
        writer.set_ref("ref", commit_tree(writer, tree, timestamp=0))
        assert count() == (0, 0)
        writer.publish()
        assert seen == [(0, 0), (4, 0)]
        assert count() == (4, 1)
    with writing(repo) as writer:  # nothing new, so nothing to sync
        writer.set_ref("ref", commit_tree(writer, tree, timestamp=0))
    assert len(seen) == 2
    config = repo.path / "config"
    config.write_text(config.read_text() + "fsync=false\n")
    with writing(Repo.open(repo.path)) as writer:
        writer.content(PLAIN, b"other")
    assert len(seen) == 2


def test_a_prune_and_a_writer_keep_out_of_each_others_way(tmp_path: Path) -> None:
    """By libostree's own lock: `ostree prune` waits for our writers, and we for it."""
    repo = Repo.init(tmp_path / "repo")
    config = repo.path / "config"
    config.write_text(config.read_text() + "lock-timeout-secs=1\n")
    prune = ["ostree", "prune", f"--repo={repo.path}", "--refs-only"]
    with writing(repo) as writer:
        writer.content(PLAIN, b"of a commit that is not there yet")
        done = run(prune, check=False)
        assert done.status != 0
        assert "Locking repo exclusive failed" in done.stderr
        with pytest.raises(ObjectError, match="locked by another process"):
            with repo.locked(exclusive=True, timeout_s=0.2):
                pass
    run(prune)
    with repo.locked(exclusive=True), pytest.raises(ObjectError, match="locked by another"):
        with repo.locked(exclusive=False, timeout_s=0.2):
            pass


class _Breaks(BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(4096)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "broke off")
        return data


def test_a_body_that_breaks_off_leaves_nothing_and_publishes_no_ref(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo")

    def write() -> None:
        with writing(repo, sync=False) as writer:
            writer.set_ref("early", commit_tree(writer, Tree(), timestamp=0))
            writer.content(PLAIN, _Breaks(b"x" * 100_000))

    with pytest.raises(StrataError, match="broke off while writing the OSTree repository"):
        write()
    assert repo.refs() == {}
    assert leftovers(repo) == []


def test_opening_what_is_no_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(ObjectError, match="is not an OSTree repository"):
        Repo.open(tmp_path / "missing")
    run(["ostree", "init", f"--repo={tmp_path / 'only'}", "--mode=bare-user-only"])
    with pytest.raises(ObjectError, match="of mode bare-user-only, which is not read") as raised:
        Repo.open(tmp_path / "only")
    assert raised.value.hint
    config = tmp_path / "only/config"
    for text in ("mode=bare", "[core]\nmode=bare\nrepo_version=2\n", "[core]\nfsync=perhaps\n"):
        config.write_text(text)
        with pytest.raises(ObjectError, match=r"cannot be read|of version 1"):
            Repo.open(tmp_path / "only")


def test_missing_objects_are_named(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo")
    with writing(repo, sync=False) as writer:
        tree = Tree(files={"file": writer.content(PLAIN, b"bytes")}, dirs={"folder": Tree()})
        commit = commit_tree(writer, tree, timestamp=0)
    found = repo.commit(commit)
    with pytest.raises(ObjectError, match=f"the commit object {'0' * 64} is missing"):
        Tree.load(repo, "0" * 64)
    os.unlink(repo.object_path(tree.files["file"], "file"))
    for link in (True, False):
        with pytest.raises(
            ObjectError, match=f"the content object {tree.files['file']} is missing"
        ):
            checkout(repo, Tree.load(repo, commit), str(tmp_path / f"out{link}"), link=link)
    with pytest.raises(ObjectError, match="the content object"):
        repo.header(tree.files["file"])
    os.unlink(repo.object_path(found.root_contents, "dirtree"))
    with pytest.raises(ObjectError, match=f"the dirtree object {found.root_contents} is missing"):
        Tree.load(repo, commit)


@pytest.mark.parametrize("name", ["", "/abs", "../../config", "a/../../b", "a/.."])
def test_refs_stay_among_refs(tmp_path: Path, name: str) -> None:
    repo = Repo.init(tmp_path / "repo")
    with pytest.raises(ObjectError, match="is not a ref"):
        repo.resolve(name)
    with pytest.raises(ObjectError, match="is not a ref"), writing(repo, sync=False) as writer:
        writer.set_ref(name, Checksum("a" * 64))
    with pytest.raises(ObjectError, match="is not a ref"):
        repo.delete_ref(name)


def test_a_tree_that_folds_out_without_end_is_refused(tmp_path: Path) -> None:
    """Sixty dirtrees, each holding the next twice, are 2^60 folders."""
    repo = Repo.init(tmp_path / "repo")
    with writing(repo, sync=False) as writer:
        meta = writer.metadata("dirmeta", DirMeta().encode())
        contents = writer.metadata("dirtree", DirTree().encode())
        for _ in range(60):
            rows = (("a", contents, meta), ("b", contents, meta))
            contents = writer.metadata("dirtree", DirTree((), rows).encode())
        commit = writer.metadata("commit", Commit(contents, meta, 0).encode())
    started = time.monotonic()
    with pytest.raises(ObjectError, match="a tree has more than"):
        Tree.load(repo, commit)
    assert time.monotonic() - started < 30


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo")
    with writing(repo, sync=False) as writer:
        meta = writer.metadata("dirmeta", DirMeta().encode())
        contents = writer.metadata("dirtree", DirTree().encode())
        for _ in range(400):
            rows = (("a", contents, meta),)
            contents = writer.metadata("dirtree", DirTree((), rows).encode())
        commit = writer.metadata("commit", Commit(contents, meta, 0).encode())
    with pytest.raises(ObjectError, match="deeper than"):
        Tree.load(repo, commit)


def test_writers_beside_each_other_give_one_valid_repository(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo")
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        try:
            barrier.wait()
            for turn in range(5):
                with writing(repo, sync=False) as writer:
                    files = {
                        str(n): writer.content(PLAIN, b"%d" % (n if n < 40 else n * number))
                        for n in range(60)
                    }
                    files["link"] = writer.content(FileHeader(0, 0, 0o120777, "same"), None)
                    commit = commit_tree(writer, Tree(files=files), timestamp=turn)
                    writer.set_ref(f"writers/{number}", commit)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(repo.refs()) == [f"writers/{number}" for number in range(4)]
    assert leftovers(repo) == []
    fsck(repo)


_ENDLESS = """
import sys
from pathlib import Path
from strata.ostree.objects import FileHeader
from strata.ostree import writer
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree
from strata.ostree.tree import Tree
from strata.ostree.writer import writing
from strata.ostree.writer import writing
repo = Repo.open(Path(sys.argv[1]))
number = 0
while True:
    with writing(repo, sync=False) as writer:
        files = {}
        for name in range(20):
            number += 1
            files[f"f{name}"] = writer.content(FileHeader(0, 0, 0o100644), b"%d" % number * 5000)
            files[f"l{name}"] = writer.content(FileHeader(0, 0, 0o120777, f"t{number}"), None)
        commit = commit_tree(writer, Tree(files=files), timestamp=number)
        for name in range(30):
            writer.set_ref(f"endless/{name}/{number % 7}", commit)
    print(number, flush=True)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.soak)])
def test_a_writer_killed_at_any_time_leaves_a_valid_repository(tmp_path: Path, times: int) -> None:
    repo = Repo.init(tmp_path / "repo")
    chance = random.Random(7)  # noqa: S311  (only when to kill)
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, str(repo.path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(chance.random() * 0.08)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for checksum in repo.refs().values():
            assert repo.is_complete(checksum)
    fsck(repo)
    listed = run(["ostree", "refs", f"--repo={repo.path}"]).stdout.split()
    assert sorted(listed) == sorted(repo.refs())
    with writing(repo):
        pass
    assert leftovers(repo) == []


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
values = st.binary(min_size=1, max_size=30)
folder_modes = st.integers(0, 0o7777)
owners = st.integers(0, 70_000)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> dict[str, object]:
    """name → bytes of a file, text of a link's target, or an inner tree."""
    leaf = st.one_of(
        st.binary(max_size=300),
        st.text(
            st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300
        ).filter(lambda text: len(text.encode()) < 1000),
    )
    inner = st.one_of(leaf, trees(depth - 1)) if depth else leaf
    return draw(st.dictionaries(names, inner, max_size=5))


def _make(path: Path, tree: dict[str, object], data: st.DataObject) -> None:
    path.mkdir()
    for name, value in tree.items():
        inner = path / name
        if isinstance(value, dict):
            _make(inner, value, data)
        elif isinstance(value, bytes):
            inner.write_bytes(value)
            os.chown(inner, data.draw(owners), data.draw(owners))
            inner.chmod(data.draw(folder_modes))
            for key in data.draw(st.sets(st.sampled_from(["user.a", "trusted.b", "security.c"]))):
                os.setxattr(inner, key, data.draw(values))
        else:
            assert isinstance(value, str)
            inner.symlink_to(value)
            os.lchown(inner, data.draw(owners), data.draw(owners))
    os.chown(path, data.draw(owners), data.draw(owners))
    path.chmod(data.draw(folder_modes))
    if data.draw(st.booleans()):
        os.setxattr(path, "user.folder", data.draw(values))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(trees(), st.data())
def test_random_trees_go_to_a_commit_and_back(tree: dict[str, object], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        _make(at / "source", tree, data)
        repo = Repo.init(at / "repo")
        with writing(repo, sync=False) as writer:
            scanned = scan(writer, str(at / "source"))
            commit = commit_tree(writer, scanned, timestamp=1)
            writer.set_ref("ref", commit)
        fsck(repo)
        assert Tree.load(repo, commit) == scanned
        for link in (True, False):
            checkout(repo, Tree.load(repo, commit), str(at / f"out{link}"), link=link)
            with writing(repo, sync=False) as writer:
                assert scan(writer, str(at / f"out{link}")) == scanned


def test_what_is_staged_does_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects go to their places as they come; refs only with the end."""
    monkeypatch.setattr(writer, "MAX_STAGED", 10)
    repo = Repo.init(tmp_path / "repo")
    header = FileHeader(0, 0, 0o100644)
    with writing(repo) as writing_now:
        objects = [writing_now.content(header, b"%d" % number) for number in range(35)]
        commit = commit_tree(writing_now, Tree(), timestamp=0)
        writing_now.set_ref("x", commit)
        assert [repo.has(each, "file") for each in objects] == [True] * 30 + [False] * 5
        assert repo.resolve("x") is None
    assert all(repo.has(each, "file") for each in objects)
    assert repo.resolve("x") == commit
