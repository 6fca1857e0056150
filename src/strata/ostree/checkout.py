"""A tree of objects becomes a directory on disk: by hard links, or by copies that may be changed.

Links share the object's inode: such a checkout must only be read, or be the lower side of an
overlay. Empty files are always made anew, as libostree does: one inode would get too many names.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from strata.core.errors import ObjectError
from strata.core.streams import Closable
from strata.ostree.modes import BARE, STORAGES, read_xattrs
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

_CHUNK = 1 << 20


def checkout(repo: Repo, tree: Tree, dest: str, *, link: bool) -> None:
    """Check a tree out into a directory that does not exist yet.

    link: hard links to the objects, which needs a repository of mode bare; else copies. Owners,
    modes and extended attributes are exact, times are 0. Raises ObjectError when an object is
    missing, OSError when `dest` exists.
    """
    if link and repo.mode != BARE:
        raise ObjectError(
            f"a repository of mode {repo.mode} cannot be checked out by hard links",
            hint="its objects are not the files themselves: make copies",
        )
    os.mkdir(dest, 0o700)
    _fill(repo, tree, dest, link, {})


def _fill(repo: Repo, tree: Tree, dest: str, link: bool, empty: dict[Checksum, bool]) -> None:
    for name, checksum in tree.files.items():
        target = f"{dest}/{name}"
        source = repo.object_path(checksum, "file")
        try:
            if link and not _is_empty(source, checksum, empty):
                try:
                    os.link(source, target, follow_symlinks=False)
                    continue
                except OSError as error:
                    if error.errno != errno.EMLINK:
                        raise
            if repo.mode == BARE:
                copy(source, target)
            else:
                _unpack(repo, checksum, target)
        except FileNotFoundError:
            raise ObjectError(f"the content object {checksum} is missing") from None
    for name, inner in tree.dirs.items():
        os.mkdir(f"{dest}/{name}", 0o700)
        _fill(repo, inner, f"{dest}/{name}", link, empty)
    fd = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(fd, tree.meta.uid, tree.meta.gid)
        os.fchmod(fd, tree.meta.mode & 0o7777)
        for key, value in tree.meta.xattrs:
            os.setxattr(fd, key, value)
        os.utime(fd, (0, 0))
    finally:
        os.close(fd)


def _is_empty(source: str, checksum: Checksum, known: dict[Checksum, bool]) -> bool:
    if checksum not in known:
        status = os.lstat(source)
        known[checksum] = stat.S_ISREG(status.st_mode) and status.st_size == 0
    return known[checksum]


def _unpack(repo: Repo, checksum: Checksum, target: str) -> None:
    """Make the file an object of another mode stands for: as mode bare would keep it."""
    header = repo.header(checksum)
    if header.is_symlink:
        STORAGES[BARE].write(target, header, ())
        return
    with repo.open_content(checksum) as stream:
        STORAGES[BARE].write(target, header, _pieces(stream))


def _pieces(stream: Closable) -> Iterator[bytes]:
    while True:
        data = stream.read(_CHUNK)
        if not data:
            return
        yield data


def copy(source: str, target: str) -> None:
    """Copy a file or link with its owner, mode and extended attributes; its time becomes 0."""
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        os.lchown(target, status.st_uid, status.st_gid)
        for name, value in read_xattrs(source):
            os.setxattr(target, name, value, follow_symlinks=False)
        os.utime(target, (0, 0), follow_symlinks=False)
        return
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            while os.sendfile(writing, reading, None, 1 << 24):
                pass
            os.fchown(writing, status.st_uid, status.st_gid)
            os.fchmod(writing, stat.S_IMODE(status.st_mode))
            for name, value in read_xattrs(source):
                os.setxattr(writing, name, value)
            os.utime(writing, (0, 0))
        finally:
            os.close(writing)
    finally:
        os.close(reading)
