"""Image indexes: resolved by platform, made, changed; on the command line too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.cli.main import main
from strata.core.errors import ArchitectureError, ImageError
from strata.oci.digest import Digest
from strata.oci.indexes import choose, choose_manifest, describe, join, wanted_platform
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
    Platform,
)
from strata.oci.reference import ImageReference
from strata.oci.source import open_source

pytestmark = pytest.mark.unit


def entry(machine: str, name: str = "", annotations: dict[str, str] | None = None) -> Descriptor:
    architecture, _, variant = machine.partition("/")
    platform = Platform("linux", architecture, variant)
    digest = Digest.of((name or machine).encode())
    return Descriptor(MANIFEST, digest, 7, annotations or {}, platform)


def image(layout: Layout, machine: str, body: bytes = b"layer") -> Descriptor:
    """A tiny image in a layout."""
    architecture, _, variant = machine.partition("/")
    layer = layout.add(body, LAYER_GZIP)
    diff_ids = (Digest.of(body),)
    config = ImageConfig(architecture, "linux", "", {}, diff_ids, variant=variant)
    described = layout.add(config.to_bytes(), CONFIG)
    return layout.add(Manifest(described, (layer,)).to_bytes(), MANIFEST)


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", ("amd64", ("",))),
        ("aarch64", ("arm64", ("", "v8"))),
        ("arm64/v8", ("arm64", ("v8", ""))),
        ("armv7l", ("arm", ("v7", "v6", "v5", ""))),
        ("arm/v6", ("arm", ("v6", "v5", ""))),
        ("arm", ("arm", ("", "v8", "v7", "v6", "v5"))),
        ("mars64", ("mars64", ("",))),
        ("mars64/v2", ("mars64", ("v2", ""))),
    ],
)
def test_which_variants_run_on_a_machine(
    machine: str, platform: tuple[str, tuple[str, ...]]
) -> None:
    assert wanted_platform(machine) == platform


@pytest.mark.parametrize(
    ("there", "machine", "chosen"),
    [
        (["amd64", "mars64"], "mars64", "mars64"),
        (["arm/v5", "arm/v6", "arm/v7"], "armv7l", "arm/v7"),
        (["arm/v5", "arm/v6", "arm/v7"], "armv6l", "arm/v6"),
        (["arm/v5", "arm"], "armv6l", "arm/v5"),
        (["arm64/v8", "amd64"], "aarch64", "arm64/v8"),
        (["arm64/v8", "arm64"], "aarch64", "arm64"),
        (["mars64", "mars64/v2"], "mars64/v2", "mars64/v2"),
    ],
)
def test_the_best_image_is_chosen(there: list[str], machine: str, chosen: str) -> None:
    assert choose([entry(name) for name in there], machine) == entry(chosen)


@pytest.mark.parametrize(
    ("there", "machine", "message"),
    [
        (["amd64", "arm/v7"], "armv6l", "is for amd64, arm/v7, not for arm/v6"),
        (["amd64/v3"], "x86_64", "is for amd64/v3, not for amd64"),
        ([], "mars64", "is for no architecture, not for mars64"),
    ],
)
def test_none_that_runs_names_those_that_are_there(
    there: list[str], machine: str, message: str
) -> None:
    with pytest.raises(ArchitectureError, match=message):
        choose([entry(name) for name in there], machine)


def test_images_are_joined_in_the_order_of_their_platforms() -> None:
    kept = entry("amd64", annotations={"k": "v"})
    attestation = entry("unknown")
    joined = join([kept, attestation], [entry("arm64"), entry("aaa64")])
    assert joined == (entry("aaa64"), kept, entry("arm64"), attestation)
    assert join(joined, [entry("arm64")]) == joined  # the same again is no contradiction


def test_two_images_for_one_platform() -> None:
    message = "two images are for linux/arm/v7"
    with pytest.raises(ImageError, match=message):
        join([entry("arm/v7")], [entry("arm/v7", "other")])
    with pytest.raises(ImageError, match=message):
        join([], [entry("arm/v7"), entry("arm/v7", "other")], replace=True)
    replaced = join([entry("arm/v7"), entry("amd64")], [entry("arm/v7", "other")], replace=True)
    assert replaced == (entry("amd64"), entry("arm/v7", "other"))


def test_an_image_without_architecture(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    with pytest.raises(ImageError, match="does not say its architecture"):
        describe(layout, image(layout, ""))


def test_indexes_within_themselves_end(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    inner = image(layout, "amd64")
    for _ in range(5):
        made = layout.add(Index((inner,)).to_bytes(), INDEX)
        inner = Descriptor(INDEX, made.digest, made.size_bytes, {}, Platform("linux", "amd64"))
    with pytest.raises(ImageError, match="indexes that hold indexes"):
        choose_manifest(layout, inner, "x86_64")


# --- on the command line -------------------------------------------------------------------------


def index_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["image", "index", *arguments, "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_an_index_is_made_changed_and_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, out = (Layout.create(tmp_path / name) for name in ("one", "two", "out"))
    first, second, third = image(one, "amd64"), image(two, "mars64"), image(two, "mars64", b"new")
    one.tag("x", first)
    two.tag("x", second)
    two.tag("y", third)
    target = f"oci:{out.path}:4.19"
    index_json(capsys, "create", target, f"oci:{one.path}:x", "--annotation", "a=b")
    index_json(capsys, "add", target, f"oci:{two.path}:x")
    shown = index_json(capsys, "show", target)
    assert shown["digest"] == str(out.resolve("4.19").digest)
    assert shown["annotations"] == {"a": "b"}
    for machine, made in (("x86_64", first), ("mars64", second)):
        with open_source(ImageReference.parse(target), architecture=machine) as source:
            assert source.manifest_digest == made.digest
            with source.open_layer(source.manifest.layers[0]) as stream:
                assert stream.read(100) == b"layer"
    assert main(["image", "index", "add", target, f"oci:{two.path}:y"]) == ImageError.exit_status
    assert "two images are for linux/mars64" in capsys.readouterr().err
    index_json(capsys, "replace", target, f"oci:{two.path}:y", "--annotation", "c=d")
    shown = index_json(capsys, "show", target)
    assert shown["annotations"] == {"a": "b", "c": "d"}
    assert [item["digest"] for item in shown["manifests"]] == [  # type: ignore[attr-defined]
        str(first.digest),
        str(third.digest),
    ]
    # An index brings all its images.
    again = index_json(capsys, "create", f"oci:{tmp_path}/again:x", target)
    assert again["manifests"] == shown["manifests"]


def test_an_index_whose_image_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.create(tmp_path)
    absent = Descriptor(MANIFEST, Digest.of(b"no"), 7, {}, Platform("linux", "amd64"))
    layout.tag("old", layout.add(Index((absent,)).to_bytes(), INDEX))
    layout.tag("x", image(layout, "mars64"))
    assert main(["image", "index", "add", f"oci:{tmp_path}:old", f"oci:{tmp_path}:x"]) == 11
    assert f"has no image {absent.digest}" in capsys.readouterr().err
    missing = f"oci:{tmp_path}@{absent.digest}"
    assert main(["image", "index", "create", f"oci:{tmp_path}:new", missing]) == 11
    assert f"has no image {absent.digest}" in capsys.readouterr().err
    assert main(["image", "index", "show", f"oci:{tmp_path}:x"]) == 11
    assert "is one image, not an index" in capsys.readouterr().err
