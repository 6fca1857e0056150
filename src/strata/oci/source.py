"""Opening an image wherever it is: its manifest, its configuration, its layers as streams.

A source gives the manifest for one architecture. Layers are given compressed, checked against
their digest and size when they were read to the end; several may be open at once, from threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from strata.core.errors import (
    ArchitectureError,
    DigestError,
    SignatureError,
    TransportError,
    UsageError,
)
from strata.core.files import scratch_dir
from strata.core.streams import Readable
from strata.oci import skopeo
from strata.oci.archive import Archive
from strata.oci.checked import Checked
from strata.oci.digest import Digest
from strata.oci.indexes import choose_manifest, runs_on, wanted_platform
from strata.oci.layout import Layout, LayoutReader
from strata.oci.model import Descriptor, ImageConfig, Manifest, Platform
from strata.oci.policy import require_policy
from strata.oci.reference import (
    BY_POLICY,
    BY_REMOTE,
    LAYOUTS,
    ImageReference,
    SignaturePolicy,
)

_STORES = ("containers-storage", "docker-daemon")
_UNVERIFIED = SignaturePolicy()


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


class _LayoutSource:
    """An image in a layout directory."""

    def __init__(self, layout: LayoutReader, descriptor: Descriptor, where: str) -> None:
        self._layout, self._where = layout, where
        self.manifest_bytes = layout.read(descriptor)
        self.manifest_digest = descriptor.digest
        self.manifest = Manifest.parse(self.manifest_bytes)
        self.config_bytes = layout.read(self.manifest.config)
        self.config = ImageConfig.parse(self.config_bytes)

    @contextmanager
    def open_layer(self, layer: Descriptor) -> Iterator[Readable]:
        blob = self._layout.open_blob(layer.digest)
        with blob as stream, Checked(stream, layer, self._where).reading() as checked:
            yield checked


class _ProxySource:
    """An image through skopeo's proxy; each open layer has a process of its own.

    The stores of other tools hold layers uncompressed, under digests of their own; the manifest
    is then given with the layers as they are there.
    """

    def __init__(self, reference: ImageReference, options: skopeo.Options) -> None:
        self._reference, self._options = reference, options
        with skopeo.Proxy(name_for_skopeo(reference), options) as proxy:
            self.manifest_digest, self.manifest_bytes = proxy.manifest()
            self.config_bytes = proxy.config()
            self.manifest = Manifest.parse(self.manifest_bytes)
            if reference.transport in _STORES:
                stored = tuple(proxy.layers())
                if len(stored) != len(self.manifest.layers):
                    raise TransportError(f"skopeo names {len(stored)} layers of {reference}")
                self.manifest = replace(self.manifest, layers=stored)
                self.manifest_bytes = self.manifest.to_bytes()
        self.config = ImageConfig.parse(self.config_bytes)

    @contextmanager
    def open_layer(self, layer: Descriptor) -> Iterator[Readable]:
        pinned = self._reference
        if pinned.transport == "docker":
            # By digest: the tag may have moved since the manifest was read.
            pinned = pinned.at(self.manifest_digest)
        where = str(self._reference)
        with skopeo.Proxy(str(pinned), self._options) as proxy:
            blob = proxy.blob(layer.digest, layer.size_bytes)
            with blob as pipe, Checked(pipe, layer, where).reading() as checked:
                yield checked


@contextmanager
def open_source(
    reference: ImageReference,
    *,
    architecture: str,
    signature: SignaturePolicy = _UNVERIFIED,
) -> Iterator[ImageSource]:
    """Open an image. architecture: as uname and rpm name it, or as images do (`arm/v7`).

    signature: who has to have signed it. Raises ImageError, ArchitectureError, TransportError,
    DigestError, SignatureError.
    """
    options = skopeo_options(signature, architecture)
    source: ImageSource
    if _through_proxy(reference, options):
        source = _ProxySource(reference, options)
        _check_digest(reference, source)
        _check_architecture(reference, source, architecture)
        yield source
        return
    with open_layout(reference, options) as (layout, found):
        chosen = choose_manifest(layout, found, architecture)
        source = _LayoutSource(layout, chosen, str(reference))
        _check_architecture(reference, source, architecture)
        yield source


def skopeo_options(signature: SignaturePolicy, architecture: str) -> skopeo.Options:
    """What skopeo has to enforce and choose. Raises SignatureError when nothing is enforced."""
    if signature.source == BY_REMOTE:
        raise SignatureError(
            f"the keys of the OSTree remote {signature.remote} sign commits, not images",
            hint=f"only an import asks for them; here, use {BY_POLICY}: and a policy.json",
        )
    policy = require_policy(os.environ) if signature.source == BY_POLICY else None
    name, variants = wanted_platform(architecture)
    return skopeo.Options(policy, name, variants[0])


def _through_proxy(reference: ImageReference, options: skopeo.Options) -> bool:
    if reference.transport not in ("docker", "dir", *_STORES):
        return False
    # Older proxies do not hold images against the policy; `skopeo copy` always did.
    if options.policy and skopeo.protocol() < skopeo.ENFORCES_POLICY:
        return False
    # Nor do they give the layers of other tools' stores.
    return reference.transport not in _STORES or skopeo.protocol() >= skopeo.LAYER_INFO


@contextmanager
def open_layout(
    reference: ImageReference, options: skopeo.Options, *arguments: str
) -> Iterator[tuple[LayoutReader, Descriptor]]:
    """An image in a layout or archive; from anywhere else, in a temporary copy that skopeo makes.

    So is one that a policy has to allow: skopeo is who knows. arguments: of that `skopeo copy`. The
    copy is in $TMPDIR or /var/tmp and gone after the block.
    """
    if options.policy and reference.transport in LAYOUTS and reference.digest:
        raise UsageError(
            f"{reference} cannot be held against a signature policy by its digest",
            hint="name it by a tag",
        )
    if reference.transport == "oci" and not options.policy:
        layout = Layout.open(Path(reference.name))
        yield layout, layout.resolve(reference.tag, reference.digest)
    elif reference.transport == "oci-archive" and not options.policy:
        with Archive(Path(reference.name)) as archive:
            yield archive, archive.resolve(reference.tag, reference.digest)
    else:
        with scratch_dir(temporary_folder(), "strata-copy") as folder:
            # Compressed on the way: told to keep them plain, skopeo 1.9 still calls layers gzip.
            copied = f"oci:{folder}:image"
            skopeo.copy(name_for_skopeo(reference), copied, *arguments, options=options)
            layout = Layout.open(folder)
            yield layout, layout.resolve("image")


def name_for_skopeo(reference: ImageReference) -> str:
    """A reference as skopeo takes it: without a tag beside a digest."""
    if reference.transport == "docker" and reference.digest:
        return str(reference.at(reference.digest))
    return str(reference)


def temporary_folder() -> Path:
    """Where copies of images go for a while: on a disk, as containers' tools do."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")


def _check_digest(reference: ImageReference, source: ImageSource) -> None:
    # A digest may name an index: skopeo has then checked it, and the manifest is one of its own.
    if reference.digest is None or source.manifest_digest == reference.digest:
        return
    raw = skopeo.inspect_raw(name_for_skopeo(reference))
    if Digest.of(raw) != reference.digest:
        raise DigestError(
            f"{reference} is another image than its digest says",
            context={"expected": reference.digest, "actual": source.manifest_digest},
        )


def _check_architecture(reference: ImageReference, source: ImageSource, architecture: str) -> None:
    if not runs_on(source.config.platform, architecture):
        name, variants = wanted_platform(architecture)
        raise ArchitectureError(
            f"{reference} is for {source.config.platform.machine or 'no architecture'}, "
            f"not for {Platform('', name, variants[0]).machine}",
            hint="name an image of this machine's architecture",
        )
