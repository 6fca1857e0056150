"""Descriptors, manifests, indexes and image configurations: JSON in, values out, and back.

Reading is strict and bounded: a document that is too large, too deep or of the wrong shape is an
ImageError that names the place. Writing is canonical (sorted keys), so equal values give equal
digests. Docker's schema 2 documents are read as their OCI equivalents. Keys that nothing here acts
on are kept in `rest`, as they are, and written again: a foreign image loses nothing on its way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from strata.core.errors import ImageError
from strata.core.files import canonical_json
from strata.oci.digest import Digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_INDEX)

MAX_DOCUMENT_BYTES = 16 << 20
MAX_LAYERS = 1024
MAX_SIZE_BYTES = 1 << 53

Rest = Mapping[str, Any]

_GOARCH = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}


def goarch(machine: str) -> str:
    """An architecture as images name it, from rpm's and uname's name."""
    return _GOARCH.get(machine, machine)


@dataclass(frozen=True)
class Platform:
    """What an image runs on. variant: of the architecture, as `v7` of arm; may be empty."""

    os: str
    architecture: str
    variant: str = ""
    rest: Rest = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.os}/{self.machine}"

    @property
    def machine(self) -> str:
        """The architecture with its variant: `arm/v7`."""
        return f"{self.architecture}/{self.variant}" if self.variant else self.architecture

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        names = {"os": self.os, "architecture": self.architecture}
        return {**self.rest, **names, **_present(variant=self.variant)}


@dataclass(frozen=True)
class Descriptor:
    """A pointer to a blob: its type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    rest: Rest = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        document: dict[str, object] = {
            **self.rest,
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size_bytes,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform:
            document["platform"] = self.platform.to_json()
        return document


@dataclass(frozen=True)
class Manifest:
    """An image: its configuration and its layers, first the lowest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    rest: Rest = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        document: dict[str, object] = {
            **self.rest,
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return canonical_json(document)

    @staticmethod
    def parse(data: bytes) -> Manifest:
        """Read a manifest. Raises ImageError."""
        document = _Object.load(data, "the manifest")
        layers = tuple(_descriptor(item) for item in document.objects("layers"))
        if len(layers) > MAX_LAYERS:
            raise ImageError(f"the manifest has {len(layers)} layers; more than {MAX_LAYERS}")
        config = _descriptor(document.object("config"))
        rest = document.without("schemaVersion", "mediaType", "config", "layers", "annotations")
        return Manifest(config, layers, document.texts("annotations"), rest)


@dataclass(frozen=True)
class Index:
    """Manifests by platform, or a layout's list of tags."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    rest: Rest = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        document: dict[str, object] = {
            **self.rest,
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return canonical_json(document)

    @staticmethod
    def parse(data: bytes) -> Index:
        """Read an index. Raises ImageError."""
        document = _Object.load(data, "the index")
        manifests = tuple(_descriptor(item) for item in document.objects("manifests"))
        rest = document.without("schemaVersion", "mediaType", "manifests", "annotations")
        return Index(manifests, document.texts("annotations"), rest)


@dataclass(frozen=True)
class History:
    """How a layer came to be. rest: empty_layer, author, comment."""

    created: str
    created_by: str
    rest: Rest = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {**self.rest, **_present(created=self.created, created_by=self.created_by)}


@dataclass(frozen=True)
class ImageConfig:
    """An image configuration. config: the inner object (Labels, Cmd…), kept as it is.

    created: RFC 3339, or empty. diff_ids: digests of the uncompressed layers, first the lowest.
    rest: variant, os.version, author and whatever else a tool wrote there.
    """

    architecture: str
    os: str
    created: str
    config: Mapping[str, Any]
    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...] = ()
    variant: str = ""
    rest: Rest = field(default_factory=dict)

    @property
    def platform(self) -> Platform:
        """What the image runs on, as an index says it."""
        return Platform(self.os, self.architecture, self.variant)

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels."""
        labels = self.config.get("Labels") or {}
        return {str(key): str(value) for key, value in labels.items()}

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        document: dict[str, object] = {
            **self.rest,
            "architecture": self.architecture,
            "os": self.os,
            "config": dict(self.config),
            "rootfs": {"type": "layers", "diff_ids": [str(item) for item in self.diff_ids]},
            "history": [item.to_json() for item in self.history],
            **_present(created=self.created, variant=self.variant),
        }
        return canonical_json(document)

    @staticmethod
    def parse(data: bytes) -> ImageConfig:
        """Read a configuration. Raises ImageError."""
        document = _Object.load(data, "the image configuration")
        rootfs = document.object("rootfs")
        diff_ids = rootfs.get("diff_ids", list)
        inner = document.value.get("config")
        if inner is not None and not isinstance(inner, dict):
            raise ImageError("the image configuration's config is not an object")
        labels = (inner or {}).get("Labels")
        if labels is not None and not isinstance(labels, dict):
            raise ImageError("the image configuration's Labels are not an object")
        history = []
        for item in document.objects("history") if document.value.get("history") else ():
            more = item.without("created", "created_by")
            history.append(History(item.text("created"), item.text("created_by"), more))
        return ImageConfig(
            document.text("architecture"),
            document.text("os"),
            document.text("created"),
            inner or {},
            tuple(Digest.parse(str(item)) for item in diff_ids),
            tuple(history),
            document.text("variant"),
            document.without(
                "architecture", "os", "created", "config", "rootfs", "history", "variant"
            ),
        )


def _present(**texts: str) -> dict[str, str]:
    """The texts that are not empty: an absent key stays absent."""
    return {key: text for key, text in texts.items() if text}


def load_json(data: bytes) -> object:
    """JSON of which any part can be written again: no NaN or endless numbers, no halves of
    surrogate pairs. Raises ValueError, RecursionError."""
    value = json.loads(data, parse_constant=_no_number, parse_float=_float)
    if b"\\u" in data:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


class _Object:
    """A JSON object read by key and type; errors say where."""

    def __init__(self, value: object, at: str) -> None:
        if not isinstance(value, dict):
            raise ImageError(f"{at} is not an object")
        self.value: dict[str, Any] = value
        self.at = at

    @staticmethod
    def load(data: bytes, what: str) -> _Object:
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ImageError(f"{what} is larger than {MAX_DOCUMENT_BYTES} bytes")
        try:
            return _Object(load_json(data), what)
        except (ValueError, RecursionError) as error:
            raise ImageError(f"{what} is not JSON: {error}") from error

    def get(self, key: str, kind: type) -> Any:
        value = self.value.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ImageError(f"{self.at}: {key} is missing or of the wrong type")
        return value

    def text(self, key: str) -> str:
        """A text, empty when absent."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, str):
            raise ImageError(f"{self.at}: {key} is not text")
        return value or ""

    def texts(self, key: str) -> dict[str, str]:
        """A mapping of texts, empty when absent."""
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise ImageError(f"{self.at}: {key} is not a mapping of texts")
        return value

    def without(self, *keys: str) -> dict[str, Any]:
        """What else the object holds."""
        return {key: value for key, value in self.value.items() if key not in keys}

    def object(self, key: str) -> _Object:
        return _Object(self.value.get(key), f"{self.at}: {key}")

    def objects(self, key: str) -> list[_Object]:
        items = self.get(key, list)
        return [_Object(item, f"{self.at}: {key}[{at}]") for at, item in enumerate(items)]


def _descriptor(item: _Object) -> Descriptor:
    size = item.get("size", int)
    if not 0 <= size <= MAX_SIZE_BYTES:
        raise ImageError(f"{item.at}: size is {size}")
    platform = None
    if item.value.get("platform") is not None:
        inner = item.object("platform")
        platform = Platform(
            inner.text("os"),
            inner.text("architecture"),
            inner.text("variant"),
            inner.without("os", "architecture", "variant"),
        )
    return Descriptor(
        item.text("mediaType"),
        Digest.parse(item.text("digest")),
        size,
        item.texts("annotations"),
        platform,
        item.without("mediaType", "digest", "size", "annotations", "platform"),
    )
