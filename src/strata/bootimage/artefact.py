"""What a boot image consists of, ready for stream metadata, and how it lies in the store.

In the store a boot image is an OCI artifact: one layer a file, under its name, so that tags,
records, verification and copies work as they do for images.
Source: the OCI image specification, "Guidelines for Artifact Usage"; coreos stream metadata.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.container.compress import Gzip
from strata.core.files import remove_tree
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import MANIFEST, Descriptor, Manifest

ARTIFACT_TYPE = "application/vnd.strata.bootimage.v1"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_FILE_TYPE = "application/octet-stream"
_GZIP_TYPE = "application/gzip"
TITLE = "org.opencontainers.image.title"
_UNCOMPRESSED = "strata.uncompressed"
_GZIP_LEVEL = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Made:
    """A file that was made. role: what it is in its format: disk, kernel, initramfs, rootfs.

    compress: it goes into the store as gzip.
    """

    role: str
    name: str
    path: Path
    compress: bool = False


@dataclass(frozen=True)
class Artefact:
    """A file of a boot image, as stream metadata names it.

    sha256, size_bytes: of the file as it is stored; uncompressed: of what is in it, equal to the
    former when it is not compressed.
    """

    role: str
    name: str
    sha256: str
    size_bytes: int
    uncompressed_sha256: str
    uncompressed_bytes: int

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "role": self.role,
            "file": self.name,
            "sha256": self.sha256,
            "size": self.size_bytes,
            "uncompressed-sha256": self.uncompressed_sha256,
            "uncompressed-size": self.uncompressed_bytes,
        }

    @staticmethod
    def from_json(value: dict[str, object]) -> Artefact:
        """From a record's outputs."""
        return Artefact(
            str(value["role"]),
            str(value["file"]),
            str(value["sha256"]),
            int(str(value["size"])),
            str(value["uncompressed-sha256"]),
            int(str(value["uncompressed-size"])),
        )

    @property
    def digest(self) -> Digest:
        """Its blob in the store."""
        return Digest(self.sha256)

    @property
    def compressed(self) -> bool:
        """Whether it lies in the store as gzip."""
        return self.sha256 != self.uncompressed_sha256


def store_file(layout: Layout, made: Made) -> Artefact:
    """Put a file into the store. Raises NoSpaceError, StrataError."""
    plain = hashlib.sha256()
    with open(made.path, "rb", buffering=0) as reader, layout.blob_writer() as blob:
        packer = Gzip(blob, _GZIP_LEVEL) if made.compress else None
        while data := reader.read(_CHUNK):
            plain.update(data)
            (packer or blob).write(data)
        if packer:
            packer.finish()
    name = made.name + (".gz" if made.compress else "")
    size = made.path.stat().st_size
    return Artefact(made.role, name, blob.digest.hex, blob.size_bytes, plain.hexdigest(), size)


def store_artifact(
    layout: Layout, artefacts: Sequence[Artefact], annotations: dict[str, str]
) -> Descriptor:
    """Write the manifest that names the files; returns its descriptor."""
    layers = tuple(
        Descriptor(
            _GZIP_TYPE if item.compressed else _FILE_TYPE,
            item.digest,
            item.size_bytes,
            {TITLE: item.name, _UNCOMPRESSED: f"sha256:{item.uncompressed_sha256}"},
        )
        for item in artefacts
    )
    config = layout.add(b"{}", _EMPTY_TYPE)
    manifest = Manifest(config, layers, annotations, {"artifactType": ARTIFACT_TYPE})
    return layout.add(manifest.to_bytes(), MANIFEST)


def show_files(layout: Layout, artefacts: Sequence[Artefact], folder: Path) -> None:
    """Links to stored files under their own names, in a folder that has nothing else then."""
    remove_tree(folder)
    folder.mkdir(parents=True)
    for item in artefacts:
        (folder / item.name).symlink_to(os.path.relpath(layout.blob_path(item.digest), folder))
