"""How a repository's mode keeps content objects on disk.

- `bare`: the file itself, with its owner, mode and extended attributes; links are links. Exact,
  needs root to write.
- `bare-user`: a regular file of the writer's own; owner, mode and attributes are in the attribute
  `user.ostreemeta`, `(uuua(ayay))`. A link is a file that holds its target and a NUL.
- `archive`: `.filez`, BE32 length of the header, BE32 0, the header `(tuuuusa(ayay))` (first the
  size), then the raw deflate stream of the body. Any file system and any web server can hold it.
- `bare-split-xattrs`: what container images carry: as `bare`, the attributes in a file
  `.file-xattrs-link` of their own. Only read, as in libostree.

Metadata objects and refs are the same in all. Source: libostree's ostree-repo.c, ostree-core.c.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from collections.abc import Iterable
from typing import Protocol

from strata.core.errors import ObjectError
from strata.core.streams import Closable
from strata.ostree.gvariant import BYTES, Kind, Member, pack_string, pack_tuple, unpack_string
from strata.ostree.gvariant import unpack_tuple as _unpack_tuple
from strata.ostree.objects import (
    MAX_METADATA_BYTES,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    FileHeader,
    Xattrs,
    pack_xattrs,
    unpack_xattrs,
)

BARE, BARE_USER, ARCHIVE, SPLIT = "bare", "bare-user", "archive", "bare-split-xattrs"
MAX_XATTRS_BYTES = 1 << 20
_OSTREEMETA = "user.ostreemeta"
_CHUNK = 1 << 18
# Why a file system refuses an attribute; EINVAL: a capability that is none.
_REFUSED = (errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EOPNOTSUPP, errno.EINVAL)


class Storage(Protocol):
    """What a mode knows: reading an object's file, and making one.

    Paths are of object files. Raises FileNotFoundError when there is none, ObjectError when it is
    malformed.
    """

    mode: str
    suffix: str

    def header(self, path: str) -> FileHeader:
        """An object's header."""

    def size(self, path: str) -> int:
        """The size of its body in bytes; 0 for a link."""

    def open(self, path: str) -> Closable:
        """The bytes of a regular object's body."""

    def write(self, path: str, header: FileHeader, body: Iterable[bytes]) -> None:
        """Make an object's file at a path where there is none; body: empty for a link."""


def read_xattrs(path: str) -> Xattrs:
    """A path's extended attributes sorted by name, without overlayfs's own; links not followed.

    Those with an empty value are left out, as libostree does: its fsck would not see them. A file
    system without any says that they are not supported: a squashfs where no file has one.
    """
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        names = []
    if not names:
        return ()
    pairs = (
        (os.fsencode(name), os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(names)
        if not name.startswith("trusted.overlay.")
    )
    return tuple((name, value) for name, value in pairs if value)


def file_header(path: str) -> FileHeader:
    """A file's or link's header as it is on disk."""
    status = os.lstat(path)
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return FileHeader(status.st_uid, status.st_gid, status.st_mode, target, read_xattrs(path))


class Bare:
    """Objects are the files themselves."""

    mode = BARE
    suffix = "file"

    def header(self, path: str) -> FileHeader:
        """See Storage."""
        return file_header(path)

    def size(self, path: str) -> int:
        """See Storage."""
        status = os.lstat(path)
        return 0 if stat.S_ISLNK(status.st_mode) else status.st_size

    def open(self, path: str) -> Closable:
        """See Storage."""
        return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)

    def write(self, path: str, header: FileHeader, body: Iterable[bytes]) -> None:
        """See Storage."""
        if header.is_symlink:
            os.symlink(header.target, path)
            os.lchown(path, header.uid, header.gid)
            _set_xattrs(path, header.xattrs)
            os.utime(path, (0, 0), follow_symlinks=False)
            return
        fd = _create(path)
        try:
            _write_all(fd, body)
            os.fchown(fd, header.uid, header.gid)
            os.fchmod(fd, header.mode & 0o7777)
            _set_xattrs(fd, header.xattrs)
            os.utime(fd, (0, 0))
        finally:
            os.close(fd)


