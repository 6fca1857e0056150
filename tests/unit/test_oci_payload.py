"""A release payload's image references, from a real one wrapped into tiny images."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from strata.core.errors import ImageError, UsageError
from strata.oci import payload
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import CONFIG, LAYER_GZIP, MANIFEST, ImageConfig, Manifest
from strata.oci.payload import parse_payload, read_payload
from strata.oci.reference import ImageReference
from strata.oci.source import open_source

pytestmark = pytest.mark.unit

REAL = Path(__file__).parent.parent / "data/release/hypershift-4.10-image-references.json"
NAME = "release-manifests/image-references"
Entry = tuple[str, bytes | None]  # a file; a folder when None


def opened(folder: Path, *layers: list[Entry]) -> Any:
    """An image of these layers, open."""
    layout = Layout.create(folder)
    tars = []
    for entries in layers:
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as tar:
            for name, data in entries:
                info = tarfile.TarInfo(name)
                info.size = len(data or b"")
                info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
                tar.addfile(info, io.BytesIO(data or b""))
        tars.append(sink.getvalue())
    config = ImageConfig("amd64", "linux", "", {}, tuple(map(Digest.of, tars)))
    blobs = tuple(layout.add(gzip.compress(tar), LAYER_GZIP) for tar in tars)
    described = layout.add(config.to_bytes(), CONFIG)
    layout.tag("x", layout.add(Manifest(described, blobs).to_bytes(), MANIFEST))
    return open_source(ImageReference("oci", str(folder), "x"), architecture="x86_64")


def stream(name: str = "new", **tags: str) -> bytes:
    """A small document."""
    rows = [{"name": tag, "from": {"kind": "DockerImage", "name": of}} for tag, of in tags.items()]
    return json.dumps(
        {
            "kind": "ImageStream",
            "apiVersion": "image.openshift.io/v1",
            "metadata": {"name": name},
            "spec": {"tags": rows},
        }
    ).encode()


def test_a_real_payload_is_resolved(tmp_path: Path) -> None:
    expected = {
        row["name"]: f"docker://{row['from']['name']}"
        for row in json.loads(REAL.read_bytes())["spec"]["tags"]
    }
    below: list[Entry] = [("release-manifests", None), (NAME, stream("old"))]
    real: list[Entry] = [("./release-manifests/image-references", REAL.read_bytes())]
    with opened(tmp_path, below, real, [("usr/x", b"")]) as source:
        found = read_payload(source)
    assert found.name == "4.10.0-0.nightly-2021-11-14-184249"
    assert {tag: str(image) for tag, image in found.tags.items()} == expected
    assert str(found.resolve("machine-os-content")) == expected["machine-os-content"]


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("machine-os", "machine-os-content"),
        ("mashine-os-content", "machine-os-content"),
        ("cli-artefacts", "cli-artifacts"),
    ],
)
def test_a_tag_that_is_not_there_names_those_like_it(asked: str, hint: str) -> None:
    found = parse_payload(REAL.read_bytes())
    with pytest.raises(UsageError, match=f"has no image {asked}") as caught:
        found.resolve(asked)
    assert caught.value.hint is not None
    assert hint in caught.value.hint.replace("it has ", "").split(", ")[:2]


def test_a_newer_tag_is_found_by_its_word() -> None:
    digest = "@sha256:" + "ab" * 32
    found = parse_payload(
        stream(**{"rhel-coreos-10": f"q.io/a/b{digest}", "cli": f"q.io/c{digest}"})
    )
    with pytest.raises(UsageError) as caught:
        found.resolve("rhel-coreos")
    assert caught.value.hint == "it has rhel-coreos-10"


OLD: list[Entry] = [("release-manifests", None), (NAME, stream("old"))]


@pytest.mark.parametrize(
    "above",
    [
        [("release-manifests/.wh.image-references", b"")],
        [("release-manifests/.wh..wh..opq", b"")],
        [(".wh.release-manifests", b"")],
        [("/.wh..wh..opq", b"")],
        [("release-manifests", b"a file")],
    ],
)
def test_what_a_layer_hides_is_not_found(tmp_path: Path, above: list[Entry]) -> None:
    with opened(tmp_path / "hidden", OLD, above) as source:
        with pytest.raises(ImageError, match="is not a release payload"):
            read_payload(source)
    # A layer hides what is below it, not what it brings, nor what is above it.
    with opened(tmp_path / "same", OLD, [*above, (NAME, stream("same"))]) as source:
        assert read_payload(source).name == "same"
    with opened(tmp_path / "above", above, OLD) as source:
        assert read_payload(source).name == "old"


def test_of_two_in_a_layer_the_last_counts(tmp_path: Path) -> None:
    with opened(tmp_path, [(NAME, stream("first")), (NAME, stream("last"))]) as source:
        assert read_payload(source).name == "last"


def test_a_payload_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, [("x", bytes(100_000)), (NAME, stream())]) as source:
        monkeypatch.setattr(payload, "MAX_LAYER_BYTES", 50_000)
        with pytest.raises(ImageError, match="larger than 50000 bytes"):
            read_payload(source)
        monkeypatch.setattr(payload, "MAX_LAYER_BYTES", 500_000)
        monkeypatch.setattr(payload, "MAX_ENTRIES", 1)
        with pytest.raises(ImageError, match="more than 1 entries"):
            read_payload(source)
        monkeypatch.setattr(payload, "MAX_ENTRIES", 2)
        monkeypatch.setattr(payload, "MAX_BYTES", 10)
        with pytest.raises(ImageError, match="larger than 10"):
            read_payload(source)


GOOD = json.loads(stream(a="q.io/a/b@sha256:" + "ab" * 32))


def changed(**members: object) -> bytes:
    return json.dumps({**GOOD, **members}).encode()


def tagged(**members: object) -> bytes:
    return changed(spec={"tags": [{**GOOD["spec"]["tags"][0], **members}]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "kind is missing"),
        (changed(kind="Image"), "is a Image of image.openshift.io/v1"),
        (changed(apiVersion="v1"), "is a ImageStream of v1"),
        (changed(metadata={}), "metadata: name is missing"),
        (changed(spec=None), "spec is missing"),
        (changed(spec={"tags": {}}), "spec: tags is missing"),
        (changed(spec={"tags": [1]}), r"spec.tags\[0\]: name is missing"),
        (changed(spec={"tags": GOOD["spec"]["tags"] * 2}), "a is there twice"),
        (changed(spec={"tags": [1] * 10_001}), "more than 10000"),
        (tagged(**{"from": {"kind": "ImageStreamTag", "name": "x"}}), "not a DockerImage"),
        (
            tagged(**{"from": {"kind": "DockerImage", "name": "q.io/a/b:t"}}),
            "not named by a digest",
        ),
        (tagged(**{"from": {"kind": "DockerImage", "name": "x y"}}), "is not docker://HOST/NAME"),
        (tagged(**{"from": {"kind": "DockerImage"}}), r"spec.tags\[0\].from: name is missing"),
    ],
)
def test_what_is_no_image_stream_says_why(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        parse_payload(data)
