"""What anyone may have, as strata.toml's `public` declares it: addresses and images by prefix.

Nothing is guessed: what no prefix covers is not public. A prefix covers whole parts of a name, so
that `registry.example/os` covers registry.example/os:1, and not registry.example/oskar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_LOCAL = re.compile(
    r"(oci|oci-archive|dir|docker-archive|docker-daemon|containers-storage|ostree):.*|localhost/.*"
)
_IMAGE_PREFIX = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/:@-]*)?")


@dataclass(frozen=True)
class Public:
    """Prefixes of addresses (`https://HOST/PATH`) and images (`HOST/NAME`)."""

    prefixes: tuple[str, ...]

    def has_address(self, address: str) -> bool:
        """Whether a repository's address is public, or of this machine."""
        parts = _split(address)
        if parts is not None and parts.scheme == "file":
            return True
        if parts is None or parts.username is not None or ".." in parts.path.split("/"):
            return False
        return any(_covers(_split(prefix), parts) for prefix in self.prefixes)

    def has_image(self, image: str) -> bool:
        """Whether an image is public, or of this machine."""
        name = image.removeprefix("docker://")
        return bool(_LOCAL.fullmatch(name)) or any(
            name == prefix
            or name.startswith(tuple(prefix.rstrip("/") + end for end in _ends(prefix)))
            for prefix in self.prefixes
            if "://" not in prefix
        )


def is_prefix(text: str) -> bool:
    """Whether a text may stand in `public`: `https://HOST/PATH`, `http://…`, or `HOST/NAME`."""
    if "://" not in text:
        return bool(_IMAGE_PREFIX.fullmatch(text))
    parts = _split(text)
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)


def without_credentials(address: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"^([a-z]+://)[^/]*@", r"\1", address)


def _split(address: str) -> SplitResult | None:
    try:
        return urlsplit(address)
    except ValueError:  # brackets that are no IPv6 address
        return None


def _covers(prefix: SplitResult | None, parts: SplitResult) -> bool:
    if prefix is None or prefix.scheme not in ("http", "https"):
        return False
    path = prefix.path.rstrip("/")
    return (prefix.scheme, prefix.netloc.lower()) == (parts.scheme, parts.netloc.lower()) and (
        parts.path == path or parts.path.startswith(path + "/")
    )


def _ends(prefix: str) -> str:
    """What may follow a prefix: after a mere host no port, which would be another registry."""
    return "/" if prefix.endswith("/") or "/" not in prefix else "/:@"
