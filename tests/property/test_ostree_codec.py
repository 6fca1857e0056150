"""Laws of the codec: encode and decode are inverse, order is by bytes, malformed is ObjectError."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strata.core.errors import ObjectError
from strata.ostree.gvariant import Variant, pack_variant_map, unpack_variant_map
from strata.ostree.objects import (
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    Xattrs,
    pack_xattrs,
    unpack_xattrs,
)

pytestmark = pytest.mark.property

numbers = st.integers(0, (1 << 32) - 2)
checksums = st.binary(min_size=32, max_size=32).map(lambda data: Checksum(data.hex()))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
names = texts.filter(lambda text: text not in ("", ".", "..") and "/" not in text)
xattrs: st.SearchStrategy[Xattrs] = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name),
        st.one_of(st.binary(max_size=20), st.binary(min_size=200, max_size=300)),
    ),
    max_size=5,
).map(tuple)
modes = st.integers(0, 0o7777)
variants = st.one_of(
    texts.map(Variant.text),
    st.booleans().map(Variant.flag),
    st.binary(max_size=40).map(lambda data: Variant("ay", data)),
)
maps = st.dictionaries(texts, variants, max_size=5)

headers = st.one_of(
    st.builds(
        lambda u, g, m, x: FileHeader(u, g, 0o100000 | m, "", x), numbers, numbers, modes, xattrs
    ),
    st.builds(
        lambda u, g, t, x: FileHeader(u, g, 0o120777, t, x),
        numbers,
        numbers,
        texts.filter(bool),
        xattrs,
    ),
)


@given(xattrs)
def test_xattrs_come_back(value: Xattrs) -> None:
    assert unpack_xattrs(pack_xattrs(value)) == value


@given(headers)
def test_headers_come_back(header: FileHeader) -> None:
    assert FileHeader.decode(header.encode()) == header


@given(numbers, numbers, modes, xattrs)
def test_dirmetas_come_back(uid: int, gid: int, mode: int, value: Xattrs) -> None:
    meta = DirMeta(uid, gid, 0o040000 | mode, value)
    assert DirMeta.decode(meta.encode()) == meta


@given(st.dictionaries(names, st.tuples(checksums, checksums, st.booleans()), max_size=60))
def test_dirtrees_come_back(entries: dict[str, tuple[Checksum, Checksum, bool]]) -> None:
    ordered = sorted(entries.items(), key=lambda item: item[0].encode())
    tree = DirTree(
        tuple((name, first) for name, (first, _, is_dir) in ordered if not is_dir),
        tuple((name, first, second) for name, (first, second, is_dir) in ordered if is_dir),
    )
    assert DirTree.decode(tree.encode()) == tree


@given(maps)
def test_variant_maps_come_back(values: dict[str, Variant]) -> None:
    assert list(unpack_variant_map(pack_variant_map(values)).items()) == list(values.items())


@given(
    checksums,
    checksums,
    st.integers(0, (1 << 64) - 1),
    texts,
    texts,
    st.one_of(st.just(""), checksums),
    maps,
)
def test_commits_come_back(
    contents: Checksum,
    meta: Checksum,
    timestamp: int,
    subject: str,
    body: str,
    parent: str,
    metadata: dict[str, Variant],
) -> None:
    commit = Commit(contents, meta, timestamp, subject, body, parent, metadata)
    assert Commit.decode(commit.encode()) == commit


_VALID = [
    DirTree(
        (("a", Checksum("a" * 64)),), (("d", Checksum("b" * 64), Checksum("c" * 64)),)
    ).encode(),
    DirMeta(1, 2, 0o40755, ((b"user.x", b"1"),)).encode(),
    FileHeader(1, 2, 0o120777, "target", ((b"user.x", b"1"),)).encode(),
    Commit(
        Checksum("a" * 64), Checksum("b" * 64), 1, "s", "b", "c" * 64, {"v": Variant.text("1")}
    ).encode(),
    pack_variant_map({"a": Variant.text("x"), "b": Variant.flag(False)}),
]
_DECODERS: list[Callable[[bytes], object]] = [
    DirTree.decode,
    DirMeta.decode,
    FileHeader.decode,
    Commit.decode,
    unpack_variant_map,
    unpack_xattrs,
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Valid bytes with a few changed, cut off or put in."""
    data = bytearray(draw(st.sampled_from(_VALID)))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(data) - 1)) if data else 0
        change = draw(st.sampled_from(["set", "cut", "insert"]))
        if change == "set" and data:
            data[position] = draw(st.integers(0, 255))
        elif change == "cut":
            del data[position:]
        else:
            data[position:position] = draw(st.binary(min_size=1, max_size=4))
    return bytes(data)


@given(st.one_of(st.binary(max_size=400), damaged()))
@example(b"")
@example(b"\0" * 300)
@example(b"\xff" * 300)
def test_malformed_bytes_are_an_object_error_and_nothing_else(data: bytes) -> None:
    for decode in _DECODERS:
        try:
            decode(data)
        except ObjectError as error:
            assert error.message  # noqa: PT017  (the only exception allowed)


@given(damaged())
def test_what_is_decoded_can_be_encoded(data: bytes) -> None:
    for kind in (DirTree, DirMeta, FileHeader, Commit):
        try:
            value = kind.decode(data)
        except ObjectError:
            continue
        assert kind.decode(value.encode()) == value
