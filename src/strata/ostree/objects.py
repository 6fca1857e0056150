"""OSTree's objects and their bytes: what a checksum is taken over.

- *content*: sha256 of BE32 length of the header, BE32 0, the header `(uuuusa(ayay))`, the body.
- *dirmeta* `(uuua(ayay))`: owner, group, mode, xattrs of a directory.
- *dirtree* `(a(say)a(sayay))`: files (name, checksum) and folders (name, contents, meta).
- *commit* `(a{sv}aya(say)sstayay)`: metadata, parent, subject, body, time, root.
Numbers are big-endian. Source: libostree's ostree-core.h.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from strata.core.errors import ObjectError
from strata.ostree.gvariant import (
    BYTES,
    Kind,
    Member,
    Variant,
    pack_array,
    pack_string,
    pack_tuple,
    pack_variant_map,
    unpack_array,
    unpack_string,
    unpack_tuple,
    unpack_variant_map,
)

Checksum = NewType("Checksum", str)
Xattrs = tuple[tuple[bytes, bytes], ...]

MAX_METADATA_BYTES = 10 << 20
S_IFMT, S_IFDIR, S_IFREG, S_IFLNK = 0o170000, 0o040000, 0o100000, 0o120000
_HEX = frozenset("0123456789abcdef")


def parse_checksum(text: str) -> Checksum:
    """64 lower-case hex digits as a checksum. Raises ObjectError."""
    if len(text) != 64 or not _HEX.issuperset(text):
        raise ObjectError(f"{text!r} is not a checksum")
    return Checksum(text)


def checksum_of(data: bytes) -> Checksum:
    """The checksum of a metadata object's bytes."""
    return Checksum(hashlib.sha256(data).hexdigest())


def check_name(name: str) -> str:
    """A name within a directory: not empty, no slash, not `.` or `..`. Raises ObjectError."""
    if not name or "/" in name or name in (".", ".."):
        raise ObjectError(f"{name!r} cannot be a name in a directory")
    return name


def _check_owner(uid: int, gid: int) -> None:
    # The largest 32-bit number means "leave as it is" to chown: no file can have it.
    if not (0 <= uid < 0xFFFFFFFF and 0 <= gid < 0xFFFFFFFF):
        raise ObjectError(f"{uid}:{gid} cannot be the owner of a file")


def pack_xattrs(xattrs: Xattrs) -> bytes:
    """`a(ayay)`: each name with its closing NUL."""
    return pack_array([pack_tuple([Member(n + b"\0"), Member(v)]) for n, v in xattrs])


def unpack_xattrs(data: bytes) -> Xattrs:
    """The reverse of `pack_xattrs`. Raises ObjectError."""
    xattrs = []
    for element in unpack_array(data):
        name, value = unpack_tuple(element, (BYTES, BYTES))
        if not name.endswith(b"\0") or len(name) < 2 or b"\0" in name[:-1]:
            raise ObjectError("an extended attribute has no proper name")
        xattrs.append((name[:-1], value))
    return tuple(xattrs)


@dataclass(frozen=True)
class FileHeader:
    """What a content object says beside its bytes. mode includes the type; target: of a link."""

    uid: int
    gid: int
    mode: int
    target: str = ""
    xattrs: Xattrs = ()

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link (else a regular file)."""
        return self.mode & S_IFMT == S_IFLNK

    def encode(self) -> bytes:
        """The header's bytes."""
        _check_owner(self.uid, self.gid)
        head = struct.pack(">IIII", self.uid, self.gid, self.mode, 0)
        target, xattrs = pack_string(self.target), pack_xattrs(self.xattrs)
        return pack_tuple([Member(head, 4, True), Member(target), Member(xattrs)])

    @staticmethod
    def decode(data: bytes) -> FileHeader:
        """Read a header. Raises ObjectError."""
        head, target, xattrs = unpack_tuple(data, (Kind(16, 4), BYTES, BYTES))
        uid, gid, mode, rdev = struct.unpack(">IIII", head)
        _check_owner(uid, gid)
        header = FileHeader(uid, gid, mode, unpack_string(target), unpack_xattrs(xattrs))
        kind = mode & S_IFMT
        if rdev or kind not in (S_IFREG, S_IFLNK) or bool(header.target) != header.is_symlink:
            raise ObjectError("a file header is neither a file's nor a link's")
        return header

    def digest(self) -> hashlib._Hash:
        """A sha256 that has taken the header and waits for the body."""
        data = self.encode()
        return hashlib.sha256(struct.pack(">II", len(data), 0) + data)


