"""The `--contentmeta` file of `ostree container encapsulate`: which object is in which layer.

JSON: `version` 1, `mapping` from an object's checksum to a layer's id, `layers` from an id to its
name, optionally `labels` and `created`; `ordered` may not be true. Objects that are not mapped are
`unpackaged` and change with every build; anything else counts as changing once a year.
Source: ostree-ext's cli.rs (ContentMeta).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strata.container.encapsulate import ComponentMap
from strata.container.packing import ALWAYS, Bin, Component
from strata.core.errors import DefinitionError, ObjectError
from strata.ostree.objects import Checksum, parse_checksum

UNPACKAGED = "unpackaged"
MAX_BYTES = 64 << 20
_KEYS = {"version", "created", "labels", "ordered", "mapping", "layers"}


@dataclass(frozen=True)
class ContentMeta:
    """A parsed file. layers: from id to name, in the file's order."""

    mapping: Mapping[Checksum, str]
    layers: Mapping[str, str]
    labels: Mapping[str, str]

    def packing(self, components: Sequence[Component]) -> tuple[Bin, ...]:
        """A chunk for each layer in the file's order, and an empty one: upstream's default.

        components: those that have objects. A layer that has none is an empty chunk; objects that
        are not mapped have one before the last.
        """
        there = {item.identifier: item for item in components}
        bins = [(there.pop(name),) if name in there else () for name in self.layers]
        return (*bins, *((item,) for item in there.values()), ())

    def components(self) -> ComponentMap:
        """The layers as components."""
        found = {
            identifier: Component(
                identifier, name, name, ALWAYS if identifier == UNPACKAGED else 1, 0
            )
            for identifier, name in self.layers.items()
        }
        found.setdefault(UNPACKAGED, Component(UNPACKAGED, UNPACKAGED, UNPACKAGED, ALWAYS, 0))
        mapping = self.mapping
        return ComponentMap(found, lambda path, checksum: mapping.get(checksum, UNPACKAGED))


def parse_contentmeta(data: bytes, source: str) -> ContentMeta:
    """Read the file's bytes. source: its name, for errors. Raises DefinitionError."""

    def error(problem: str) -> DefinitionError:
        return DefinitionError(f"{source}: {problem}", context={"file": source})

    if len(data) > MAX_BYTES:
        raise error(f"is larger than {MAX_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as cause:
        raise error(f"is not JSON: {cause}") from cause
    if not isinstance(document, dict):
        raise error("is not an object")
    unknown = sorted(set(document) - _KEYS)
    if unknown:
        raise error(f"{unknown[0]} is not a key of a contentmeta file")
    if document.get("version") != 1:
        raise error("version is not 1")
    if document.get("ordered"):
        raise error("ordered layers are not supported, here or upstream")
    tables = {}
    for key in ("mapping", "layers", "labels"):
        table = document.get(key, {})
        texts = isinstance(table, dict) and all(isinstance(v, str) for v in table.values())
        if not texts or (key != "labels" and key not in document):
            raise error(f"{key} is missing or not a mapping of texts")
        tables[key] = table
    try:
        mapping = {parse_checksum(key): value for key, value in tables["mapping"].items()}
    except ObjectError as cause:
        raise error(f"mapping: {cause.message}") from cause
    for checksum, identifier in mapping.items():
        if identifier not in tables["layers"] and identifier != UNPACKAGED:
            raise error(f"mapping.{checksum} names the layer {identifier}, which is not described")
    return ContentMeta(mapping, tables["layers"], tables["labels"])
