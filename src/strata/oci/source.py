"""Opening an image wherever it is: its manifest, its configuration, its layers as streams.

A source gives the manifest for one architecture. Layers are given compressed, checked against
their digest and size when they were read to the end; several may be open at once, from threads.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from strata.core.errors import ArchitectureError, DigestError, ImageError, ObjectError
from strata.oci import skopeo
from strata.oci.compression import Readable
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import INDEXES, Descriptor, ImageConfig, Index, Manifest, goarch
from strata.oci.reference import ImageReference


class ImageSource(Protocol):
    """An image that is open."""

    manifest: Manifest
    manifest_bytes: bytes
    manifest_digest: Digest
    config: ImageConfig
    config_bytes: bytes

    def open_layer(self, layer: Descriptor) -> AbstractContextManager[Readable]:
        """A layer's compressed bytes. Raises DigestError, TransportError at the latest at the end
        of the block."""


class _Checked:
    """Counts and hashes what is read, and holds it against the descriptor at the end."""

    def __init__(self, stream: Readable, layer: Descriptor, where: str) -> None:
        self._stream, self._layer, self._where = stream, layer, where
        self._hash, self._size = hashlib.sha256(), 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self._size += len(data)
        return data

    @contextmanager
    def reading(self) -> Iterator[Readable]:
        try:
            yield self
        except (DigestError, ImageError, ObjectError):
            self.finish()  # bytes that are damaged are the reason of what they do not hold
            raise
        self.finish()

    def finish(self) -> None:
        while self.read(1 << 20):
            pass
        actual = Digest(self._hash.hexdigest())
        if actual != self._layer.digest or self._size != self._layer.size_bytes:
            raise DigestError(
                f"{self._where}: layer {self._layer.digest} is damaged",
                hint="copy the image again from where it came",
                context={"expected": self._layer.digest, "actual": actual},
            )


class _LayoutSource:
    """An image in a layout directory."""

    def __init__(self, layout: Layout, descriptor: Descriptor, where: str) -> None:
        self._layout, self._where = layout, where
        self.manifest_bytes = layout.read(descriptor)
        self.manifest_digest = descriptor.digest
        self.manifest = Manifest.parse(self.manifest_bytes)
        self.config_bytes = layout.read(self.manifest.config)
        self.config = ImageConfig.parse(self.config_bytes)

    @contextmanager
    def open_layer(self, layer: Descriptor) -> Iterator[Readable]:
        blob = self._layout.open_blob(layer.digest)
        with blob as stream, _Checked(stream, layer, self._where).reading() as checked:
            yield checked


class _ProxySource:
    """An image in a registry, through skopeo's proxy; each open layer has a process of its own."""

    def __init__(self, reference: ImageReference) -> None:
        self._reference = reference
        with skopeo.Proxy(str(reference)) as proxy:
            self.manifest_digest, self.manifest_bytes = proxy.manifest()
            self.config_bytes = proxy.config()
        self.manifest = Manifest.parse(self.manifest_bytes)
        self.config = ImageConfig.parse(self.config_bytes)

    @contextmanager
    def open_layer(self, layer: Descriptor) -> Iterator[Readable]:
        # By digest: the tag may have moved since the manifest was read.
        pinned = self._reference.at(self.manifest_digest)
        where = str(self._reference)
        with skopeo.Proxy(str(pinned)) as proxy:
            blob = proxy.blob(layer.digest, layer.size_bytes)
            with blob as pipe, _Checked(pipe, layer, where).reading() as checked:
                yield checked


def choose_manifest(layout: Layout, descriptor: Descriptor, architecture: str) -> Descriptor:
    """The manifest for an architecture behind a manifest's or index's descriptor.

    Raises ArchitectureError naming the architectures that are there.
    """
    wanted = goarch(architecture)
    for _ in range(4):
        if descriptor.media_type not in INDEXES:
            return descriptor
        entries = Index.parse(layout.read(descriptor)).manifests
        matching = [e for e in entries if e.platform and e.platform.architecture == wanted]
        if not matching:
            there = sorted({e.platform.architecture for e in entries if e.platform})
            raise ArchitectureError(
                f"the image is for {', '.join(there) or 'no architecture'}, not for {wanted}",
                hint="name an image of this machine's architecture",
            )
        descriptor = matching[0]
    raise ImageError("an index holds indexes that hold indexes")


@contextmanager
def open_source(reference: ImageReference, *, architecture: str) -> Iterator[ImageSource]:
    """Open an image. architecture: as uname and rpm name it.

    Raises ImageError, ArchitectureError, TransportError, DigestError.
    """
    source: ImageSource
    if reference.transport == "docker":
        source = _ProxySource(reference)
        _check_digest(reference, source)
        _check_architecture(reference, source, architecture)
        yield source
    elif reference.transport == "oci":
        layout = Layout.open(Path(reference.name))
        found = layout.resolve(reference.tag, reference.digest)
        chosen = choose_manifest(layout, found, architecture)
        source = _LayoutSource(layout, chosen, str(reference))
        _check_architecture(reference, source, architecture)
        yield source
    else:
        # skopeo's proxy of before 0.2.5 does not give these stores' layers as they are.
        with tempfile.TemporaryDirectory(prefix="strata-copy.") as folder:
            skopeo.copy(str(reference), f"oci:{folder}:image")
            layout = Layout.open(Path(folder))
            chosen = choose_manifest(layout, layout.resolve("image"), architecture)
            source = _LayoutSource(layout, chosen, str(reference))
            _check_architecture(reference, source, architecture)
            yield source


def _check_digest(reference: ImageReference, source: ImageSource) -> None:
    # A digest may name an index: skopeo has then checked it, and the manifest is one of its own.
    if reference.digest is None or source.manifest_digest == reference.digest:
        return
    raw = skopeo.inspect_raw(str(reference))
    if Digest.of(raw) != reference.digest:
        raise DigestError(
            f"{reference} is another image than its digest says",
            context={"expected": reference.digest, "actual": source.manifest_digest},
        )


def _check_architecture(reference: ImageReference, source: ImageSource, architecture: str) -> None:
    wanted = goarch(architecture)
    if source.config.architecture != wanted:
        raise ArchitectureError(
            f"{reference} is for {source.config.architecture or 'no architecture'}, "
            f"not for {wanted}",
            hint="name an image of this machine's architecture",
        )
