"""A layer's blob: written as a tar, hashed, compressed and hashed again in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from strata.container.compress import Compressor, Plain, compressor
from strata.container.labels import LAYER_TITLE
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import CONFIG, MANIFEST, Descriptor, ImageConfig, Manifest
from strata.oci.tar import TarWriter

_CHUNK = 1 << 18


@dataclass(frozen=True)
class Layer:
    """A written layer. title: what it holds, as people say it."""

    descriptor: Descriptor
    diff_id: Digest
    title: str


def write_layer(
    layout: Layout,
    title: str,
    fill: Callable[[TarWriter], None],
    compression: str = "gzip",
    known: Layer | None = None,
) -> Layer:
    """Write one layer; `fill` writes its entries. The same entries give the same blob.

    compression: one of `compress.COMPRESSIONS`. known: a layer that it may be again: then its blob
    is taken, since hashing a tar costs little beside compressing it.
    Raises NoSpaceError, UsageError.
    """
    there = known is not None and layout.has(known.descriptor.digest)
    if known is not None and there and _diff_id(fill) == known.diff_id:
        return known
    with layout.blob_writer() as blob:
        packer, media_type = compressor(compression, blob)
        tee = _Tee(packer)
        tar = TarWriter(tee)
        fill(tar)
        tar.finish()
        tee.flush()
        packer.finish()
    descriptor = Descriptor(media_type, blob.digest, blob.size_bytes)
    return Layer(descriptor, Digest(tee.digest.hexdigest()), title)


def _diff_id(fill: Callable[[TarWriter], None]) -> Digest:
    tee = _Tee(Plain(_Nowhere()))
    tar = TarWriter(tee)
    fill(tar)
    tar.finish()
    tee.flush()
    return Digest(tee.digest.hexdigest())


class _Nowhere:
    def write(self, data: bytes, /) -> object:
        """Drop bytes: only their digest is wanted."""
        return None


def written_layers(layout: Layout, manifest: Manifest) -> dict[str, Layer]:
    """An image's layers by title, for the next build to know again; those without one are left
    out."""
    diff_ids = ImageConfig.parse(layout.read(manifest.config)).diff_ids
    return {
        title: Layer(replace(layer, annotations={}), diff_id, title)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=False)
        if (title := layer.annotations.get(LAYER_TITLE))
    }


def write_image(
    layout: Layout,
    config: ImageConfig,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str],
) -> Descriptor:
    """Write an image's configuration and manifest; returns the manifest's descriptor."""
    described = layout.add(config.to_bytes(), CONFIG)
    manifest = Manifest(described, tuple(layers), annotations)
    return layout.add(manifest.to_bytes(), MANIFEST)


class _Tee:
    """Gathers small writes, hashes them and compresses them: many headers are one call."""

    def __init__(self, packer: Compressor) -> None:
        self._packer = packer
        self._parts: list[bytes] = []
        self._size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        self.digest.update(data)
        self._packer.write(data)
