"""The cache keeps within its limit, and what is used stays."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from strata.cli.main import make_parser
from strata.compose.workspace import Workspace
from strata.core.events import Event, Noted, Reporter
from strata.rpm.evict import Entry, Evicted, evict, in_use, to_evict, touch

pytestmark = pytest.mark.unit

NEVER = 1 << 62


def entry(name: str, size: int, used: int) -> Entry:
    return Entry((Path(name),), size, used)


@pytest.mark.parametrize(
    ("limit", "since", "gone"),
    [
        (60, NEVER, []),
        (59, NEVER, ["old"]),
        (49, NEVER, ["old", "middle"]),
        (0, NEVER, ["old", "middle", "new"]),
        (0, 3, ["old", "middle"]),
        (0, 1, []),
    ],
)
def test_the_least_recently_used_go_first(limit: int, since: int, gone: list[str]) -> None:
    entries = [entry("new", 30, 3), entry("old", 10, 1), entry("middle", 20, 2)]
    assert [str(item.paths[0]) for item in to_evict(entries, limit, since)] == gone


def package(cache: Path, name: str, size: int, used_s: int) -> Path:
    path = cache / name[:2] / name / f"{name}.rpm"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used_s, 1))
    return path


def repository(cache: Path, name: str, size: int, used_s: int) -> Path:
    folder = cache / f"{name}-{'0' * 16}"
    (folder / "repodata").mkdir(parents=True)
    (folder / "repodata/primary.xml").write_bytes(bytes(size))
    for beside in (f"{name}.solv", f"{name}-filenames.solvx"):
        (cache / beside).write_bytes(bytes(size))
    os.utime(folder, (used_s, used_s))
    return folder


def test_packages_and_metadata_share_a_limit(tmp_path: Path) -> None:
    packages, metadata = tmp_path / "packages", tmp_path / "metadata"
    old, new = package(packages, "aa1", 100, 10), package(packages, "aa2", 100, 30)
    gone, kept = repository(metadata, "r", 50, 20), repository(metadata, "r-x", 50, 40)
    (old.parent / ".fetch.half").write_bytes(bytes(100))  # what a killed fetch left
    os.utime(old.parent / ".fetch.half", (10, 10))
    assert evict(packages, metadata, limit_bytes=600, since_ns=NEVER) == Evicted(0, 0)
    assert evict(packages, metadata, limit_bytes=250, since_ns=NEVER) == Evicted(2, 350)
    assert not old.parent.exists()
    assert not gone.exists()
    assert not (metadata / "r.solv").exists()
    assert new.exists()
    assert kept.exists()
    assert (metadata / "r-x-filenames.solvx").exists()


def test_what_was_swapped_in_by_hand_counts_too(tmp_path: Path) -> None:
    packages, metadata, swapped = (tmp_path / name for name in ("packages", "metadata", "with"))
    for name, used_s in (("old", 10), ("new", 30)):
        folder = swapped / name / "repodata"
        folder.mkdir(parents=True)
        (folder / "repomd.xml").write_bytes(bytes(40))
        (folder.parent / "a.rpm").write_bytes(bytes(60))
        os.utime(folder.parent, (used_s, used_s))
    kept = package(packages, "aa1", 100, 20)

    def limit(size: int) -> Evicted:
        return evict(packages, metadata, (), swapped, limit_bytes=size, since_ns=NEVER)

    assert limit(300) == Evicted(0, 0)
    assert limit(299) == Evicted(1, 100)
    assert [path.name for path in swapped.glob("*/")] == ["new"]
    assert limit(100) == Evicted(1, 100)
    assert not kept.exists()
    assert (swapped / "new/a.rpm").exists()


def test_a_use_is_noted_without_the_clock_of_the_repository(tmp_path: Path) -> None:
    path = package(tmp_path, "aa1", 1, 10)
    touch(path)
    assert time.time() - path.stat().st_atime < 5
    assert path.stat().st_mtime == 1


def test_nothing_goes_while_another_process_uses_the_cache(tmp_path: Path) -> None:
    packages, metadata = tmp_path / "packages", tmp_path / "metadata"
    path = package(packages, "aa1", 100, 10)
    for used in (packages, metadata):
        with in_use(used):
            assert evict(packages, metadata, limit_bytes=0, since_ns=NEVER) == Evicted(0, 0)
    assert path.exists()
    with open(packages / ".lock", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with in_use(packages):  # users do not wait for each other
            pass
    assert evict(packages, metadata, limit_bytes=0, since_ns=NEVER) == Evicted(1, 100)


def test_what_went_is_told_and_what_the_command_used_stays(tmp_path: Path) -> None:
    seen: list[Event] = []
    workspace = Workspace.create(tmp_path / "store", cache_limit_bytes=50)
    old = package(workspace.packages, "aa1", 100, 10)
    used = package(workspace.packages, "aa2", 100, 10)
    touch(used)
    workspace.limit_cache(Reporter(seen.append))
    assert not old.exists()
    assert used.exists()
    (told,) = [event.message for event in seen if isinstance(event, Noted)]
    assert told.startswith("removed 1 entries (0.0 MB) from the cache")


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1500", 1500), ("800M", 800_000_000), ("1.5gb", 1_500_000_000)]
)
def test_the_limit_is_a_common_option(
    text: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = ["build", "node/4.19"]
    assert make_parser().parse_args(["--cache-limit", text, *parse]).cache_limit == size
    assert make_parser().parse_args([*parse, "--cache-limit", text]).cache_limit == size
    assert make_parser().parse_args(parse).cache_limit == 20_000_000_000
    monkeypatch.setenv("STRATA_CACHE_LIMIT", text)
    assert make_parser().parse_args(parse).cache_limit == size


def test_a_limit_that_is_no_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["build", "--cache-limit", "much", "node/4.19"])
    assert "'much' is no size: write it like 800M or 20G" in capsys.readouterr().err
