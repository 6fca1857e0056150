"""Copying images: from anywhere to anywhere by skopeo, digests kept; and into a layout.

Credentials, mirrors and certificates are skopeo's configuration. A daemon and a `docker-archive`
keep images in a form of their own, under other digests; everywhere else an image whose digest
would change is not copied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import DigestError, ImageError, UsageError
from strata.core.files import locked, scratch_dir
from strata.oci import skopeo
from strata.oci.archive import Archive, write_archive
from strata.oci.checked import Checked
from strata.oci.digest import Digest
from strata.oci.indexes import blobs_of, choose_manifest, describe, images_of
from strata.oci.layout import Layout, LayoutReader
from strata.oci.model import Descriptor, Index, Manifest
from strata.oci.reference import LAYOUTS, ImageReference, SignaturePolicy
from strata.oci.source import name_for_skopeo, open_layout, skopeo_options, temporary_folder

_CONVERTED = ("docker-daemon", "docker-archive")


@dataclass(frozen=True)
class Copied:
    """What a copy brought. digest: of the manifest or index; size_bytes: of its layers."""

    digest: Digest
    images: int
    layers: int
    size_bytes: int

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "digest": str(self.digest),
            "images": self.images,
            "layers": self.layers,
            "size": self.size_bytes,
        }


def copy_image(
    source: ImageReference,
    destination: ImageReference,
    *,
    architecture: str,
    every: bool = False,
    signature: SignaturePolicy,
) -> Copied:
    """Copy an image; of an index the one for an architecture, or the index and all its images.

    Raises UsageError, ImageError, TransportError, DigestError, SignatureError, NoSpaceError.
    """
    if destination.digest:
        raise UsageError(f"{destination} is named by a digest", hint="name the copy by a tag")
    options = skopeo_options(signature, architecture)
    keep = [] if destination.transport in _CONVERTED else ["--preserve-digests"]
    arguments = [*keep, *(["--all"] if every else [])]
    if destination.transport == "oci-archive":
        with open_layout(source, options, *arguments) as (layout, found):
            chosen = found if every else choose_manifest(layout, found, architecture)
            write_archive(Path(destination.name), layout, chosen, destination.tag)
            return _count(layout, chosen)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_dir(temporary_folder(), "strata-copy"))
        named = stack.enter_context(named_by_tag(source, folder))
        if destination.transport == "oci":
            layout = Layout.create(Path(destination.name))
            stack.enter_context(locked(layout.path / ".index.lock", f"the layout {layout.path}"))
        note = folder / "digest"
        arguments += ["--digestfile", str(note)]
        skopeo.copy(named, str(destination), *arguments, options=options)
        return _arrived(destination, Digest.parse(note.read_text().strip()))


@contextmanager
def named_by_tag(source: ImageReference, folder: Path) -> Iterator[str]:
    """A source as skopeo takes it, which knows no digests of layouts: a layout that names it.

    folder: empty, for that layout. Raises UsageError for an archive by digest, ImageError.
    """
    if source.transport not in LAYOUTS or not source.digest:
        yield name_for_skopeo(source)
        return
    if source.transport == "oci-archive":
        raise UsageError(f"{source} is named by a digest", hint="name it by its tag")
    layout = Layout.open(Path(source.name))
    found = layout.resolve(digest=source.digest)
    alias = folder / "named"
    alias.mkdir()
    os.symlink(os.path.abspath(layout.path / "blobs"), alias / "blobs")
    Layout.create(alias).tag("image", found)
    yield f"oci:{alias}:image"


def _arrived(destination: ImageReference, digest: Digest) -> Copied:
    """What is at the destination now, asked there. Raises DigestError when it is something else."""
    if destination.transport == "oci":
        layout = Layout.open(Path(destination.name))
        return _count(layout, layout.resolve(destination.tag))
    raw = skopeo.inspect_raw(str(destination))
    if destination.transport not in _CONVERTED and Digest.of(raw) != digest:
        raise DigestError(
            f"{destination} is another image than was copied there",
            hint="somebody else writes to the same name",
            context={"expected": digest, "actual": Digest.of(raw)},
        )
    manifests = [raw]
    if b'"manifests"' in raw and destination.transport == "docker":
        entries = Index.parse(raw).manifests
        manifests = [skopeo.inspect_raw(str(destination.at(e.digest))) for e in entries]
    layers = {
        layer.digest: layer.size_bytes
        for data in manifests
        for layer in Manifest.parse(data).layers
    }
    return Copied(digest, len(manifests), len(layers), sum(layers.values()))


def _count(layout: LayoutReader, image: Descriptor) -> Copied:
    images = list(images_of(layout, image))
    layers = {
        layer.digest: layer.size_bytes
        for entry in images
        for layer in Manifest.parse(layout.read(entry)).layers
    }
    return Copied(image.digest, len(images), len(layers), sum(layers.values()))


def bring(layout: Layout, reference: ImageReference) -> list[Descriptor]:
    """Have an image, or all images of an index, in a layout; returns them with their platforms.

    Raises ImageError, TransportError, DigestError.
    """
    with open_layout(reference, skopeo.Options(), "--all", "--preserve-digests") as (there, found):
        images = [describe(there, image) for image in images_of(there, found)]
        for image in images:
            for blob in blobs_of(there, image):
                if not layout.has(blob.digest):
                    _copy_blob(there, blob, layout)
    return images


def _copy_blob(source: LayoutReader, blob: Descriptor, layout: Layout) -> None:
    with layout.blob_writer() as writer:
        opened = source.open_blob(blob.digest)
        with opened as stream, Checked(stream, blob, source.where).reading() as checked:
            while True:
                data = checked.read(1 << 20)
                if not data:
                    break
                writer.write(data)


def read_index(reference: ImageReference) -> tuple[Digest, Index]:
    """An index and its digest, wherever it is. Raises ImageError when an image is there instead."""
    if reference.transport == "oci":
        layout = Layout.open(Path(reference.name))
        found = layout.resolve(reference.tag, reference.digest)
        data = layout.read(found)
    elif reference.transport == "oci-archive":
        with Archive(Path(reference.name)) as archive:
            data = archive.read(archive.resolve(reference.tag, reference.digest))
    else:
        data = skopeo.inspect_raw(name_for_skopeo(reference))
    if b'"manifests"' not in data:
        raise ImageError(
            f"{reference} is one image, not an index", hint="strata image inspect shows images"
        )
    return Digest.of(data), Index.parse(data)
