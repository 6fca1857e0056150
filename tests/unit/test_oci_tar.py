"""Layer tars: every header bit as ostree-ext writes it, and GNU tar's opinion of them."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
import zlib

import pytest

from strata.container.compress import Gzip
from strata.core.errors import ImageError
from strata.oci.compression import GzipReader, ZstdReader, decompress
from strata.oci.tar import (
    DIRECTORY,
    FILE,
    HARDLINK,
    SYMLINK,
    TarEntry,
    TarReader,
    TarWriter,
)

pytestmark = pytest.mark.unit


def written(*entries: tuple[TarEntry, bytes]) -> bytes:
    sink = io.BytesIO()
    tar = TarWriter(sink)
    for entry, body in entries:
        tar.entry(entry, body)
    tar.finish()
    return sink.getvalue()


def test_a_file_header_field_by_field() -> None:
    data = written((TarEntry(b"usr/bin/x", FILE, 0o4755, 7, 8, 5), b"hello"))
    header = data[:512]
    assert header[:100] == b"usr/bin/x".ljust(100, b"\0")
    assert header[100:108] == b"0004755\0"
    assert header[108:116] == b"0000007\0"
    assert header[116:124] == b"0000010\0"
    assert header[124:136] == b"00000000005\0"
    assert header[136:148] == b"00000000000\0"
    without = header[:148] + b" " * 8 + header[156:]
    assert header[148:156] == b"%07o\0" % sum(without)
    assert header[156:157] == b"0"
    assert header[257:265] == b"ustar  \0"
    assert header[265:] == bytes(512 - 265)
    assert data[512:1024] == b"hello".ljust(512, b"\0")
    assert data[1024:] == bytes(1024)  # two blocks, no record padding


def test_numbers_that_do_not_fit_are_base_256() -> None:
    data = written((TarEntry(b"x", FILE, 0o644, 2_097_152, 0, 0), b""))
    assert data[108:116] == b"\x80\0\0\0\0\x20\0\0"
    sink = io.BytesIO()
    TarWriter(sink).entry(TarEntry(b"x", FILE, 0o644, size_bytes=8 << 30))
    assert sink.getvalue()[124:136] == b"\x80" + (8 << 30).to_bytes(11, "big")


def test_a_long_name_has_an_l_entry_and_is_cut_to_100_bytes() -> None:
    name = b"sysroot/" + b"x" * 102
    data = written((TarEntry(name, FILE, 0o644), b""))
    assert data[:13] == b"././@LongLink"
    assert data[100:108] == b"0000644\0"
    assert data[156:157] == b"L"
    assert data[124:136] == b"%011o\0" % 111
    assert data[512 : 512 + 111] == name + b"\0"
    assert data[1024:1124] == name[:100]


def test_a_long_link_target_has_a_k_entry() -> None:
    data = written((TarEntry(b"x", SYMLINK, 0o777, target=b"y" * 101), b""))
    assert data[156:157] == b"K"


def test_xattrs_are_a_pax_header_without_selinux() -> None:
    xattrs = ((b"security.selinux", b"s0"), (b"user.b", b"2"), (b"user.a", b"\0\1"))
    data = written((TarEntry(b"x", FILE, 0o644, xattrs=xattrs), b""))
    assert data[:100] == bytes(100)
    assert data[100:108] == bytes(8)
    assert data[156:157] == b"x"
    assert data[257:265] == b"ustar\x0000"
    assert data[512:].startswith(b"25 SCHILY.xattr.user.b=2\n26 SCHILY.xattr.user.a=\0\1\n")
    only_selinux = written((TarEntry(b"x", FILE, 0o644, xattrs=xattrs[:1]), b""))
    assert only_selinux[156:157] == b"0"


def test_python_and_we_read_the_same() -> None:
    entries = [
        (TarEntry(b"d", DIRECTORY, 0o755), b""),
        (TarEntry(b"d/" + b"n" * 200, FILE, 0o640, 1, 2, 3), b"abc"),
        (TarEntry(b"l", SYMLINK, 0o777, target=b"d/x"), b""),
        (TarEntry(b"h", HARDLINK, 0o640, 1, 2, target=b"d/" + b"n" * 200), b""),
    ]
    data = written(*entries)
    with tarfile.open(fileobj=io.BytesIO(data)) as theirs:
        members = theirs.getmembers()
    assert [member.name.encode() for member in members] == [entry.path for entry, _ in entries]
    assert [member.mode for member in members] == [entry.mode for entry, _ in entries]
    reader = TarReader(io.BytesIO(data))
    ours = [(entry, reader.read_all(10)) for entry in reader]
    assert ours == entries


def test_what_tarfile_writes_is_read() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as theirs:
        member = tarfile.TarInfo("é" * 150)
        member.size, member.uid = 3, 5_000_000_000
        member.pax_headers = {"SCHILY.xattr.user.a": "1"}
        theirs.addfile(member, io.BytesIO(b"abc"))
    reader = TarReader(io.BytesIO(sink.getvalue()))
    (entry,) = list(reader)
    assert entry.path.decode() == "é" * 150
    assert entry.uid == 5_000_000_000
    assert entry.xattrs == ((b"user.a", b"1"),)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:700], "cut off"),
        (lambda data: b"y" + data[1:], "checksum is wrong"),
        (lambda data: data[:512], "cut off"),
    ],
)
def test_damaged_tars_are_image_errors(damage: object, message: str) -> None:
    data = written((TarEntry(b"x", FILE, 0o644, size_bytes=600), b"y" * 600))
    reader = TarReader(io.BytesIO(damage(data)))  # type: ignore[operator]
    with pytest.raises(ImageError, match=message):
        for _ in reader:
            reader.read_all(1000)


# --- compression ---------------------------------------------------------------------------------


def gzipped(data: bytes) -> bytes:
    sink = io.BytesIO()
    writer = Gzip(sink, 6)
    writer.write(data)
    writer.finish()
    return sink.getvalue()


def read_all(stream: object) -> bytes:
    out = b""
    while chunk := stream.read(1000):  # type: ignore[attr-defined]
        out += chunk
    return out


def test_gzip_is_the_same_every_time_and_zlib_reads_it() -> None:
    data = b"strata" * 10_000
    assert gzipped(data) == gzipped(data)
    assert zlib.decompress(gzipped(data), wbits=31) == data
    assert gzipped(data)[4:8] == bytes(4)  # no time


def test_several_gzip_members_are_one_stream() -> None:
    data = gzipped(b"one") + gzipped(b"two") + bytes(512)
    assert read_all(GzipReader(io.BytesIO(data))) == b"onetwo"


class Pieces:
    """A source that gives these pieces, one a read."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read(self, size: int = -1, /) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def test_padding_may_begin_wherever_a_read_ended() -> None:
    one, two = gzipped(b"one"), gzipped(b"two")
    assert read_all(GzipReader(Pieces(one, bytes(512)))) == b"one"
    assert read_all(GzipReader(Pieces(one, bytes(512), bytes(9) + two, bytes(3)))) == b"onetwo"
    assert read_all(GzipReader(Pieces(one[:20], one[20:], two[:1], two[1:]))) == b"onetwo"
    with pytest.raises(ImageError, match="damaged"):
        read_all(GzipReader(Pieces(bytes(512), one)))
    with pytest.raises(ImageError, match="damaged"):
        read_all(GzipReader(Pieces(one, b"\0\0rubbish")))


