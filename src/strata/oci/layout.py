"""OCI image layouts: blobs by digest, tags in index.json. The store is one.

Blobs appear whole under their digest or not at all; index.json is replaced atomically under a lock.
What reading needs is apart (`LayoutReader`): a layout may also lie in a tar (`oci/archive.py`).
https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from strata.core.errors import DigestError, ImageError
from strata.core.files import atomic_write, fsync_dir, locked
from strata.core.process import os_error
from strata.core.streams import Readable
from strata.oci.digest import Digest
from strata.oci.model import INDEX, MANIFEST, MAX_DOCUMENT_BYTES, Descriptor, Index

REF_NAME = "org.opencontainers.image.ref.name"
VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class BlobWriter:
    """A blob being written; its digest and size are known as it grows."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Append bytes."""
        self._hash.update(data)
        self._stream.write(data)
        self.size_bytes += len(data)
        return len(data)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest(self._hash.hexdigest())


class LayoutReader(ABC):
    """A layout that is read: its blobs, and what its tags point to.

    where: how errors name it. scheme: the transport its references begin with.
    """

    where: str
    scheme: str

    @abstractmethod
    def entries(self) -> tuple[Descriptor, ...]:
        """What index.json names, with or without a tag."""

    @abstractmethod
    def has(self, digest: Digest) -> bool:
        """Whether a blob is there."""

    @abstractmethod
    def open_blob(self, digest: Digest) -> AbstractContextManager[Readable]:
        """A blob's bytes, unchecked. Raises ImageError when it is missing."""

    def read(self, descriptor: Descriptor, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
        """A blob's bytes, checked. Raises ImageError, DigestError."""
        with self.open_blob(descriptor.digest) as stream:
            data = read_at_most(stream, max_bytes + 1)
        if len(data) > max_bytes:
            raise ImageError(f"blob {descriptor.digest} is larger than {max_bytes} bytes")
        actual = Digest.of(data)
        if actual != descriptor.digest:
            raise DigestError(
                f"blob {descriptor.digest} in {self.where} is damaged",
                hint="remove the file and build or copy the image again",
                context={"expected": descriptor.digest, "actual": actual},
            )
        return data

    def tags(self) -> dict[str, Descriptor]:
        """What each tag points to."""
        return {
            item.annotations[REF_NAME]: item
            for item in self.entries()
            if REF_NAME in item.annotations
        }

    def resolve(self, tag: str = "", digest: Digest | None = None) -> Descriptor:
        """What a tag points to, or a manifest by digest; without either, the only one there is.

        Raises ImageError naming the tags that exist.
        """
        entries = self.entries()
        if digest is not None:
            for item in entries:
                if item.digest == digest:
                    return item
            if self.has(digest):
                data = self.read(Descriptor("", digest, 0))
                return Descriptor(_media_type(data), digest, len(data))
            raise ImageError(f"the layout {self.where} has no image {digest}")
        if tag:
            tags = self.tags()
            if tag in tags:
                return tags[tag]
            known = ", ".join(sorted(tags)) or "none"
            raise ImageError(f"the layout {self.where} has no tag {tag}", hint=f"tags: {known}")
        if len(entries) == 1:
            return entries[0]
        known = ", ".join(sorted(self.tags())) or "none"
        raise ImageError(
            f"the layout {self.where} has {len(entries)} images; name one",
            hint=f"{self.scheme}:{self.where}:TAG, with one of: {known}",
        )


def read_at_most(stream: Readable, limit: int) -> bytes:
    """A stream's first `limit` bytes, or all of it when it is shorter."""
    parts, left = [], limit
    while left:
        data = stream.read(left)
        if not data:
            break
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


class Layout(LayoutReader):
    """A layout directory; it may hold other files beside the layout's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where, self.scheme = str(path), "oci"
        self._blobs = path / "blobs" / "sha256"

    @staticmethod
    def create(path: Path) -> Layout:
        """Make a layout, or open the one that is there."""
        layout = Layout(path)
        layout._blobs.mkdir(parents=True, exist_ok=True)
        if not (path / "oci-layout").exists():
            atomic_write(path / "oci-layout", VERSION)
        if not (path / "index.json").exists():
            atomic_write(path / "index.json", Index(()).to_bytes())
        return layout

    @staticmethod
    def open(path: Path) -> Layout:
        """Open a layout. Raises ImageError when there is none."""
        if not (path / "oci-layout").is_file() or not (path / "index.json").is_file():
            raise ImageError(f"{path} is not an OCI layout", hint="it has no oci-layout file")
        return Layout(path)

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob is or would be."""
        return self._blobs / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether a blob is there."""
        return self.blob_path(digest).is_file()

    def open_blob(self, digest: Digest) -> BinaryIO:
        """A blob's bytes, unchecked. Raises ImageError when it is missing."""
        try:
            # A pipe under a blob's name must not hold us.
            fd = os.open(self.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise ImageError(f"the layout {self.path} has no blob {digest}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(f"{self.blob_path(digest)} is not a file")
        return open(fd, "rb", buffering=0)

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Write a blob; returns its descriptor."""
        with self.blob_writer() as writer:
            writer.write(data)
        return Descriptor(media_type, writer.digest, writer.size_bytes)

    @contextmanager
    def blob_writer(self) -> Iterator[BlobWriter]:
        """Write a blob piece by piece; it appears under its digest when the block ends well."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".blob.", dir=self._blobs)
        try:
            with os.fdopen(fd, "wb", buffering=1 << 18) as stream:
                writer = BlobWriter(stream)
                yield writer
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
            if self.has(writer.digest):
                os.utime(self.blob_path(writer.digest))  # a prune spares what is young
            else:
                os.rename(name, self.blob_path(writer.digest))
                fsync_dir(self._blobs)
        except OSError as error:
            raise os_error(error, "writing a blob") from error
        finally:
            if os.path.exists(name):
                os.unlink(name)

    # --- tags ------------------------------------------------------------------------------

    def entries(self) -> tuple[Descriptor, ...]:
        """What index.json names, with or without a tag."""
        with open(self.path / "index.json", "rb") as stream:
            return Index.parse(stream.read(MAX_DOCUMENT_BYTES + 1)).manifests

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Point a tag to a manifest or an index."""
        with locked(self.path / ".index.lock", f"the layout {self.path}"):
            kept = [item for item in self.entries() if item.annotations.get(REF_NAME) != name]
            entry = Descriptor(
                descriptor.media_type,
                descriptor.digest,
                descriptor.size_bytes,
                {**descriptor.annotations, REF_NAME: name},
            )
            ordered = sorted([*kept, entry], key=lambda item: item.annotations.get(REF_NAME, ""))
            atomic_write(self.path / "index.json", Index(tuple(ordered)).to_bytes())

    def untag(self, name: str) -> None:
        """Forget a tag. Raises ImageError when there is none of that name."""
        with locked(self.path / ".index.lock", f"the layout {self.path}"):
            if name not in self.tags():
                known = ", ".join(sorted(self.tags())) or "none"
                raise ImageError(f"the layout {self.path} has no tag {name}", hint=f"tags: {known}")
            kept = [item for item in self.entries() if item.annotations.get(REF_NAME) != name]
            atomic_write(self.path / "index.json", Index(tuple(kept)).to_bytes())


def _media_type(data: bytes) -> str:
    return INDEX if b'"manifests"' in data else MANIFEST