class BareUser:
    """Objects are regular files of the writer's own, with what they stand for in an attribute."""

    mode = BARE_USER
    suffix = "file"

    def header(self, path: str) -> FileHeader:
        """See Storage."""
        try:
            data = os.getxattr(path, _OSTREEMETA, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            raise ObjectError(f"the content object {path} has no {_OSTREEMETA}") from None
        head, xattrs = _unpack_tuple(data, (Kind(12, 4), BYTES))
        uid, gid, mode = struct.unpack(">III", head)
        target = ""
        if mode & S_IFMT == S_IFLNK:
            target = self._target(path)
        elif mode & S_IFMT != S_IFREG:
            raise ObjectError(f"the content object {path} is neither a file nor a link")
        return FileHeader(uid, gid, mode, target, unpack_xattrs(xattrs))

    def _target(self, path: str) -> str:
        with open(path, "rb") as stream:
            return unpack_string(stream.read(MAX_METADATA_BYTES))

    def size(self, path: str) -> int:
        """See Storage."""
        if self.header(path).is_symlink:
            return 0
        return os.lstat(path).st_size

    def open(self, path: str) -> Closable:
        """See Storage."""
        return open(path, "rb", buffering=0)

    def write(self, path: str, header: FileHeader, body: Iterable[bytes]) -> None:
        """See Storage."""
        head = struct.pack(">III", header.uid, header.gid, header.mode)
        meta = pack_tuple([Member(head, 4, True), Member(pack_xattrs(header.xattrs))])
        fd = _create(path)
        try:
            _write_all(fd, (pack_string(header.target),) if header.is_symlink else body)
            _set_xattrs(fd, ((_OSTREEMETA.encode(), meta),))
            # The writer can always read it back, and set-uid bits mean nothing here.
            os.fchmod(fd, 0o644 if header.is_symlink else (header.mode & 0o775) | 0o400)
            os.utime(fd, (0, 0))
        finally:
            os.close(fd)


class Archive:
    """Objects are compressed and carry their headers: for any file system, and to be served."""

    mode = ARCHIVE
    suffix = "filez"
    level = 6

    def _read(self, stream: Closable, path: str) -> tuple[int, FileHeader]:
        """The size of the body and the header; the stream is then at the body."""
        prefix = stream.read(8)
        length = int.from_bytes(prefix[:4], "big")
        if len(prefix) != 8 or length > MAX_METADATA_BYTES:
            raise ObjectError(f"the content object {path} has no header")
        data = stream.read(length)
        size, *kept = _unpack_tuple(data, (Kind(8, 8), Kind(16, 4), BYTES, BYTES))
        head, target, xattrs = kept
        members = [Member(head, 4, True), Member(target), Member(xattrs)]
        return int.from_bytes(size, "big"), FileHeader.decode(pack_tuple(members))

    def header(self, path: str) -> FileHeader:
        """See Storage."""
        with open(path, "rb") as stream:
            return self._read(stream, path)[1]

    def size(self, path: str) -> int:
        """See Storage."""
        with open(path, "rb") as stream:
            size, header = self._read(stream, path)
        return 0 if header.is_symlink else size

    def open(self, path: str) -> Closable:
        """See Storage."""
        stream = open(path, "rb")  # noqa: SIM115 -- the reader closes it
        size, _ = self._read(stream, path)
        return _Inflated(stream, size, path)

    def write(self, path: str, header: FileHeader, body: Iterable[bytes]) -> None:
        """See Storage."""
        fd = _create(path)
        try:
            os.lseek(fd, len(self._prefix(header, 0)), os.SEEK_SET)
            size = 0
            if not header.is_symlink:
                deflate = zlib.compressobj(self.level, zlib.DEFLATED, -zlib.MAX_WBITS)
                for chunk in body:
                    size += len(chunk)
                    _write_all(fd, (deflate.compress(chunk),))
                _write_all(fd, (deflate.flush(),))
            # The size is known last; the header's length does not depend on it.
            os.pwrite(fd, self._prefix(header, size), 0)
            os.fchmod(fd, 0o644)
        finally:
            os.close(fd)

    @staticmethod
    def _prefix(header: FileHeader, size: int) -> bytes:
        head = struct.pack(">IIII", header.uid, header.gid, header.mode, 0)
        data = pack_tuple(
            [
                Member(size.to_bytes(8, "big"), 8, True),
                Member(head, 4, True),
                Member(pack_string(header.target)),
                Member(pack_xattrs(header.xattrs)),
            ]
        )
        return struct.pack(">II", len(data), 0) + data


class _Inflated:
    """The body of an archive object; never more bytes than its header announces."""

    def __init__(self, stream: Closable, size: int, path: str) -> None:
        self._stream, self._left, self._path = stream, size, path
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._pending = b""

    def read(self, size: int = -1, /) -> bytes:
        limit = min(self._left, _CHUNK if size < 0 else size)
        while limit:
            self._pending = self._pending or self._stream.read(_CHUNK)
            if not self._pending:
                raise ObjectError(f"the content object {self._path} is cut off")
            try:
                data = self._inflate.decompress(self._pending, limit)
            except zlib.error as error:
                raise ObjectError(f"the content object {self._path} is damaged") from error
            self._pending = self._inflate.unconsumed_tail
            self._left -= len(data)
            if data:
                return data
        return b""

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> _Inflated:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class SplitXattrs(Bare):
    """As images carry it: attributes beside the object. Read only."""

    mode = SPLIT

    def header(self, path: str) -> FileHeader:
        """See Storage. Attributes that the file itself has (a container runtime's) do not count."""
        status = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
        with open(f"{path}-xattrs-link", "rb") as stream:
            data = stream.read(MAX_XATTRS_BYTES + 1)
        if len(data) > MAX_XATTRS_BYTES:
            raise ObjectError(f"the extended attributes of {path} are too large")
        return FileHeader(status.st_uid, status.st_gid, status.st_mode, target, unpack_xattrs(data))

    def write(self, path: str, header: FileHeader, body: Iterable[bytes]) -> None:
        """Raises ObjectError: only images are written so, as tars."""
        raise ObjectError(f"a repository of mode {SPLIT} is not written to")


STORAGES: dict[str, Storage] = {
    BARE: Bare(),
    BARE_USER: BareUser(),
    ARCHIVE: Archive(),
    "archive-z2": Archive(),
    SPLIT: SplitXattrs(),
}


def _set_xattrs(target: int | str, xattrs: Xattrs) -> None:
    """Set attributes of an open file, or of a path without following it. Raises ObjectError."""
    for name, value in xattrs:
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            # ENOSPC: not the disk is full then, but the room for one file's attributes.
            if error.errno in _REFUSED:
                text = name.decode("utf-8", "replace")
                raise ObjectError(
                    f"the file system does not take the extended attribute {text} "
                    f"({len(value)} bytes): {error.strerror}",
                    hint="use a repository on a file system that does, e.g. xfs, or mode archive",
                ) from error
            raise


def _create(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write_all(fd: int, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        written = os.write(fd, chunk)
        if written < len(chunk):
            view = memoryview(chunk)[written:]
            while view:
                view = view[os.write(fd, view) :]
