"""Verify: every file of the mounted /usr against the commit of the image it is of.

With an overlay that is the node image's; on a machine that booted an image, as after `switch` and a
reboot, where nothing of an overlay is left, it is the booted deployment's.

Content, type, mode, owner and extended attributes are those the commit's objects have: a file's
checksum is computed anew from the disk, a folder's metadata is compared, and a name that is there
beyond the commit is told. Under an overlay /usr/lib/modules is not looked into: it is the booted
one's.
Memory is one tree of names and one piece of a file for each thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strata.core.errors import ObjectError, StrataError
from strata.core.events import Reporter
from strata.node import host, preflight
from strata.node.host import State
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import dir_meta, file_checksum
from strata.ostree.tree import Tree

MODULES = "lib/modules"
OVERLAY, BOOTED = "overlay", "booted"
_BATCH = 256


@dataclass(frozen=True)
class Difference:
    """A path below /usr that is not as the commit has it. what: in words."""

    path: str
    what: str


@dataclass(frozen=True)
class Compared:
    """What was read, and what differs. size_bytes: of the files' content."""

    files: int
    folders: int
    size_bytes: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Verified(Compared):
    """And of what. of: OVERLAY or BOOTED; image: its manifest's digest; commit: its own."""

    of: str
    image: str
    commit: str


def verify(reporter: Reporter, *, threads: int = 2) -> Verified:
    """Read the whole mounted /usr. Raises StrataError when it is of no image, ObjectError."""
    state = State.load()
    of, image, commit = OVERLAY, state.manifest_digest, state.merge_commit
    repo = host.open_repo()
    if state.phase in (host.NOTHING, host.BOOTED_NODE):
        of, image = BOOTED, preflight.booted_image()
        if not image:
            raise StrataError(
                "nothing is overlaid, and this machine did not boot an image",
                hint="run strata-node pull and overlay first",
            )
        repo, commit = Repo.open(host.REPO), host.booted_commit()
    elif state.phase == host.PULLED:
        raise StrataError(
            "the node image is not overlaid: there is nothing to verify",
            hint="run strata-node overlay first",
        )
    with reporter.step("verify /usr") as step:
        usr = Tree.load(repo, commit).folder("usr")
        if usr is None:
            raise ObjectError(f"the commit {commit} has no /usr")
        without = frozenset({MODULES} if of == OVERLAY else ())
        read = compare(usr, host.USR, without=without, threads=threads)
        step.detail(
            f"{read.files} files, {read.size_bytes / 1e6:.1f} MB, {len(read.differences)} differ"
        )
    return Verified(**vars(read), of=of, image=image, commit=commit)


def compare(tree: Tree, top: str, *, without: Collection[str] = (), threads: int = 2) -> Compared:
    """Compare a folder on disk with a tree. without: folders that are not looked into."""
    found: list[Difference] = []
    files = folders = size = 0
    pending: list[tuple[str, Checksum]] = []

    def read(item: tuple[str, Checksum]) -> tuple[int, Difference | None]:
        return _file(top, *item)

    with ThreadPoolExecutor(threads) as pool:
        for path, folder in _folders(tree, without):
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
    return Compared(files, folders, size, ordered)


def _folders(tree: Tree, without: Collection[str], path: str = "") -> Iterator[tuple[str, Tree]]:
    yield path, tree
    for name in sorted(tree.dirs):
        where = _join(path, name)
        if where not in without:
            yield from _folders(tree.dirs[name], without, where)


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
