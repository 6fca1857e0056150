"""`oci-archive:FILE`: a layout in one tar, read where its blobs lie and written the same each time.

Reading: one pass over the headers notes where each blob begins; blobs are then read by offset, from
any thread, and nothing is unpacked. Of a name that is there twice the last counts, as when it is
unpacked. What is neither `index.json`, `oci-layout` nor a blob is passed over.

Writing: `oci-layout`, `index.json`, then blobs by digest; time 0, no owners. The same image gives
the same bytes.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from strata.core.errors import ImageError
from strata.core.files import fsync_dir
from strata.core.process import os_error
from strata.core.streams import Readable
from strata.oci.checked import Checked
from strata.oci.digest import Digest
from strata.oci.indexes import blobs_of
from strata.oci.layout import REF_NAME, VERSION, LayoutReader
from strata.oci.model import MAX_DOCUMENT_BYTES, Descriptor, Index
from strata.oci.tar import BLOCK, DIRECTORY, FILE, TarEntry, TarReader, TarWriter

MAX_ENTRIES = 100_000
_MEMBER = re.compile(rb"(?:\./)*(oci-layout|index\.json|blobs/sha256/([0-9a-f]{64}))")
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
_PIECE = 4 << 10


class _At:
    """A file's bytes from an offset on, read by offset: any number of these share one file."""

    def __init__(self, fd: int, offset: int, end: int, piece: int = 1 << 20) -> None:
        self._fd, self._offset, self._end, self._piece = fd, offset, end, piece

    def read(self, size: int = -1, /) -> bytes:
        limit = self._piece if size < 0 else min(size, self._piece)
        data = os.pread(self._fd, min(limit, self._end - self._offset), self._offset)
        self._offset += len(data)
        return data


class Archive(LayoutReader):
    """A layout in a tar. Use as a context manager.

    Raises ImageError on what is not one, and on one that is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.where, self.scheme = str(path), "oci-archive"
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise ImageError(f"{path} cannot be read: it is not a file")
            self._members = _members(self._fd, self.where)
            if b"oci-layout" not in self._members or b"index.json" not in self._members:
                raise ImageError(
                    f"{path} does not hold an OCI layout", hint="it has no oci-layout file"
                )
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def entries(self) -> tuple[Descriptor, ...]:
        """What index.json names, with or without a tag."""
        offset, size = self._members[b"index.json"]
        if size > MAX_DOCUMENT_BYTES:
            raise ImageError(f"index.json of {self.where} has {size} bytes")
        return Index.parse(_At(self._fd, offset, offset + size, size).read()).manifests

    def has(self, digest: Digest) -> bool:
        """Whether a blob is there."""
        return _name(digest) in self._members

    @contextmanager
    def open_blob(self, digest: Digest) -> Iterator[Readable]:
        """A blob's bytes, unchecked. Raises ImageError when it is missing."""
        found = self._members.get(_name(digest))
        if found is None:
            raise ImageError(f"the archive {self.where} has no blob {digest}")
        offset, size = found
        yield _At(self._fd, offset, offset + size)


def _name(digest: Digest) -> bytes:
    return f"blobs/sha256/{digest.hex}".encode()


def _members(fd: int, where: str) -> dict[bytes, tuple[int, int]]:
    """From the name of each file of the layout to its offset and size in bytes."""
    end = os.fstat(fd).st_size
    if os.pread(fd, 6, 0).startswith(_COMPRESSED):
        raise ImageError(
            f"{where} is compressed; blobs are read from a plain tar",
            hint="uncompress it: an image's layers are compressed already",
        )
    members: dict[bytes, tuple[int, int]] = {}
    offset = 0
    for _ in range(MAX_ENTRIES):
        block = os.pread(fd, BLOCK, offset)
        if offset and block in (b"", bytes(BLOCK)):
            return members
        tar = TarReader(_At(fd, offset, end, _PIECE))
        try:
            entry = next(iter(tar), None)
        except ImageError as error:
            raise ImageError(f"{where} is not an archive of an image: {error.message}") from error
        if entry is None:
            raise ImageError(f"{where} is not an archive of an image: it is empty")
        offset += tar.consumed_bytes
        if offset + entry.size_bytes > end:
            raise ImageError(f"{where} is cut off: it ends within {entry.path!r}")
        match = _MEMBER.fullmatch(entry.path)
        if match:
            if entry.type != FILE:
                raise ImageError(f"{where}: {entry.path!r} is not a file")
            members[match[1]] = (offset, entry.size_bytes)
        offset += entry.size_bytes + -entry.size_bytes % BLOCK
    raise ImageError(f"{where} has more than {MAX_ENTRIES} entries")


def write_archive(path: Path, source: LayoutReader, image: Descriptor, tag: str = "") -> None:
    """Write an image (or an index and all its images) as an archive, whole or not at all.

    Raises ImageError, DigestError, NoSpaceError.
    """
    blobs = sorted(blobs_of(source, image), key=lambda blob: blob.digest)
    annotations = {key: text for key, text in image.annotations.items() if key != REF_NAME}
    if tag:
        annotations[REF_NAME] = tag
    entry = Descriptor(
        image.media_type, image.digest, image.size_bytes, annotations, image.platform
    )
    documents = ((b"oci-layout", VERSION), (b"index.json", Index((entry,)).to_bytes()))
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
    try:
        with os.fdopen(fd, "wb", buffering=1 << 20) as stream:
            tar = TarWriter(stream)
            for member, data in documents:
                tar.entry(TarEntry(member, FILE, 0o644, size_bytes=len(data)), data)
            for folder in (b"blobs/", b"blobs/sha256/"):
                tar.entry(TarEntry(folder, DIRECTORY, 0o755))
            for blob in blobs:
                tar.entry(TarEntry(_name(blob.digest), FILE, 0o644, size_bytes=blob.size_bytes))
                _copy_blob(source, blob, tar)
            tar.finish()
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.rename(name, path)
        fsync_dir(path.parent)
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
    finally:
        if os.path.exists(name):
            os.unlink(name)


def _copy_blob(source: LayoutReader, blob: Descriptor, tar: TarWriter) -> None:
    opened = source.open_blob(blob.digest)
    with opened as stream, Checked(stream, blob, source.where).reading() as checked:
        left = blob.size_bytes
        while left:
            data = checked.read(min(left, 1 << 20))
            if not data:
                break  # too short, as the check at the block's end says
            tar.body(data)
            left -= len(data)
    tar.pad(blob.size_bytes)
