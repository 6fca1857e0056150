"""`oci-archive:`: read in place, written the same each time, hostile ones refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from strata.core.errors import DigestError, ImageError
from strata.oci import archive
from strata.oci.archive import Archive, write_archive
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import (
    CONFIG,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
)
from strata.oci.reference import ImageReference
from strata.oci.source import open_source

pytestmark = pytest.mark.unit

BODY = b"layer" * 1000


def image(layout: Layout, architecture: str = "amd64", body: bytes = BODY) -> Descriptor:
    """A tiny image in a layout."""
    layer = layout.add(body, LAYER_GZIP)
    config = ImageConfig(architecture, "linux", "", {}, (Digest.of(b"x"),))
    described = layout.add(config.to_bytes(), CONFIG)
    return layout.add(Manifest(described, (layer,)).to_bytes(), MANIFEST)


def packed(path: Path, *members: tuple[str, bytes]) -> Path:
    """A tar of the standard library's."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_an_archive_is_read_where_it_lies(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    made = image(layout)
    path = tmp_path / "image.tar"
    write_archive(path, layout, made, "os/4.19")
    with Archive(path) as read:
        assert read.tags()["os/4.19"].digest == made.digest
        assert read.resolve().digest == made.digest
        assert read.resolve(digest=made.digest).digest == made.digest
        assert not read.has(Digest.of(b"nothing"))
        with pytest.raises(ImageError) as caught:
            read.resolve("4.18")
        assert caught.value.hint == "tags: os/4.19"
    reference = ImageReference.parse(f"oci-archive:{path}:os/4.19")
    with open_source(reference, architecture="x86_64") as source:
        assert source.manifest_digest == made.digest
        layer = source.manifest.layers[0]
        # Two at once, in turns: they do not share a position.
        with source.open_layer(layer) as one, source.open_layer(layer) as two:
            assert one.read(7) == BODY[:7]
            assert two.read(3) == BODY[:3]
            assert one.read(5) == BODY[7:12]


def test_the_same_image_gives_the_same_archive(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        layout = Layout.create(tmp_path / name)
        if name == "b":
            layout.tag("other", image(layout, body=b"other"))  # not part of the image
        write_archive(tmp_path / f"{name}.tar", layout, image(layout), "x")
        written.append((tmp_path / f"{name}.tar").read_bytes())
    assert written[0] == written[1]
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
    assert names[:4] == ["oci-layout", "index.json", "blobs", "blobs/sha256"]
    assert names[4:] == sorted(names[4:])
    assert len(names) == 7


def test_an_archive_holds_every_image_of_an_index(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    entries = (image(layout), image(layout, "mars64"))
    index = layout.add(Index(entries).to_bytes(), INDEX)
    write_archive(tmp_path / "x.tar", layout, index)
    with Archive(tmp_path / "x.tar") as read:
        assert all(read.has(entry.digest) for entry in entries)


def test_a_damaged_blob_leaves_no_archive(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    made = image(layout)
    layout.blob_path(Digest.of(BODY)).write_bytes(BODY[:-1] + b"x")
    with pytest.raises(DigestError, match="is damaged"):
        write_archive(tmp_path / "x.tar", layout, made)
    layout.blob_path(Digest.of(BODY)).write_bytes(BODY[:-1])
    with pytest.raises(DigestError, match="is damaged"):
        write_archive(tmp_path / "x.tar", layout, made)
    layout.blob_path(Digest.of(BODY)).unlink()
    with pytest.raises(ImageError, match="has no blob"):
        write_archive(tmp_path / "x.tar", layout, made)
    assert [path.name for path in tmp_path.iterdir()] == ["layout"]


def test_a_blob_damaged_within_an_archive_is_found(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    path = tmp_path / "x.tar"
    write_archive(path, layout, image(layout))
    path.write_bytes(path.read_bytes().replace(b"layerlayer", b"layerlaier", 1))
    with open_source(ImageReference("oci-archive", str(path)), architecture="x86_64") as source:
        with pytest.raises(DigestError, match="is damaged"):
            with source.open_layer(source.manifest.layers[0]) as stream:
                stream.read(1)


def test_the_last_of_two_counts_and_other_names_do_not(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "x.tar",
        ("./oci-layout", b"{}"),
        ("index.json", b"[]"),
        ("../index.json", b"[]"),
        ("/etc/passwd", b"x"),
        ("./index.json", Index(()).to_bytes()),
        ("blobs/sha256/../../index.json", b"[]"),
    )
    with Archive(path) as read:
        assert read.entries() == ()


def _cut(path: Path) -> None:
    packed(path, ("oci-layout", b"{}"), ("index.json", b"x" * 2000))
    path.write_bytes(path.read_bytes()[: 512 * 4])


def _header_cut(path: Path) -> None:
    packed(path, ("oci-layout", b"{}"), ("index.json", b"{}"))
    path.write_bytes(path.read_bytes()[: 512 * 2 + 100])


def _link(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("index.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)


def _lying_size(path: Path) -> None:
    info = tarfile.TarInfo("index.json")
    info.size = 1 << 45
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def _headers_without_end(path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 20
    text = b"%d x=" % (1 << 20)
    body = text + b"y" * ((1 << 20) - len(text) - 1) + b"\n"
    with open(path, "wb") as stream:
        for _ in range(16):
            stream.write(info.tobuf(tarfile.USTAR_FORMAT) + body)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is not an archive of an image"),
        (lambda path: path.write_bytes(bytes(10240)), "it is empty"),
        (lambda path: path.write_bytes(b"x" * 10240), "checksum is wrong"),
        (lambda path: packed(path, ("oci-layout", b"{}")), "does not hold an OCI layout"),
        (lambda path: path.write_bytes(b"\x1f\x8b\x08"), "is compressed"),
        (_cut, "is cut off"),
        (_header_cut, "is cut off"),
        (_link, "is not a file"),
        (_lying_size, "beyond all bounds"),
        (_headers_without_end, "more headers than any needs"),
        (lambda path: path.mkdir(), "it is not a file"),
    ],
)
def test_what_is_no_archive_says_why(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "x.tar"
    make(path)
    with pytest.raises(ImageError, match=message):
        Archive(path)


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read: No such file"):
        Archive(tmp_path / "x.tar")


def test_entries_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 10)
    path = packed(tmp_path / "x.tar", *((f"file{at}", b"") for at in range(11)))
    with pytest.raises(ImageError, match="more than 10 entries"):
        Archive(path)
