"""What is fuzzed: each target takes bytes, and nothing but a StrataError may come out.

What was read has to be written and read the same again; and an input of a few kilobytes is
answered within a second, however it is made. `corpus/TARGET/` holds inputs that broke something
once; the unit tests run them.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from strata.core.errors import StrataError
from strata.oci.archive import Archive
from strata.oci.compression import GzipReader, ZstdReader
from strata.oci.digest import Digest
from strata.oci.indexes import choose, join
from strata.oci.model import ImageConfig, Index, Manifest
from strata.oci.payload import parse_payload
from strata.oci.policy import accepts_anything
from strata.oci.reference import SignedReference
from strata.oci.tar import BLOCK, TarReader, TarWriter
from strata.ostree.gvariant import unpack_array, unpack_variant_map
from strata.ostree.objects import Commit, DirMeta, DirTree, FileHeader, unpack_xattrs

CORPUS = Path(__file__).parent / "corpus"
Target = Callable[[bytes], None]


def _quiet(call: Callable[[], object]) -> None:
    try:
        call()
    except StrataError:
        pass


# --- tars ----------------------------------------------------------------------------------------


def tar(data: bytes) -> None:
    """A layer's tar, read in pieces of odd sizes; what was read is written and read again."""
    _quiet(lambda: _read_tar(data))
    _quiet(lambda: _read_tar(_mended(data)))


def _mended(data: bytes) -> bytes:
    """The same tar with true checksums: chance alone would hardly get past a wrong one."""
    mended = bytearray(data)
    for start in range(0, len(data) - BLOCK + 1, BLOCK):
        block = data[start : start + BLOCK]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 8 * 32
            mended[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(mended)


def _read_tar(data: bytes) -> None:
    reader = TarReader(_Pieces(data))
    for entry in reader:
        assert 0 <= reader.consumed_bytes <= len(data)
        body = reader.read(7) + reader.read_all(1 << 20)
        # Nothing can be written into a header that was not in the first: NUL ends a name.
        if len(body) == entry.size_bytes and b"\0" not in entry.path + entry.target:
            sink = io.BytesIO()
            TarWriter(sink).entry(entry, body)
            again = next(iter(TarReader(io.BytesIO(sink.getvalue() + bytes(1024)))))
            assert (again.path, again.type, again.target) == (entry.path, entry.type, entry.target)


class _Pieces:
    """Bytes, at most 301 at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(301 if size < 0 else min(size, 301))


def compressed(data: bytes) -> None:
    """A compressed layer; an input may unpack to much, and is read up to 16 MB."""
    for reader in (GzipReader(io.BytesIO(data)), ZstdReader(io.BytesIO(data))):
        _quiet(lambda reader=reader: _drain(reader))  # type: ignore[misc]


def _drain(reader: GzipReader | ZstdReader) -> None:
    total = 0
    while total < 16 << 20:
        piece = reader.read(1 << 16)
        if not piece:
            return
        assert len(piece) <= 1 << 16
        total += len(piece)


# --- OSTree objects ------------------------------------------------------------------------------


def objects(data: bytes) -> None:
    """GVariant and the objects; what was read, written again, reads the same."""
    for decode in (FileHeader.decode, DirMeta.decode, DirTree.decode, Commit.decode):
        _quiet(lambda decode=decode: _again(decode, data))  # type: ignore[misc]
    for unpack in (unpack_xattrs, unpack_variant_map, unpack_array):
        _quiet(lambda unpack=unpack: unpack(data))  # type: ignore[misc]


def _again(decode: Callable[[bytes], FileHeader | DirMeta | DirTree | Commit], data: bytes) -> None:
    value = decode(data)
    assert decode(value.encode()) == value


# --- documents -----------------------------------------------------------------------------------


def documents(data: bytes) -> None:
    """Manifests, indexes, configurations, image streams, policies."""
    for parse in (Manifest.parse, Index.parse, ImageConfig.parse):
        _quiet(lambda parse=parse: _parsed(parse, data))  # type: ignore[misc]
    _quiet(lambda: _indexed(data))
    _quiet(lambda: parse_payload(data).resolve("rhel-coreos"))
    _quiet(lambda: accepts_anything(data, "policy.json"))


def _parsed(parse: Callable[[bytes], Manifest | Index | ImageConfig], data: bytes) -> None:
    value = parse(data)
    assert parse(value.to_bytes()) == value
    if isinstance(value, ImageConfig):
        assert isinstance(value.labels, dict)


def _indexed(data: bytes) -> None:
    entries = Index.parse(data).manifests
    _quiet(lambda: choose(entries, "armv7l"))
    assert join(join((), entries), entries) == join((), entries)


def references(data: bytes) -> None:
    """Image references; what was read and shown reads the same."""
    _quiet(lambda: _shown(data.decode("utf-8", "surrogateescape")))


def _shown(text: str) -> None:
    reference = SignedReference.parse_any(text)
    assert SignedReference.parse(str(reference)) == reference


# --- archives ------------------------------------------------------------------------------------


def archive(data: bytes) -> None:
    """An oci-archive: its members, tags, and every document it names."""
    with tempfile.NamedTemporaryFile(dir=_memory(), prefix="strata-fuzz.") as stream:
        stream.write(_mended(data))
        stream.flush()
        _quiet(lambda: _read_archive(Path(stream.name)))


def _memory() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def _read_archive(path: Path) -> None:
    with Archive(path) as read:
        for entry in read.entries():
            _quiet(lambda entry=entry: Manifest.parse(read.read(entry)))  # type: ignore[misc]
            with read.open_blob(entry.digest) as blob:
                assert len(blob.read(64)) <= 64
        read.tags()
        read.has(Digest.of(b""))
        read.resolve()


TARGETS: Mapping[str, Target] = {
    "tar": tar,
    "compressed": compressed,
    "objects": objects,
    "documents": documents,
    "references": references,
    "archive": archive,
}
