"""The few rules of GVariant that OSTree's objects need: tuples, arrays, and variants in a{sv}.

Terms: a container with members of variable size ends with *framing offsets*, the ends of its
members. Their width is the smallest of 1, 2, 4, 8 bytes that can count the whole container. An
array has one offset per element, in order; a tuple one per variable-size member but the last, in
reverse order. Numbers inside are little-endian here (OSTree byte-swaps its own).
Source: "GVariant Specification" (Lortie), section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from strata.core.errors import ObjectError

MAX_ELEMENTS = 1 << 20


class Member(NamedTuple):
    """A tuple's member as serialized. align: 1, 4 or 8; fixed: whether its type has one size."""

    data: bytes
    align: int = 1
    fixed: bool = False


def _width(size: int, count: int) -> int:
    """Bytes per framing offset for a body of `size` bytes and `count` offsets."""
    for width in (1, 2, 4):
        if size + count * width < 1 << (8 * width):
            return width
    return 8


def _width_of_total(total: int) -> int:
    for width in (1, 2, 4):
        if total < 1 << (8 * width):
            return width
    return 8


def pack_array(elements: Sequence[bytes], align: int = 1) -> bytes:
    """An array of variable-size elements."""
    if not elements:
        return b""
    body, ends = bytearray(), []
    for element in elements:
        body += bytes(-len(body) % align)
        body += element
        ends.append(len(body))
    width = _width(len(body), len(ends))
    for end in ends:
        body += end.to_bytes(width, "little")
    return bytes(body)


def pack_tuple(members: Sequence[Member]) -> bytes:
    """A tuple that has at least one member of variable size."""
    body, ends = bytearray(), []
    for position, member in enumerate(members):
        body += bytes(-len(body) % member.align)
        body += member.data
        if not member.fixed and position != len(members) - 1:
            ends.append(len(body))
    width = _width(len(body), len(ends))
    for end in reversed(ends):
        body += end.to_bytes(width, "little")
    return bytes(body)


def unpack_array(data: bytes, align: int = 1) -> list[bytes]:
    """The elements of an array of variable-size elements. Raises ObjectError."""
    if not data:
        return []
    width = _width_of_total(len(data))
    if len(data) < width:
        raise ObjectError("an array is cut off")
    last_end = int.from_bytes(data[-width:], "little")
    table = len(data) - last_end
    if last_end > len(data) or table % width or table // width > MAX_ELEMENTS:
        raise ObjectError("an array's offsets are wrong")
    elements, start = [], 0
    for position in range(last_end, len(data), width):
        end = int.from_bytes(data[position : position + width], "little")
        start += -start % align
        if not start <= end <= last_end:
            raise ObjectError("an array's offsets are out of order")
        elements.append(data[start:end])
        start = end
    return elements


class Kind(NamedTuple):
    """A tuple member's type. size: bytes when it has one size, else 0; align: 1, 4 or 8."""

    size: int = 0
    align: int = 1


BYTES = Kind()


def unpack_tuple(data: bytes, kinds: Sequence[Kind]) -> list[bytes]:
    """The members of a tuple. Raises ObjectError."""
    width = _width_of_total(len(data))
    variable = sum(1 for kind in kinds[:-1] if not kind.size)
    end_of_body = len(data) - variable * width
    if end_of_body < 0:
        raise ObjectError("a tuple is cut off")
    members, start, used = [], 0, 0
    for position, kind in enumerate(kinds):
        start += -start % kind.align
        if kind.size:
            end = start + kind.size
        elif position == len(kinds) - 1:
            end = end_of_body
        else:
            used += 1
            at = len(data) - used * width
            end = int.from_bytes(data[at : at + width], "little")
        if not start <= end <= end_of_body:
            raise ObjectError("a tuple's offsets are wrong")
        members.append(data[start:end])
        start = end
    return members


