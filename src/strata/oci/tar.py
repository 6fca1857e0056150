"""Layer tars: written with exactly one choice for every header bit, read as a bounded stream.

Written as ostree-rs-ext's tar does (GNU headers, time 0, no names, numbers zero-padded to the
field, long names in `L` and `K` entries, xattrs in pax headers, no record padding), so that the
same commit gives the same diff-ids everywhere.

Read: ustar, GNU and pax headers, by hand on a byte buffer: the standard library's tarfile takes
some forty times as long on layers of many small entries. Untrusted: sizes, counts and lengths are
bounded, numbers are not negative, and nothing here touches a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from strata.core.errors import ImageError
from strata.core.streams import Readable, Writable

BLOCK = 512
FILE, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
Xattrs = tuple[tuple[bytes, bytes], ...]

MAX_PATH_BYTES = 64 << 10
MAX_PAX_BYTES = 2 << 20
MAX_BODY_BYTES = 1 << 40
MAX_HEADERS = 1 << 22
MAX_DIGITS = 20  # of a 64-bit number
_CHUNK = 1 << 18
_XATTR = b"SCHILY.xattr."
_GNU_MAGIC = b"ustar  \0"
_USTAR_MAGIC = b"ustar\0" + b"00"


@dataclass(frozen=True)
class TarEntry:
    """One entry. path and target are bytes as written; size_bytes: of the body that follows."""

    path: bytes
    type: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    target: bytes = b""
    xattrs: Xattrs = ()
    mtime: int = 0


def _number(value: int, width: int) -> bytes:
    """An octal number filling the field less one, or base-256 when it does not fit."""
    if value < 1 << (3 * (width - 1)):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _header(entry: TarEntry, kind: bytes, path: bytes, target: bytes, magic: bytes) -> bytes:
    """A header block. path, target: the two fields, 100 bytes at most."""
    fields = [
        path.ljust(100, b"\0"),
        _number(entry.mode & 0o7777, 8),
        _number(entry.uid, 8),
        _number(entry.gid, 8),
        _number(entry.size_bytes, 12),
        _number(entry.mtime, 12),
        b" " * 8,
        kind,
        target.ljust(100, b"\0"),
        magic,
        bytes(32 + 32 + 8 + 8 + 155 + 12),
    ]
    block = b"".join(fields)
    checksum = sum(block)
    return block[:148] + _number(checksum, 8) + block[156:]


def _name_field(path: bytes, under: bytes) -> bytes:
    """The name of an entry; of a long one, whole characters of its beginning."""
    if len(path) <= 100:
        return _over(under, path)
    cut = path[:100]
    whole = cut.decode("utf-8", "ignore").encode()
    return _over(under, whole if cut.startswith(whole) and len(cut) - len(whole) < 4 else cut)


def _target_field(target: bytes, under: bytes) -> bytes:
    """The target of a link; of a long one, as many of its components as fit."""
    if len(target) <= 100:
        return _over(under, target)
    fits = b""
    for part in target.split(b"/"):
        longer = part if not fits else fits + b"/" + part
        if len(longer) > 100:
            break
        fits = longer
    return _over(under, fits)


def _over(under: bytes, text: bytes) -> bytes:
    """A field that held something, with another text and its NUL written over it."""
    return (text + b"\0" + under[len(text) + 1 :])[:100]


def padding(size: int) -> bytes:
    """Zeros up to the next block."""
    return bytes(-size % BLOCK)


class TarWriter:
    """Writes entries to a sink in the order given."""

    def __init__(self, sink: Writable) -> None:
        self._write = sink.write

    def entry(
        self, entry: TarEntry, body: bytes = b"", *, copied_from: TarEntry | None = None
    ) -> None:
        """Write an entry's headers, and its body when it is given here.

        With a longer body, write `size_bytes` bytes by `body()` and close with `pad()`.
        copied_from: the entry whose header this one's is a copy of: what its names held behind the
        new ones' NUL stays there. No reader looks at it, but upstream's diff-ids depend on it.
        """
        if len(entry.path) > 100:
            self._long(b"L", entry.path)
        if len(entry.target) > 100:
            self._long(b"K", entry.target)
        xattrs = [item for item in entry.xattrs if item[0] != b"security.selinux"]
        if xattrs:
            self._pax(xattrs)
        kind = entry.type.encode("latin-1")
        path, target = self._fields(entry, copied_from)
        self._write(_header(entry, kind, path, target, _GNU_MAGIC))
        if body:
            self._write(body)
            self._write(padding(len(body)))

    def _fields(self, entry: TarEntry, copied_from: TarEntry | None) -> tuple[bytes, bytes]:
        """What is in the two name fields."""
        under_path, under_target = b"", b""
        if copied_from:
            under_path, under_target = self._fields(copied_from, None)
        target = _target_field(entry.target, under_target) if entry.target else under_target
        return _name_field(entry.path, under_path), target

    def body(self, data: bytes) -> None:
        """A piece of the last entry's body."""
        self._write(data)

    def pad(self, size: int) -> None:
        """Close a body of `size` bytes."""
        self._write(padding(size))

    def finish(self) -> None:
        """Two zero blocks; no record padding."""
        self._write(bytes(2 * BLOCK))

    def _long(self, kind: bytes, text: bytes) -> None:
        data = text + b"\0"
        holder = TarEntry(b"././@LongLink", FILE, 0o644, size_bytes=len(data))
        self._write(_header(holder, kind, holder.path, b"", _GNU_MAGIC))
        self._write(data)
        self._write(padding(len(data)))

    def _pax(self, xattrs: list[tuple[bytes, bytes]]) -> None:
        data = b"".join(_pax_record(_XATTR + name, value) for name, value in xattrs)
        # The writer this agrees with leaves all of the header but size and checksum empty.
        block = bytearray(BLOCK)
        block[124:136] = _number(len(data), 12)
        block[136:148] = _number(0, 12)
        block[148:156] = b" " * 8
        block[156:157] = b"x"
        block[257:265] = _USTAR_MAGIC
        block[148:156] = _number(sum(block), 8)
        self._write(bytes(block))
        self._write(data)
        self._write(padding(len(data)))


