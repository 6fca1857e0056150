"""A limit on the store's cache of packages, of repositories' metadata, and of what was made from
them: what is over it goes, the least recently used first; never what the running command used, and
nothing while another process uses the cache.

A file's last use is its access time, a repository's the modification time of dnf's folder of it.
Both are set by whoever uses them, not left to the file system.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.core.files import remove_tree

# Several streams with their extensions, or some fifty times the sample; a build machine has it.
DEFAULT_LIMIT_BYTES = 20 * 10**9
_LOCK = ".lock"


@dataclass(frozen=True)
class Entry:
    """What is removed together. used_ns: when it was last used."""

    paths: tuple[Path, ...]
    size_bytes: int
    used_ns: int


@dataclass(frozen=True)
class Evicted:
    """What went: how many entries, and their size."""

    count: int
    size_bytes: int


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep everything in a cache folder for the length of the block: no process evicts there."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def touch(path: Path) -> None:
    """Note that a file was used. Its modification time stays: by a hard link, the file may be
    its repository's own."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def to_evict(entries: Iterable[Entry], limit_bytes: int, since_ns: int) -> list[Entry]:
    """The least recently used entries without which the rest is within the limit. Pure.

    since_ns: what was used then or later stays, whatever the limit is.
    """
    everything = sorted(entries, key=lambda entry: (entry.used_ns, entry.paths))
    excess = sum(entry.size_bytes for entry in everything) - limit_bytes
    gone = []
    for entry in everything:
        if excess <= 0 or entry.used_ns >= since_ns:
            break
        gone.append(entry)
        excess -= entry.size_bytes
    return gone


def evict(
    packages: Path,
    metadata: Path,
    made: Sequence[Path] = (),
    swapped: Path | None = None,
    *,
    limit_bytes: int,
    since_ns: int,
) -> Evicted:
    """Bring the cache folders together within a limit. since_ns: as `to_evict` has it.

    made: folders of files that stand for themselves; swapped: a folder of repositories of packages
    swapped in by hand. They are the caller's alone.

    Does nothing while another process uses them: the next build will.
    """
    with ExitStack() as stack:
        for folder in (packages, metadata):
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(folder / _LOCK, "ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Evicted(0, 0)
        files = [entry for folder in made for entry in _files(folder)]
        entries = [*_packages(packages), *_repositories(metadata), *files]
        entries += _swapped(swapped) if swapped else []
        gone = to_evict(entries, limit_bytes, since_ns)
        for entry in gone:
            for path in entry.paths:
                remove_tree(path)
    return Evicted(len(gone), sum(entry.size_bytes for entry in gone))


def _packages(cache: Path) -> Iterator[Entry]:
    """One entry a package: its folder, and what an interrupted fetch left in it."""
    for folder in cache.glob("??/*"):
        found = [path.stat() for path in folder.iterdir()]
        used = max((status.st_atime_ns for status in found), default=0)
        yield Entry((folder,), sum(status.st_size for status in found), used)


def _swapped(cache: Path) -> Iterator[Entry]:
    """One entry a repository, whole."""
    for folder in cache.glob("*/"):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield Entry((folder,), size, folder.stat().st_mtime_ns)


def _repositories(cache: Path) -> Iterator[Entry]:
    """One entry a repository: dnf's folder `ID-HASH` of it, and `ID.solv`, `ID-….solvx` beside."""
    for folder in cache.glob("*-????????????????"):
        name = folder.name[:-17]
        solved = re.compile(re.escape(name) + r"(\.solv|-[a-z]+\.solvx)")
        beside = [path for path in cache.iterdir() if solved.fullmatch(path.name)]
        files = [*beside, *(path for path in folder.rglob("*") if path.is_file())]
        size = sum(path.stat().st_size for path in files)
        yield Entry((folder, *beside), size, folder.stat().st_mtime_ns)


def _files(folder: Path) -> Iterator[Entry]:
    for path in folder.rglob("*"):
        status = path.lstat()
        if not path.is_dir():
            yield Entry((path,), status.st_size, status.st_atime_ns)
