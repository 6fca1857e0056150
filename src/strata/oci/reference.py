"""Image references, as the ecosystem writes them: `docker://host/repo:tag`, `oci:DIR:tag`.

Source: containers-transports(5). A registry name may carry a tag, a digest or both; a layout's
reference carries a tag or `@sha256:…`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from strata.core.errors import UsageError
from strata.oci.digest import Digest

_TRANSPORTS = ("docker", "oci", "oci-archive", "containers-storage", "docker-daemon", "dir")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class ImageReference:
    """Where an image is. name: a registry's name or a path; tag or digest may be empty."""

    transport: str
    name: str
    tag: str = ""
    digest: Digest | None = None

    @staticmethod
    def parse(text: str) -> ImageReference:
        """Read a reference. Raises UsageError that says what is wrong with it."""
        transport, colon, rest = text.partition(":")
        if not colon or transport not in _TRANSPORTS:
            raise UsageError(
                f"{text!r} is not an image reference",
                hint="write docker://HOST/NAME:TAG or oci:DIR:TAG",
            )
        digest = None
        if "@sha256:" in rest:
            rest, _, hexadecimal = rest.partition("@sha256:")
            digest = Digest.parse(f"sha256:{hexadecimal}")
        if transport == "docker":
            return _docker(text, rest, digest)
        name, tag = rest, ""
        if transport in ("oci", "oci-archive") and ":" in rest:
            name, _, tag = rest.partition(":")
        if not name:
            raise UsageError(f"{text!r} names nothing after {transport}:")
        return ImageReference(transport, name, tag, digest)

    def __str__(self) -> str:
        slashes = "//" if self.transport == "docker" else ""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.transport}:{slashes}{self.name}{tag}{digest}"

    def at(self, digest: Digest) -> ImageReference:
        """The same place, by digest: nobody can move it."""
        return ImageReference(self.transport, self.name, "", digest)


def _docker(text: str, rest: str, digest: Digest | None) -> ImageReference:
    if not rest.startswith("//"):
        raise UsageError(f"{text!r} lacks the slashes of docker://")
    name, tag = rest[2:], ""
    head, colon, last = name.rpartition(":")
    if colon and "/" not in last:
        name, tag = head, last
    if not _NAME.fullmatch(name) or "/" not in name or (tag and not _TAG.fullmatch(tag)):
        raise UsageError(
            f"{text!r} is not docker://HOST/NAME[:TAG][@sha256:…]",
            hint="the host is always written out",
        )
    if not tag and digest is None:
        tag = "latest"
    return ImageReference("docker", name, tag, digest)
