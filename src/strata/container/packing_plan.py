"""The plan of an image: which components its chunks hold, as the image itself says.

It is in the annotations of the layers after the commit layer. `ostree.components` (upstream's)
names the components, joined by commas. `strata.content` (ours) is a digest of what is in them: a
chunk whose components still have that digest did not change since. Images made elsewhere lack it.
"""

from __future__ import annotations

from dataclasses import dataclass

from strata.container.labels import COMPONENTS, CONTENT
from strata.oci.model import Manifest


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk of an earlier build. names: of its components; content: empty when not known."""

    names: tuple[str, ...]
    content: str = ""


Plan = tuple[PlannedChunk, ...]


def read_plan(manifest: Manifest) -> Plan:
    """The plan an image was packed by.

    Empty when there is none to keep: a layer after the first does not name its components, as in
    images that are not encapsulated, that were derived further, or that went through a format
    without annotations.
    """
    layers = manifest.layers[1:]
    if any(COMPONENTS not in layer.annotations for layer in layers):
        return ()
    return tuple(
        PlannedChunk(
            tuple(name for name in layer.annotations[COMPONENTS].split(",") if name),
            layer.annotations.get(CONTENT, ""),
        )
        for layer in layers
    )
