"""An image's layers as a person names them: what each is, what is in it, how large it is.

Made from the manifest and the configuration alone; no layer is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from strata.container.labels import COMMIT, COMPONENTS, LAYER_TITLE, VERSION
from strata.container.stored import CHUNK, base_layer_count, layer_kinds
from strata.oci.digest import Digest
from strata.oci.model import Descriptor, ImageConfig, Manifest
from strata.oci.source import ImageSource

MAX_TITLE = 200


@dataclass(frozen=True)
class LayerView:
    """One layer. number: from 1, the lowest. kind: commit, chunk or derived.

    title: what it holds, as people say it; components: names of the packages in a chunk.
    """

    number: int
    descriptor: Descriptor
    diff_id: Digest
    kind: str
    title: str
    components: tuple[str, ...] = ()

    @property
    def digest(self) -> Digest:
        """The digest of its compressed bytes."""
        return self.descriptor.digest

    @property
    def size_bytes(self) -> int:
        """The size of its compressed bytes."""
        return self.descriptor.size_bytes

    @property
    def summary(self) -> str:
        """What it holds in a few words: a chunk of many components is its first ones."""
        if len(self.components) > 3:
            head = ", ".join(self.components[:3])
            return f"{head} and {len(self.components) - 3} more"
        return ", ".join(self.components) or self.title or "untitled"

    def __str__(self) -> str:
        return f"layer {self.number} ({self.summary})"

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "number": self.number,
            "kind": self.kind,
            "title": self.title,
            "components": list(self.components),
            "digest": str(self.digest),
            "diff_id": str(self.diff_id),
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True)
class ImageView:
    """An image without its content. base_layers: how many are of the encapsulated commit; 0 when
    none is."""

    name: str
    manifest_digest: Digest
    manifest: Manifest
    config: ImageConfig
    layers: tuple[LayerView, ...]
    base_layers: int

    @property
    def version(self) -> str:
        """What the image says its version is; empty when it says nothing."""
        return self.config.labels.get(VERSION, "")

    @property
    def commit(self) -> str:
        """The checksum of the commit it encapsulates; empty when there is none."""
        return self.config.labels.get(COMMIT, "") if self.base_layers else ""

    @property
    def base(self) -> tuple[LayerView, ...]:
        """The layers of the base image."""
        return self.layers[: self.base_layers]

    @property
    def derived(self) -> tuple[LayerView, ...]:
        """The layers on top of it."""
        return self.layers[self.base_layers :]

    @property
    def size_bytes(self) -> int:
        """The sum of its layers' compressed sizes."""
        return sum(layer.size_bytes for layer in self.layers)


def view_of(source: ImageSource, name: str) -> ImageView:
    """Look at an open image. name: as the user wrote it. Raises ImageError."""
    manifest, config = source.manifest, source.config
    count = base_layer_count(manifest, config)
    history = _layer_history(source.config_bytes)
    if len(history) != len(manifest.layers):
        history = [""] * len(manifest.layers)
    kinds = layer_kinds(manifest, config)
    rows = zip(kinds, manifest.layers, config.diff_ids, history, strict=True)
    layers = tuple(_layer(number, *row) for number, row in enumerate(rows, 1))
    return ImageView(name, source.manifest_digest, manifest, config, layers, count)


def _layer(
    number: int, kind: str, descriptor: Descriptor, diff_id: Digest, created_by: str
) -> LayerView:
    listed = descriptor.annotations.get(COMPONENTS, "") if kind == CHUNK else ""
    title = descriptor.annotations.get(LAYER_TITLE) or " ".join(created_by.split())
    components = tuple(name for name in listed.split(",") if name)
    return LayerView(number, descriptor, diff_id, kind, title[:MAX_TITLE], components)


def _layer_history(config: bytes) -> list[str]:
    """`created_by` of the history's entries that made a layer (a LABEL or ENV makes none)."""
    entries = json.loads(config).get("history") or []
    return [str(item.get("created_by") or "") for item in entries if not item.get("empty_layer")]
