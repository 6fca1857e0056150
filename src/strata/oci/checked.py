"""A blob's bytes, counted and hashed while they are read, and held against its descriptor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from strata.core.errors import DigestError, ImageError, ObjectError
from strata.core.streams import Readable
from strata.oci.digest import Digest
from strata.oci.model import Descriptor


class Checked:
    """Reads a blob. where: the image, for the error."""

    def __init__(self, stream: Readable, blob: Descriptor, where: str) -> None:
        self._stream, self._blob, self._where = stream, blob, where
        self._hash, self._size = hashlib.sha256(), 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        data = self._stream.read(size)
        self._hash.update(data)
        self._size += len(data)
        return data

    @contextmanager
    def reading(self) -> Iterator[Readable]:
        """Read within the block; at its end, what is left is read too and all of it checked."""
        try:
            yield self
        except (DigestError, ImageError, ObjectError):
            self.finish()  # bytes that are damaged are the reason of what they do not hold
            raise
        self.finish()

    def finish(self) -> None:
        """Read to the end. Raises DigestError when the bytes are not the blob's."""
        while self.read(1 << 20):
            pass
        actual = Digest(self._hash.hexdigest())
        if actual != self._blob.digest or self._size != self._blob.size_bytes:
            raise DigestError(
                f"{self._where}: layer {self._blob.digest} is damaged",
                hint="copy the image again from where it came",
                context={"expected": self._blob.digest, "actual": actual},
            )
