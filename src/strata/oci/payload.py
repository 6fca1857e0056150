"""A release payload's `image-references`: which image, by digest, a release means by a tag.

A payload is an image that holds `release-manifests/image-references`, an ImageStream in JSON. Its
layers are searched from the top, each to its end (of a name that is there twice the last counts);
whiteouts, and whatever takes a folder's place, hide what lies below. Each layer is read once, as a
stream; what a layer may unpack to is bounded.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strata.core.errors import ImageError, UsageError
from strata.core.streams import Readable
from strata.oci.compression import decompress
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource
from strata.oci.tar import DIRECTORY, FILE, TarReader

FOLDER = b"release-manifests"
PATH = FOLDER + b"/image-references"
MAX_BYTES = 16 << 20
MAX_LAYER_BYTES = 16 << 30
MAX_ENTRIES = 2_000_000
MAX_TAGS = 10_000
_HIDES = frozenset(
    (
        b".wh..wh..opq",
        b".wh." + FOLDER,
        FOLDER + b"/.wh..wh..opq",
        FOLDER + b"/.wh.image-references",
    )
)


@dataclass(frozen=True)
class Payload:
    """A release's images. name: the release's; tags: from each tag to its image, by digest."""

    name: str
    tags: Mapping[str, ImageReference]

    def resolve(self, tag: str) -> ImageReference:
        """The image of a tag. Raises UsageError naming the tags that look like it."""
        if tag in self.tags:
            return self.tags[tag]
        raise UsageError(
            f"the release {self.name} has no image {tag}",
            hint=f"it has {', '.join(_similar(tag, self.tags)) or f'{len(self.tags)} others'}",
        )


def _similar(tag: str, tags: Mapping[str, ImageReference], most: int = 5) -> list[str]:
    """Tags that look like one: that hold it or its words, are spelt nearly so, share a word."""
    words = [word for word in tag.split("-") if word]
    holding = [name for name in tags if tag in name or all(word in name for word in words)]
    near = difflib.get_close_matches(tag, tags, n=most, cutoff=0.5)
    found = dict.fromkeys([*sorted(holding), *near])
    return list(found or sorted(name for name in tags if set(words) & set(name.split("-"))))[:most]


def read_payload(source: ImageSource) -> Payload:
    """The image references of an open payload. Raises ImageError, DigestError, TransportError."""
    for layer in reversed(source.manifest.layers):
        with source.open_layer(layer) as stream:
            limited = _Limited(decompress(stream, layer.media_type))
            found, hidden = _search(TarReader(limited))
        if found is not None:
            return parse_payload(found)
        if hidden:
            break
    raise ImageError(
        f"the image {source.manifest_digest} is not a release payload",
        hint=f"it has no {PATH.decode()}",
    )


class _Limited:
    """A layer's tar, up to a size."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._left = stream, MAX_LAYER_BYTES

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ImageError(f"a layer of the payload is larger than {MAX_LAYER_BYTES} bytes")
        return data


def _search(tar: TarReader) -> tuple[bytes | None, bool]:
    """The file's bytes when a layer holds it, and whether the layer hides what is below."""
    found, hidden = None, False
    for count, entry in enumerate(tar):
        if count == MAX_ENTRIES:
            raise ImageError(f"a layer of the payload has more than {MAX_ENTRIES} entries")
        path = b"/".join(part for part in entry.path.split(b"/") if part not in (b"", b"."))
        if path == PATH:
            if entry.type != FILE:
                raise ImageError(f"{PATH.decode()} of the payload is not a file")
            found = tar.read_all(MAX_BYTES)
        elif path in _HIDES or (path == FOLDER and entry.type != DIRECTORY):
            hidden = True
    return found, hidden


def parse_payload(data: bytes) -> Payload:
    """Read an `image-references` document. Raises ImageError that names the place."""
    at = "image-references"
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{at} is not JSON: {error}") from error
    kind = (_member(document, "kind", str, at), _member(document, "apiVersion", str, at))
    if kind != ("ImageStream", "image.openshift.io/v1"):
        raise ImageError(f"{at} is a {kind[0]} of {kind[1]}, not an ImageStream")
    name = _member(_member(document, "metadata", dict, at), "name", str, f"{at}: metadata")
    rows = _member(_member(document, "spec", dict, at), "tags", list, f"{at}: spec")
    if len(rows) > MAX_TAGS:
        raise ImageError(f"{at} has {len(rows)} tags; more than {MAX_TAGS}")
    tags: dict[str, ImageReference] = {}
    for position, row in enumerate(rows):
        where = f"{at}: spec.tags[{position}]"
        tag = _member(row, "name", str, where)
        if tag in tags:
            raise ImageError(f"{where}: {tag} is there twice")
        tags[tag] = _image(_member(row, "from", dict, where), f"{where}.from")
    return Payload(name, tags)


def _image(origin: dict[str, object], where: str) -> ImageReference:
    kind = _member(origin, "kind", str, where)
    if kind != "DockerImage":
        raise ImageError(f"{where} is a {kind}, not a DockerImage")
    name = _member(origin, "name", str, where)
    try:
        reference = ImageReference.parse(f"registry:{name}")
    except UsageError as error:
        raise ImageError(f"{where}: {error.message}") from error
    if reference.digest is None:
        raise ImageError(f"{where}: {name} is not named by a digest")
    return reference


def _member(value: object, key: str, kind: type, where: str) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise ImageError(f"{where}: {key} is missing or of the wrong type")
    return found
