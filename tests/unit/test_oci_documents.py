"""Digests, references, documents and layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.core.errors import ArchitectureError, DigestError, ImageError
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import (
    CONFIG,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)
from strata.oci.reference import ImageReference
from strata.oci.source import open_source

pytestmark = pytest.mark.unit

DIGEST = Digest.of(b"x")


def test_documents_read_and_write_the_same_bytes() -> None:
    layer = Descriptor(LAYER_GZIP, DIGEST, 7, {"a": "b"})
    manifest = Manifest(Descriptor(CONFIG, DIGEST, 3), (layer,), {"k": "v"})
    assert Manifest.parse(manifest.to_bytes()) == manifest
    entry = Descriptor(MANIFEST, DIGEST, 9, {}, Platform("linux", "amd64"))
    assert Index.parse(Index((entry,)).to_bytes()) == Index((entry,))
    inner = {"Labels": {"a": "b"}}
    history = (History("2020-01-01T00:00:00Z", "by"),)
    config = ImageConfig("amd64", "linux", "2020-01-01T00:00:00Z", inner, (DIGEST,), history)
    assert ImageConfig.parse(config.to_bytes()) == config
    assert json.loads(manifest.to_bytes())["schemaVersion"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"config":{},"layers":[]}',
        '{"config":{"digest":"sha256:zz","size":1},"layers":[]}',
        '{"layers":[{"digest":"sha256:%s","size":-1}],"config":{}}' % ("0" * 64),
        "[" * 100_000,
    ],
)
def test_a_malformed_manifest_is_an_image_error(text: str) -> None:
    with pytest.raises(ImageError):
        Manifest.parse(text.encode())


# --- layouts -------------------------------------------------------------------------------------


def image(layout: Layout, architecture: str) -> Descriptor:
    """A tiny image in a layout."""
    layer = layout.add(b"layer", LAYER_GZIP)
    config = ImageConfig(architecture, "linux", "", {}, (DIGEST,))
    described = layout.add(config.to_bytes(), CONFIG)
    manifest = layout.add(Manifest(described, (layer,)).to_bytes(), MANIFEST)
    platform = Platform("linux", architecture)
    return Descriptor(MANIFEST, manifest.digest, manifest.size_bytes, {}, platform)


def test_tags_move_and_others_stay(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    one, two = layout.add(b"1", MANIFEST), layout.add(b"2", MANIFEST)
    layout.tag("a", one)
    layout.tag("b", one)
    layout.tag("a", two)
    assert layout.resolve("a").digest == two.digest
    assert layout.resolve("b").digest == one.digest
    with pytest.raises(ImageError) as caught:
        layout.resolve("c")
    assert caught.value.hint == "tags: a, b"


def test_a_damaged_blob_is_found_when_it_is_read(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    blob = layout.add(b"content", MANIFEST)
    layout.blob_path(blob.digest).write_bytes(b"contenu")
    with pytest.raises(DigestError, match="is damaged"):
        layout.read(blob)


def test_a_failed_blob_leaves_nothing(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    with pytest.raises(ValueError, match="stop"), layout.blob_writer() as writer:
        writer.write(b"half")
        raise ValueError("stop")
    assert list((tmp_path / "blobs/sha256").iterdir()) == []


def test_a_folder_that_is_no_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is not an OCI layout"):
        Layout.open(tmp_path)


def test_an_index_gives_the_manifest_of_the_architecture(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    entries = (image(layout, "amd64"), image(layout, "arm64"))
    layout.tag("both", layout.add(Index(entries).to_bytes(), INDEX))
    reference = ImageReference("oci", str(tmp_path), "both")
    with open_source(reference, architecture="aarch64") as source:
        assert source.config.architecture == "arm64"
    with pytest.raises(ArchitectureError) as caught:
        with open_source(reference, architecture="s390x"):
            pass
    assert caught.value.message == "the image is for amd64, arm64, not for s390x"


def test_a_layer_is_checked_to_its_end(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    layout.tag("x", image(layout, "amd64"))
    with open_source(ImageReference("oci", str(tmp_path), "x"), architecture="x86_64") as source:
        layer = source.manifest.layers[0]
        layout.blob_path(layer.digest).write_bytes(b"lager")
        with pytest.raises(DigestError, match="is damaged"):
            with source.open_layer(layer) as stream:
                stream.read(2)


@pytest.mark.parametrize(
    "value", ['"\\ud800"', '"x\\udfff"', "NaN", "Infinity", "-Infinity", "1e400", "[[1e999]]"]
)
def test_what_could_not_be_written_again_is_no_document(value: str) -> None:
    text = f'{{"architecture": "amd64", "os": "linux", "x": {value}, "rootfs": {{"diff_ids": []}}}}'
    with pytest.raises(ImageError, match="is not JSON"):
        ImageConfig.parse(text.encode())
    fine = text.replace(value, '"\\ud83d\\ude00"')
    assert ImageConfig.parse(fine.encode()).architecture == "amd64"