def test_a_cut_or_damaged_gzip_is_an_image_error() -> None:
    data = gzipped(b"x" * 100_000)
    with pytest.raises(ImageError, match="cut off"):
        read_all(GzipReader(io.BytesIO(data[:-9])))
    with pytest.raises(ImageError, match="damaged"):
        read_all(GzipReader(io.BytesIO(data[:30] + b"\xff\xff" + data[32:])))


def test_an_unknown_layer_type_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="are not read"):
        decompress(io.BytesIO(b""), "application/x-brotli")


def test_layers_that_are_not_to_be_distributed_are_layers() -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    assert decompress(io.BytesIO(b"x"), kind).read() == b"x"
    assert decompress(io.BytesIO(gzipped(b"x")), f"{kind}+gzip").read() == b"x"


@pytest.mark.parametrize(("option", "fits"), [("--long=24", True), ("--long=27", False)])
def test_a_zstd_window_has_a_bound(option: str, fits: bool) -> None:
    """Each layer that is read has a window of its own in memory."""
    body = random.Random(1).randbytes(1 << 20) * 40  # noqa: S311
    command = ["zstd", "-q", "-1", option, "--no-check", "-c"]
    data = subprocess.run(command, input=body, capture_output=True, check=True).stdout
    reader = ZstdReader(io.BytesIO(data))
    if not fits:
        with pytest.raises(ImageError, match="needs a window of more than 32 MiB"):
            reader.read(1 << 18)
        return
    assert b"".join(iter(lambda: reader.read(1 << 18), b"")) == body


