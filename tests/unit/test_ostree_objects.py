"""Objects against bytes and checksums that libostree is known to give."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from strata.core.errors import ObjectError
from strata.ostree.gvariant import (
    Variant,
    pack_string,
    pack_variant_map,
    unpack_array,
    unpack_string,
    unpack_variant_map,
)
from strata.ostree.modes import read_xattrs
from strata.ostree.objects import (
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    check_name,
    checksum_of,
    pack_xattrs,
    parse_checksum,
    unpack_xattrs,
)

pytestmark = pytest.mark.unit

A, B, C = (Checksum(letter * 64) for letter in "abc")


def test_the_checksums_every_ostree_repository_has() -> None:
    # The empty folder, and the metadata of a folder root:root 0755.
    assert checksum_of(DirTree().encode()) == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert checksum_of(DirMeta(0, 0, 0o40755).encode()) == (
        "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488"
    )


def test_a_plain_files_header_is_eighteen_bytes() -> None:
    header = FileHeader(0, 0, 0o100644)
    assert header.encode() == bytes(8) + bytes.fromhex("000081a4") + bytes(4) + b"\0" + b"\x11"
    assert FileHeader.decode(header.encode()) == header


def test_an_xattr_is_its_name_with_nul_and_its_value() -> None:
    # (ayay): the first member's end is the only framing offset; then the array's own.
    assert pack_xattrs(((b"a", b"xyz"),)) == b"a\0xyz\x02" + b"\x06"
    assert unpack_xattrs(b"a\0xyz\x02\x06") == ((b"a", b"xyz"),)
    assert pack_xattrs(()) == b""
    assert unpack_xattrs(b"") == ()


def test_offsets_grow_with_the_container() -> None:
    for size, width in ((200, 1), (300, 2), (70_000, 4)):
        value = b"v" * size
        data = pack_xattrs(((b"n", value),))
        assert len(data) == 2 + size + 2 * width
        assert unpack_xattrs(data) == ((b"n", value),)


def test_a_variant_map_keeps_its_order() -> None:
    values = {"z": Variant.text("last ü"), "a": Variant.flag(True), "n": Variant("t", bytes(8))}
    data = pack_variant_map(values)
    assert list(unpack_variant_map(data).items()) == list(values.items())
    assert pack_variant_map({}) == b""


def test_a_commit_comes_back() -> None:
    commit = Commit(A, B, 1_700_000_000, "subject", "body", C, {"version": Variant.text("1")})
    assert Commit.decode(commit.encode()) == commit
    assert Commit.decode(Commit(A, B, 0).encode()).parent == ""


def test_values_of_another_type_are_not_read_as_text_or_flag() -> None:
    with pytest.raises(ObjectError, match="a value of type b is not text"):
        Variant.flag(True).as_text()
    with pytest.raises(ObjectError, match="a value of type s is not a boolean"):
        Variant.text("true").as_flag()


@pytest.mark.parametrize("text", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 65, "../" + "a" * 61])
def test_what_is_no_checksum_is_refused(text: str) -> None:
    with pytest.raises(ObjectError, match="is not a checksum"):
        parse_checksum(text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a/"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ObjectError, match="cannot be a name"):
        check_name(name)


@pytest.mark.parametrize("text", ["a\0b", "latin-\udcff"])
def test_strings_gvariant_cannot_hold_are_refused(text: str) -> None:
    with pytest.raises(ObjectError):
        pack_string(text)


@pytest.mark.parametrize("data", [b"", b"x", b"a\0b\0", b"\xff\0"])
def test_bytes_that_are_no_string_are_refused(data: bytes) -> None:
    with pytest.raises(ObjectError):
        unpack_string(data)


def _row(name: str) -> DirTree:
    return DirTree(((name, A),), ())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_row("..").encode(), "cannot be a name"),
        (_row("a/b").encode(), "cannot be a name"),
        (DirTree((("x", A), ("x", B)), ()).encode(), "a name twice"),
        (DirTree((("x", A),), (("x", B, C),)).encode(), "a name twice"),
        (_row("x").encode()[:-1], "checksum|offsets"),
        (b"", "cut off"),
    ],
)
def test_a_dirtree_that_is_wrong_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        DirTree.decode(data)


@pytest.mark.parametrize(
    "header",
    [
        FileHeader(0, 0, 0o100644, "target of a regular file"),
        FileHeader(0, 0, 0o120777, ""),
        FileHeader(0, 0, 0o040755),
        FileHeader(0, 0, 0o020644),
        FileHeader(0, 0, 0o644),
    ],
)
def test_a_header_that_is_neither_a_files_nor_a_links_is_refused(header: FileHeader) -> None:
    with pytest.raises(ObjectError, match="neither a file's nor a link's"):
        FileHeader.decode(header.encode())


@pytest.mark.parametrize("number", [-1, (1 << 32) - 1, 1 << 32])
def test_owners_beyond_32_bits_are_refused(number: int) -> None:
    with pytest.raises(ObjectError, match="owner"):
        FileHeader(number, 0, 0o100644).encode()
    with pytest.raises(ObjectError, match="owner"):
        DirMeta(0, number, 0o40755).encode()


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_times_a_commit_cannot_hold_are_refused(number: int) -> None:
    with pytest.raises(ObjectError, match="time"):
        Commit(A, B, number).encode()


def test_a_dirmeta_is_a_directorys() -> None:
    with pytest.raises(ObjectError, match="not a directory's"):
        DirMeta.decode(DirMeta(0, 0, 0o100644).encode())


def test_an_array_may_not_claim_more_than_it_has() -> None:
    for data in (b"\xff", b"a\x05", b"ab\x02\x01", b"\x01\x00"):
        with pytest.raises(ObjectError):
            unpack_array(data)


def test_a_file_system_that_has_no_attributes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux 6.1 says of a squashfs where no file has one."""

    def refuse(error: int, *arguments: object, **options: object) -> list[str]:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "listxattr", partial(refuse, errno.ENOTSUP))
    assert read_xattrs(str(tmp_path)) == ()
    monkeypatch.setattr(os, "listxattr", partial(refuse, errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        read_xattrs(str(tmp_path))