class Variant(NamedTuple):
    """A value in a{sv}: its GVariant type string and its serialized bytes."""

    type: str
    data: bytes

    @staticmethod
    def text(value: str) -> Variant:
        """A string."""
        return Variant("s", pack_string(value))

    @staticmethod
    def flag(value: bool) -> Variant:
        """A boolean."""
        return Variant("b", b"\1" if value else b"\0")

    @staticmethod
    def texts(values: Sequence[str]) -> Variant:
        """An array of strings."""
        return Variant("as", pack_array([pack_string(value) for value in values]))

    @staticmethod
    def number(value: int) -> Variant:
        """A signed number of 64 bits. Raises ObjectError when it does not fit."""
        return Variant("x", _packed(">q", value))

    @staticmethod
    def unsigned(value: int) -> Variant:
        """A number of 64 bits without sign. Raises ObjectError when it does not fit."""
        return Variant("t", _packed(">Q", value))

    @staticmethod
    def real(value: float) -> Variant:
        """A floating-point number."""
        return Variant("d", _packed(">d", value))

    @staticmethod
    def variants(values: Sequence[Variant]) -> Variant:
        """An array of values of any type."""
        return Variant("av", pack_array([pack_variant(value) for value in values], 8))

    @staticmethod
    def mapping(values: dict[str, Variant]) -> Variant:
        """A mapping."""
        return Variant("a{sv}", pack_variant_map(values))

    @staticmethod
    def mappings(values: Sequence[dict[str, Variant]]) -> Variant:
        """An array of mappings."""
        return Variant("aa{sv}", pack_array([pack_variant_map(value) for value in values], 8))

    def as_text(self) -> str:
        """The string it holds. Raises ObjectError when it holds something else."""
        if self.type != "s":
            raise ObjectError(f"a value of type {self.type} is not text")
        return unpack_string(self.data)

    def as_texts(self) -> list[str]:
        """The array of strings it holds. Raises ObjectError when it holds something else."""
        if self.type != "as":
            raise ObjectError(f"a value of type {self.type} is not an array of texts")
        return [unpack_string(element) for element in unpack_array(self.data)]

    def as_flag(self) -> bool:
        """The boolean it holds. Raises ObjectError when it holds something else."""
        if self.type != "b" or len(self.data) != 1:
            raise ObjectError(f"a value of type {self.type} is not a boolean")
        return self.data != b"\0"


def pack_string(text: str) -> bytes:
    """A string: its UTF-8 bytes and NUL. Raises ObjectError: GVariant strings hold nothing else."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise ObjectError(f"{text!r} is not UTF-8, as OSTree's names and links must be") from None
    if b"\0" in data:
        raise ObjectError("a string holds a NUL")
    return data + b"\0"


def unpack_string(data: bytes) -> str:
    """The reverse of `pack_string`. Raises ObjectError."""
    if not data.endswith(b"\0") or b"\0" in data[:-1]:
        raise ObjectError("a string is not closed by one NUL")
    try:
        return data[:-1].decode("utf-8")
    except UnicodeDecodeError:
        raise ObjectError(f"the string {data[:-1]!r} is not UTF-8") from None


def _packed(form: str, value: float) -> bytes:
    """Big-endian, as OSTree keeps the numbers of a commit's metadata."""
    try:
        return struct.pack(form, value)
    except (struct.error, OverflowError):
        raise ObjectError(f"{value} does not fit into 64 bits") from None


def pack_variant(value: Variant) -> bytes:
    """A variant: the value, NUL, its type."""
    return value.data + b"\0" + value.type.encode()


def pack_variant_map(values: dict[str, Variant]) -> bytes:
    """An a{sv}, its keys in the order given."""
    entries = []
    for key, value in values.items():
        entries.append(pack_tuple([Member(pack_string(key)), Member(pack_variant(value), 8)]))
    return pack_array(entries, 8)


def unpack_variant_map(data: bytes) -> dict[str, Variant]:
    """An a{sv} in its order. Raises ObjectError."""
    values = {}
    for entry in unpack_array(data, 8):
        key, variant = unpack_tuple(entry, (BYTES, Kind(0, 8)))
        payload, separator, kind = variant.rpartition(b"\0")
        if not separator or not kind.isascii():
            raise ObjectError("a variant has no type")
        values[unpack_string(key)] = Variant(kind.decode("ascii"), payload)
    return values
