"""What the rooms that read bytes agree on."""

from __future__ import annotations

from typing import Protocol


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""


class Closable(Readable, Protocol):
    """Something to read bytes from, and to close."""

    def close(self) -> None:
        """Let go of it."""


class Writable(Protocol):
    """Something to write bytes to."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""
