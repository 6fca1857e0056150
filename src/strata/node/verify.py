"""Verify: every file of the mounted /usr against the node image's commit.

Content, type, mode, owner and extended attributes are those the commit's objects have: a file's
checksum is computed anew from the disk, a folder's metadata is compared, and a name that is there
beyond the commit is told. Only /usr/lib/modules is not looked into: it stays the booted one's.
Memory is one tree of names and one piece of a file for each thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strata.core.errors import ObjectError, StrataError
from strata.core.events import Reporter
from strata.node import host
from strata.node.host import State
from strata.ostree.objects import Checksum
from strata.ostree.scan import dir_meta, file_checksum
from strata.ostree.tree import Tree

BOOTED = frozenset({"lib/modules"})
_BATCH = 256


@dataclass(frozen=True)
class Difference:
    """A path below /usr that is not as the commit has it. what: in words."""

    path: str
    what: str


@dataclass(frozen=True)
class Verified:
    """What was read, and what differs. size_bytes: of the files' content."""

    commit: str
    files: int
    folders: int
    size_bytes: int
    differences: tuple[Difference, ...]


def verify(reporter: Reporter, *, threads: int = 2) -> Verified:
    """Read the whole mounted /usr. Raises StrataError when nothing is overlaid, ObjectError."""
    state = State.load()
    if state.phase not in (host.OVERLAID, host.FINISHED):
        raise StrataError(
            "the node image is not overlaid: there is nothing to verify",
            hint="run strata-node overlay first",
        )
    with reporter.step("verify /usr") as step:
        repo = host.open_repo()
        usr = Tree.load(repo, state.merge_commit).folder("usr")
        if usr is None:
            raise ObjectError(f"the commit {state.merge_commit} has no /usr")
        done = compare(usr, host.USR, state.merge_commit, threads=threads)
        step.detail(
            f"{done.files} files, {done.size_bytes / 1e6:.1f} MB, {len(done.differences)} differ"
        )
    return done


def compare(tree: Tree, top: str, commit: str, *, threads: int = 2) -> Verified:
    """Compare a folder on disk with a tree; `BOOTED` folders are left out."""
    found: list[Difference] = []
    files = folders = size = 0
    pending: list[tuple[str, Checksum]] = []

    def read(item: tuple[str, Checksum]) -> tuple[int, Difference | None]:
        return _file(top, *item)

    with ThreadPoolExecutor(threads) as pool:
        for path, folder in _folders(tree):
            folders += 1
            found += _folder(top, path, folder)
            pending += ((_join(path, name), folder.files[name]) for name in sorted(folder.files))
            if len(pending) >= _BATCH:
                for length, difference in pool.map(read, pending):
                    files, size = files + 1, size + length
                    found += [difference] if difference else []
                pending = []
        for length, difference in pool.map(read, pending):
            files, size = files + 1, size + length
            found += [difference] if difference else []
    ordered = tuple(sorted(found, key=lambda item: item.path))
    return Verified(commit, files, folders, size, ordered)


def _folders(tree: Tree, path: str = "") -> Iterator[tuple[str, Tree]]:
    yield path, tree
    for name in sorted(tree.dirs):
        where = _join(path, name)
        if where not in BOOTED:
            yield from _folders(tree.dirs[name], where)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _folder(top: str, path: str, tree: Tree) -> list[Difference]:
    where = f"{top}/{path}" if path else top
    try:
        there = dir_meta(where)
        names = set(os.listdir(where))
    except FileNotFoundError:
        return [Difference(path, "is missing")]
    except NotADirectoryError:
        return [Difference(path, "is not a folder")]
    found = []
    if there != tree.meta:
        found.append(Difference(path, _metadata(there, tree.meta)))
    for name in sorted(names - tree.files.keys() - tree.dirs.keys()):
        found.append(Difference(_join(path, name), "is not in the node image"))
    return found


def _metadata(there: object, wanted: object) -> str:
    names = ("mode", "uid", "gid", "xattrs")
    other = [name for name in names if getattr(there, name) != getattr(wanted, name)]
    return f"has another {', '.join(other)}"


def _file(top: str, path: str, checksum: Checksum) -> tuple[int, Difference | None]:
    where = f"{top}/{path}"
    try:
        status = os.lstat(where)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return 0, Difference(path, "is neither a file nor a link")
        same = file_checksum(where) == checksum
    except (FileNotFoundError, NotADirectoryError):
        return 0, Difference(path, "is missing")
    except OSError as error:
        return 0, Difference(path, f"cannot be read: {error.strerror}")
    wrong = None if same else Difference(path, "has another content, mode, owner or attribute")
    return status.st_size, wrong
