"""Bringing images into the store: beside others who publish, and nothing twice."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from registry import ADDRESS, Registry
from strata.compose.fetch import fetch_to_store
from strata.compose.workspace import Workspace
from strata.core import network
from strata.core.events import silent
from strata.core.process import run
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.tar import TarWriter

pytestmark = pytest.mark.tools

LAYERS = 40  # skopeo is at work long enough for others to publish meanwhile


def write_layer(layout: Layout, number: int) -> tuple[Descriptor, Digest]:
    """A layer with nothing but its number to tell it from others."""
    tar = io.BytesIO()
    TarWriter(tar).finish()
    data = tar.getvalue() + bytes(512 * number)
    return layout.add(gzip.compress(data, mtime=0), LAYER_GZIP), Digest.of(data)


def write_image(layout: Layout, tag: str, first: int) -> Manifest:
    """A real image with LAYERS layers."""
    layers = [write_layer(layout, number) for number in range(first, first + LAYERS)]
    config = ImageConfig("amd64", "linux", "", {}, tuple(diff_id for _, diff_id in layers))
    described = layout.add(config.to_bytes(), CONFIG)
    manifest = Manifest(described, tuple(layer for layer, _ in layers))
    layout.tag(tag, layout.add(manifest.to_bytes(), MANIFEST))
    return manifest


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "store")


def fetch(workspace: Workspace, source: Layout, tag: str) -> ImageReference:
    reference = ImageReference("oci", str(source.path), tag)
    return fetch_to_store(workspace, reference, arch="x86_64", reporter=silent())


def test_a_tag_published_meanwhile_survives(workspace: Workspace, tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    for number in range(4):
        write_image(source, f"i{number}", number * LAYERS)
    blob = workspace.layout.add(b"{}", MANIFEST)
    published: list[str] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            tag = f"published-{len(published)}"
            workspace.layout.tag(tag, blob)
            published.append(tag)
            stop.wait(0.005)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        fetched = [fetch(workspace, source, f"i{number}") for number in range(4)]
    finally:
        stop.set()
        thread.join()
    tags = workspace.layout.tags()
    assert len(published) > 4
    assert set(published) <= set(tags)
    assert len([tag for tag in tags if tag.startswith("fetched/")]) == len(fetched)


def test_what_the_store_has_is_not_fetched_again(workspace: Workspace, tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    manifest = write_image(source, "one", 0)
    missing = manifest.layers[7]
    for layer in manifest.layers:
        if layer != missing:
            # Only the store can give it.
            source.blob_path(layer.digest).rename(workspace.layout.blob_path(layer.digest))
    found = fetch(workspace, source, "one")
    assert workspace.layout.has(missing.digest)
    run(["skopeo", "inspect", f"oci:{workspace.store}:{next(iter(workspace.layout.tags()))}"])
    assert found.digest == source.resolve("one").digest
    assert list(workspace.work.iterdir()) == []


def test_an_image_that_is_there_is_not_copied_again(workspace: Workspace, tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    manifest = write_image(source, "one", 0)
    first = fetch(workspace, source, "one")
    for layer in manifest.layers:
        source.blob_path(layer.digest).unlink()
    assert fetch(workspace, source, "one") == first


def test_an_image_of_another_layout_is_fetched_by_its_digest(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = Layout.create(tmp_path / "source")
    manifest = write_image(source, "one", 0)
    write_image(source, "two", LAYERS)
    digest = source.resolve("one").digest
    reference = ImageReference.parse(f"oci:{source.path}@{digest}")
    found = fetch_to_store(workspace, reference, arch="x86_64", reporter=silent())
    assert found.digest == digest
    assert all(workspace.layout.has(layer.digest) for layer in manifest.layers)
    assert list(workspace.work.iterdir()) == []


_FETCH = """
import sys
from pathlib import Path
from strata.compose.fetch import fetch_to_store
from strata.compose.workspace import Workspace
from strata.core.errors import StrataError
from strata.core.events import silent
from strata.oci.reference import ImageReference
try:
    reference = ImageReference.parse(sys.argv[2])
    workspace = Workspace.create(Path(sys.argv[1]))
    print(fetch_to_store(workspace, reference, arch="x86_64", reporter=silent()))
except StrataError as error:
    print(type(error).__name__, error.message)
"""


def test_offline_a_base_image_comes_from_the_store(tmp_path: Path) -> None:
    home, store = tmp_path / "home", tmp_path / "store"
    config = home / ".config/containers/registries.conf"
    config.parent.mkdir(parents=True)
    config.write_text(f'[[registry]]\nlocation = "{ADDRESS}"\ninsecure = true\n')

    def fetch(reference: str, *within: str, **env: str) -> str:
        done = subprocess.run(
            [*within, sys.executable, "-c", _FETCH, str(store), reference],
            env={**os.environ, "HOME": str(home), "no_proxy": "*", **env},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    write_image(Layout.create(tmp_path / "source"), "one", 0)
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        digest = registry.push(f"oci:{tmp_path / 'source'}:one", "base:1")
        names = (f"docker://{ADDRESS}/base:1", f"docker://{ADDRESS}/base@{digest}")
        fetched = [fetch(name, *registry.inside()) for name in names]
    assert fetched == [f"oci:{store}@{digest}"] * 2
    offline = {network.VARIABLE: "1"}
    assert [fetch(name, "unshare", "-n", **offline) for name in names] == fetched
    assert fetch(f"docker://{ADDRESS}/base:2", "unshare", "-n", **offline) == (
        f"OfflineError docker://{ADDRESS}/base:2 was never fetched into this store, and this is an "
        "offline run"
    )
