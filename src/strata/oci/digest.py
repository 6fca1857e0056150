"""Digests: which bytes exactly. https://github.com/opencontainers/image-spec/blob/main/descriptor.md"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from strata.core.errors import ImageError

_FORM = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, order=True)
class Digest:
    """A sha256 digest, `sha256:` and 64 hex digits as text."""

    hex: str

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @staticmethod
    def parse(text: str) -> Digest:
        """Read `sha256:…`. Raises ImageError on anything else."""
        match = _FORM.fullmatch(text)
        if not match:
            raise ImageError(f"{text!r} is not a sha256 digest")
        return Digest(match[1])

    @staticmethod
    def of(data: bytes) -> Digest:
        """The digest of some bytes."""
        return Digest(hashlib.sha256(data).hexdigest())