def test_a_time_before_1970_is_none() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("old")
        info.mtime = -5
        tar.addfile(info)
    (entry,) = TarReader(io.BytesIO(sink.getvalue()))
    assert (entry.path, entry.mtime) == (b"old", 0)


def test_zstd_damage_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="zstd layer is damaged"):
        read_all(ZstdReader(io.BytesIO(b"not zstd at all")))


def with_pax(record: bytes) -> bytes:
    """A tar of one entry with one pax record, its length not yet counted."""
    length = len(record) + 1
    while len(b"%d" % length) + len(record) != length:
        length = len(b"%d" % length) + len(record)
    record = b"%d" % length + record
    data = bytearray(written((TarEntry(b"h", FILE, 0o644, size_bytes=len(record)), record)))
    data[156:157] = b"x"
    data[148:156] = b"%07o\0" % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    return bytes(data[:-1024]) + written((TarEntry(b"x", FILE, 0o644), b""))


@pytest.mark.parametrize("key", [b"uid", b"gid", b"size"])
def test_numbers_of_pax_headers_are_bounded(key: bytes) -> None:
    (entry,) = TarReader(io.BytesIO(with_pax(b" %s=0007\n" % key)))
    assert 7 in (entry.uid, entry.gid, entry.size_bytes)
    with pytest.raises(ImageError, match="a pax header has a number of 5000 digits"):
        list(TarReader(io.BytesIO(with_pax(b" %s=%s\n" % (key, b"9" * 5000)))))


def header_of(entry: TarEntry, copied_from: TarEntry | None = None) -> bytes:
    sink = io.BytesIO()
    TarWriter(sink).entry(entry, copied_from=copied_from)
    return sink.getvalue()[-512:]


def test_a_copied_header_keeps_what_its_names_held() -> None:
    """As tar-rs does, which writes a name and one NUL over the field that was there."""
    object_name = b"sysroot/ostree/repo/objects/12/" + b"3" * 62 + b".file"
    of_object = TarEntry(object_name, SYMLINK, target=b"t" * 40)
    link = header_of(TarEntry(b"usr/bin/x", HARDLINK, target=object_name), of_object)
    assert link[:100] == b"usr/bin/x\0" + object_name[10:] + b"\0\0"
    assert link[157:257] == object_name + b"\0\0"
    empty = header_of(TarEntry(b"usr/bin/x", FILE), of_object)
    assert empty[157:257] == (b"t" * 40).ljust(100, b"\0")
    for block in (link, empty):
        assert int(block[148:155], 8) == sum(block[:148]) + 8 * 32 + sum(block[156:])
    assert [entry.path for entry in TarReader(io.BytesIO(link + bytes(1024)))] == [b"usr/bin/x"]


def test_what_is_left_of_long_names_in_their_headers() -> None:
    """Whole characters of a path's beginning; as many of a target's components as fit."""
    path = b"a" * 99 + "é".encode() + b"rest"
    assert header_of(TarEntry(path, FILE))[:100] == b"a" * 99 + b"\0"
    target = b"/".join([b"c" * 40] * 4)
    field = header_of(TarEntry(b"x", SYMLINK, target=target))[157:257]
    assert field == (b"c" * 40 + b"/" + b"c" * 40).ljust(100, b"\0")
    field = header_of(TarEntry(b"x", SYMLINK, target=b"c" * 101))[157:257]
    assert field == bytes(100)
