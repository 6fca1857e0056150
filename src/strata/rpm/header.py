"""RPM headers as the package database stores them: an index of tags over a store of values.

Layout (all numbers big-endian): count of index entries, length of the store, then 16 bytes an
entry (tag, type, offset, count), then the store. Source: rpm's docs/manual/format_header.md.
Untrusted: counts and offsets are checked against the bytes that are there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_ENTRIES = 65_536
MAX_STORE_BYTES = 256 << 20

NAME, VERSION, RELEASE, EPOCH = 1000, 1001, 1002, 1003
BUILDTIME, SIZE, ARCH, SOURCERPM = 1006, 1009, 1022, 1044
CHANGELOGTIME = 1080
DIRINDEXES, BASENAMES, DIRNAMES = 1116, 1117, 1118
LONGSIZE = 5009

_INT16, _INT32, _INT64, _STRING, _STRING_ARRAY, _I18N = 3, 4, 5, 6, 8, 9
_WIDTH = {_INT16: (2, "H"), _INT32: (4, "I"), _INT64: (8, "Q")}


class HeaderError(ValueError):
    """The bytes are not an RPM header."""


@dataclass(frozen=True)
class Header:
    """A parsed header: from a tag to its type, offset and count in the store."""

    entries: dict[int, tuple[int, int, int]]
    store: bytes

    @staticmethod
    def parse(data: bytes) -> Header:
        """Read a header. Raises HeaderError."""
        if len(data) < 8:
            raise HeaderError("the header is cut off")
        count, length = struct.unpack_from(">II", data)
        if count > MAX_ENTRIES or length > MAX_STORE_BYTES or 8 + 16 * count + length > len(data):
            raise HeaderError(f"the header says {count} entries and {length} bytes, and has less")
        entries = {}
        for position in range(count):
            tag, kind, offset, number = struct.unpack_from(">IIII", data, 8 + 16 * position)
            if offset > length or number > length:
                raise HeaderError(f"tag {tag} points outside the header")
            entries[tag] = (kind, offset, number)
        start = 8 + 16 * count
        return Header(entries, data[start : start + length])

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The integers of a tag; empty when it is absent. Raises HeaderError."""
        if tag not in self.entries:
            return ()
        kind, offset, count = self.entries[tag]
        if kind not in _WIDTH:
            raise HeaderError(f"tag {tag} does not hold numbers")
        width, code = _WIDTH[kind]
        if offset + width * count > len(self.store):
            raise HeaderError(f"tag {tag} is cut off")
        return struct.unpack_from(f">{count}{code}", self.store, offset)

    def strings(self, tag: int) -> tuple[str, ...]:
        """The strings of a tag; empty when it is absent. Raises HeaderError."""
        if tag not in self.entries:
            return ()
        kind, offset, count = self.entries[tag]
        if kind not in (_STRING, _STRING_ARRAY, _I18N):
            raise HeaderError(f"tag {tag} does not hold text")
        count = 1 if kind == _STRING else count
        parts = self.store[offset:].split(b"\0", count)
        if len(parts) <= count:
            raise HeaderError(f"tag {tag} is cut off")
        return tuple(part.decode("utf-8", "surrogateescape") for part in parts[:count])

    def text(self, tag: int) -> str:
        """The one string of a tag. Raises HeaderError when it is absent."""
        found = self.strings(tag)
        if not found:
            raise HeaderError(f"tag {tag} is missing")
        return found[0]