def _pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


class TarReader:
    """Reads a tar stream entry by entry; an entry's body is read before the next entry.

    Raises ImageError on anything malformed or cut off.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._buffer = b""
        self._position = 0
        self._left = 0
        self._padding = 0
        self._headers = 0
        self._fetched = 0

    @property
    def consumed_bytes(self) -> int:
        """How far into the stream this has come: after a header, where the entry's body begins."""
        return self._fetched - len(self._buffer) + self._position

    # --- bytes -----------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises ImageError at the end."""
        end = self._position + size
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        parts = [self._buffer[self._position :]]
        missing = size - len(parts[0])
        self._buffer, self._position = b"", 0
        while missing:
            chunk = self._source.read(_CHUNK)
            self._fetched += len(chunk)
            if not chunk:
                raise ImageError("a layer's tar is cut off")
            if len(chunk) > missing:
                parts.append(chunk[:missing])
                self._buffer, self._position = chunk, missing
                missing = 0
            else:
                parts.append(chunk)
                missing -= len(chunk)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size > 0:
            step = min(size, _CHUNK)
            self._take(step)
            size -= step

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes of the current entry's body; empty at its end."""
        if not self._left:
            return b""
        if self._position == len(self._buffer):
            self._buffer, self._position = self._source.read(_CHUNK), 0
            self._fetched += len(self._buffer)
            if not self._buffer:
                raise ImageError("a layer's tar is cut off")
        available = len(self._buffer) - self._position
        step = min(available, self._left, size if size >= 0 else self._left)
        data = self._buffer[self._position : self._position + step]
        self._position += step
        self._left -= step
        return data

    def read_all(self, limit: int) -> bytes:
        """The current entry's whole body. Raises ImageError when it is larger than `limit`."""
        if self._left > limit:
            raise ImageError(f"an entry of {self._left} bytes is larger than {limit}")
        data, self._left = self._take(self._left), 0
        return data

    # --- entries ---------------------------------------------------------------------------

    def __iter__(self) -> Iterator[TarEntry]:
        while True:
            entry = self._next()
            if entry is None:
                return
            yield entry

    def _next(self) -> TarEntry | None:
        self._skip(self._left + self._padding)
        self._left = self._padding = 0
        path = target = b""
        pax: dict[bytes, bytes] = {}
        before = self.consumed_bytes
        while True:
            if self.consumed_bytes - before > 2 * MAX_PAX_BYTES:
                raise ImageError("a tar entry has more headers than any needs")
            block = self._take(BLOCK)
            if block == bytes(BLOCK):
                self.drain()
                return None
            self._headers += 1
            if self._headers > MAX_HEADERS:
                raise ImageError(f"a layer's tar has more than {MAX_HEADERS} headers")
            _check(block)
            kind = block[156:157]
            size = _parse_number(block[124:136])
            if kind == b"L":
                path = self._text(size).rstrip(b"\0")
            elif kind == b"K":
                target = self._text(size).rstrip(b"\0")
            elif kind == b"x":
                pax.update(_parse_pax(self._text(size, MAX_PAX_BYTES)))
            elif kind == b"g":
                self._text(size, MAX_PAX_BYTES)
            else:
                return self._entry(block, size, path, target, pax)

    def _entry(
        self, block: bytes, size: int, path: bytes, target: bytes, pax: dict[bytes, bytes]
    ) -> TarEntry:
        kind = block[156:157].decode("latin-1")
        if kind in ("\0", "7"):
            kind = FILE
        if b"size" in pax:
            size = _decimal(pax[b"size"])
        path = pax.get(b"path") or path or _name(block)
        target = pax.get(b"linkpath") or target or block[157:257].split(b"\0", 1)[0]
        if kind == FILE and path.endswith(b"/"):
            kind = DIRECTORY
        if kind != FILE:
            size = 0 if kind in (HARDLINK, SYMLINK, DIRECTORY) else size
        if not path or len(path) > MAX_PATH_BYTES or size > MAX_BODY_BYTES:
            raise ImageError("a tar entry has no name, or is beyond all bounds")
        self._left, self._padding = size, -size % BLOCK
        xattrs = tuple(
            (key[len(_XATTR) :], value) for key, value in pax.items() if key.startswith(_XATTR)
        )
        return TarEntry(
            path,
            kind,
            _parse_number(block[100:108]) & 0o7777,
            _decimal(pax[b"uid"]) if b"uid" in pax else _parse_number(block[108:116]),
            _decimal(pax[b"gid"]) if b"gid" in pax else _parse_number(block[116:124]),
            size,
            target,
            xattrs,
            _parse_time(block[136:148]),
        )

    def _text(self, size: int, limit: int = MAX_PATH_BYTES) -> bytes:
        if size > limit:
            raise ImageError(f"a tar header of {size} bytes is larger than {limit}")
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    def drain(self) -> None:
        """Read the stream to its end, so that its digest covers all of it."""
        self._buffer, self._position = b"", 0
        while self._source.read(_CHUNK):
            pass


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _check(block: bytes) -> None:
    try:
        expected = int(block[148:156].strip(b"\0 ") or b"x", 8)
    except ValueError:
        expected = -1
    if expected != sum(block) - sum(block[148:156]) + 8 * 32:
        raise ImageError("a tar header's checksum is wrong")


def _parse_number(data: bytes) -> int:
    if data[0] & 0x80:
        if data[0] != 0x80:
            raise ImageError("a tar header has a negative number")
        return int.from_bytes(data[1:], "big")
    text = data.strip(b"\0 ")
    try:
        number = int(text, 8) if text else 0
    except ValueError:
        raise ImageError("a tar header has a number that is none") from None
    if number < 0:
        raise ImageError("a tar header has a negative number")
    return number


def _parse_time(data: bytes) -> int:
    """A modification time; one before 1970, which GNU tar writes as a negative number, is 0."""
    return 0 if data[0] == 0xFF else _parse_number(data)


def _decimal(data: bytes) -> int:
    if not data.isdigit():
        raise ImageError("a pax header has a number that is none")
    if len(data) > MAX_DIGITS:
        raise ImageError(f"a pax header has a number of {len(data)} digits")
    return int(data)


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 21)
        length = data[position:space] if space > 0 else b""
        if not length.isdigit():
            raise ImageError("a pax header is malformed")
        end = position + int(length)
        if not space < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ImageError("a pax header is malformed")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise ImageError("a pax header is malformed")
        records[key] = value
        position = end
    return records