@dataclass(frozen=True)
class DirMeta:
    """A directory's owner, group, mode (with the type) and extended attributes."""

    uid: int = 0
    gid: int = 0
    mode: int = S_IFDIR | 0o755
    xattrs: Xattrs = ()

    def encode(self) -> bytes:
        """The object's bytes."""
        _check_owner(self.uid, self.gid)
        head = struct.pack(">III", self.uid, self.gid, self.mode)
        return pack_tuple([Member(head, 4, True), Member(pack_xattrs(self.xattrs))])

    @staticmethod
    def decode(data: bytes) -> DirMeta:
        """Read the object. Raises ObjectError."""
        head, xattrs = unpack_tuple(data, (Kind(12, 4), BYTES))
        uid, gid, mode = struct.unpack(">III", head)
        _check_owner(uid, gid)
        if mode & S_IFMT != S_IFDIR:
            raise ObjectError("a dirmeta's mode is not a directory's")
        return DirMeta(uid, gid, mode, unpack_xattrs(xattrs))


@dataclass(frozen=True)
class DirTree:
    """A directory's entries, each list sorted by name: files, and (name, contents, meta)."""

    files: tuple[tuple[str, Checksum], ...] = ()
    dirs: tuple[tuple[str, Checksum, Checksum], ...] = ()

    def encode(self) -> bytes:
        """The object's bytes."""
        files = [
            pack_tuple([Member(pack_string(name)), Member(bytes.fromhex(checksum))])
            for name, checksum in self.files
        ]
        dirs = [
            pack_tuple(
                [
                    Member(pack_string(name)),
                    Member(bytes.fromhex(contents)),
                    Member(bytes.fromhex(meta)),
                ]
            )
            for name, contents, meta in self.dirs
        ]
        return pack_tuple([Member(pack_array(files)), Member(pack_array(dirs))])

    @staticmethod
    def decode(data: bytes) -> DirTree:
        """Read the object. Raises ObjectError."""
        files, dirs = unpack_tuple(data, (BYTES, BYTES))
        file_rows, dir_rows = [], []
        for row in unpack_array(files):
            name, checksum = unpack_tuple(row, (BYTES, BYTES))
            file_rows.append((check_name(unpack_string(name)), _checksum(checksum)))
        for row in unpack_array(dirs):
            name, contents, meta = unpack_tuple(row, (BYTES, BYTES, BYTES))
            dir_rows.append((check_name(unpack_string(name)), _checksum(contents), _checksum(meta)))
        names = [row[0] for row in file_rows] + [row[0] for row in dir_rows]
        if len(set(names)) != len(names):
            raise ObjectError("a dirtree has a name twice")
        return DirTree(tuple(file_rows), tuple(dir_rows))


def _checksum(data: bytes) -> Checksum:
    if len(data) != 32:
        raise ObjectError("a checksum does not have 32 bytes")
    return Checksum(data.hex())


@dataclass(frozen=True)
class Commit:
    """A commit: a root tree with a time and metadata. parent: empty for none."""

    root_contents: Checksum
    root_meta: Checksum
    timestamp: int
    subject: str = ""
    body: str = ""
    parent: str = ""
    metadata: Mapping[str, Variant] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The object's bytes. Raises ObjectError."""
        if not 0 <= self.timestamp < 1 << 64:
            raise ObjectError(f"{self.timestamp} cannot be the time of a commit")
        return pack_tuple(
            [
                Member(pack_variant_map(dict(self.metadata)), 8),
                Member(bytes.fromhex(self.parent)),
                Member(b""),
                Member(pack_string(self.subject)),
                Member(pack_string(self.body)),
                Member(struct.pack(">Q", self.timestamp), 8, True),
                Member(bytes.fromhex(self.root_contents)),
                Member(bytes.fromhex(self.root_meta)),
            ]
        )

    @staticmethod
    def decode(data: bytes) -> Commit:
        """Read the object. Raises ObjectError."""
        kinds = (Kind(0, 8), BYTES, BYTES, BYTES, BYTES, Kind(8, 8), BYTES, BYTES)
        metadata, parent, _, subject, body, time, contents, meta = unpack_tuple(data, kinds)
        return Commit(
            _checksum(contents),
            _checksum(meta),
            struct.unpack(">Q", time)[0],
            unpack_string(subject),
            unpack_string(body),
            _checksum(parent) if parent else "",
            unpack_variant_map(metadata),
        )
