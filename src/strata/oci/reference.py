"""Image references, as the ecosystem writes them: `docker://host/repo:tag`, `oci:DIR:tag`.

A reference says where an image is. In front of it may stand who has to have signed it
(`ostree-image-signed:docker://…`), as hosts write it into a deployment's origin.
Sources: containers-transports(5); ostree-ext's lib.rs (`ImageReference`, `OstreeImageReference`).

A registry's name is kept as it is written: without a tag, registries mean `latest`, and the image's
ref does not say so. A layout's reference carries a tag, or (which is ours) `@sha256:…`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from strata.core.errors import UsageError
from strata.oci.digest import Digest

LAYOUTS = ("oci", "oci-archive")
# In a registry, in files, and in other tools' stores.
_TRANSPORTS = (
    *("docker", "registry"),
    *(*LAYOUTS, "docker-archive", "dir"),
    *("containers-storage", "docker-daemon"),
)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class ImageReference:
    """Where an image is. name: a registry's name or a path; tag or digest may be empty.

    transport: `docker` for registries, whichever way they were written. Of a `docker-archive` the
    tag is whatever follows the file's name; of other stores the name is all of it.
    """

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
        if "\0" in text:
            raise UsageError(f"{text!r} holds a NUL")
        if transport == "registry":
            return _registry(text, rest)
        if transport == "docker":
            if not rest.startswith("//"):
                raise UsageError(f"{text!r} lacks the slashes of docker://")
            return _registry(text, rest[2:])
        digest = None
        if transport in LAYOUTS:
            rest, digest = _split_digest(text, rest)
        name, tag = rest, ""
        if transport in (*LAYOUTS, "docker-archive"):
            name, colon, tag = rest.partition(":")
            if colon and not tag:
                raise UsageError(f"{text!r} ends where its tag should be")
        if not name:
            raise UsageError(f"{text!r} names nothing after {transport}:")
        return ImageReference(transport, name, tag, digest)

    def __str__(self) -> str:
        slashes = "//" if self.transport == "docker" else ""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.transport}:{slashes}{self.name}{tag}{digest}"

    def at(self, digest: Digest) -> ImageReference:
        """The same place, by digest: nobody can move it. For registries and layouts."""
        return ImageReference(self.transport, self.name, "", digest)


def _split_digest(text: str, rest: str) -> tuple[str, Digest | None]:
    rest, at, hexadecimal = rest.partition("@sha256:")
    if not at:
        return rest, None
    if not re.fullmatch("[0-9a-f]{64}", hexadecimal):
        raise UsageError(f"{text!r} does not end with a sha256 digest of 64 hex digits")
    return rest, Digest(hexadecimal)


def _registry(text: str, rest: str) -> ImageReference:
    rest, digest = _split_digest(text, rest)
    name, tag = rest, ""
    head, colon, last = name.rpartition(":")
    if colon and "/" not in last:
        name, tag = head, last
        if not _TAG.fullmatch(tag):
            raise UsageError(f"{text!r} has no proper tag after its last colon")
    if not _NAME.fullmatch(name) or "/" not in name:
        raise UsageError(
            f"{text!r} is not docker://HOST/NAME[:TAG][@sha256:…]",
            hint="the host is always written out",
        )
    return ImageReference("docker", name, tag, digest)


# --- with a signature policy ---------------------------------------------------------------------

UNVERIFIED, BY_POLICY, BY_REMOTE = (
    "ostree-unverified-image",
    "ostree-image-signed",
    "ostree-remote-image",
)


@dataclass(frozen=True)
class SignaturePolicy:
    """Who has to have signed an image.

    source: UNVERIFIED (the host's policy.json, whatever it allows), BY_POLICY (a policy.json that
    does not allow everything), or BY_REMOTE (the keys of an OSTree remote sign the base commit).
    """

    source: str = UNVERIFIED
    remote: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.remote}" if self.remote else self.source


@dataclass(frozen=True)
class SignedReference:
    """An image reference and who has to have signed the image."""

    signature: SignaturePolicy
    image: ImageReference

    @staticmethod
    def parse(text: str) -> SignedReference:
        """Read one of the signed forms; a bare reference is not one. Raises UsageError."""
        scheme, _, rest = text.partition(":")
        remote = ""
        if scheme.startswith("ostree-remote-"):
            remote, colon, rest = rest.partition(":")
            if not colon or not remote:
                raise UsageError(
                    f"{text!r} does not name its remote", hint=f"write {scheme}:REMOTE:IMAGE"
                )
        if scheme in ("ostree-unverified-registry", "ostree-remote-registry"):
            scheme, rest = scheme.replace("registry", "image"), f"registry:{rest}"
        if scheme not in (UNVERIFIED, BY_POLICY, BY_REMOTE):
            raise UsageError(
                f"{text!r} does not say who has to have signed the image",
                hint=f"write {BY_POLICY}:IMAGE or {UNVERIFIED}:IMAGE",
            )
        return SignedReference(SignaturePolicy(scheme, remote), ImageReference.parse(rest))

    @staticmethod
    def parse_any(text: str) -> SignedReference:
        """Read a signed form, or a bare reference, which means UNVERIFIED. Raises UsageError."""
        if text.startswith("ostree-"):
            return SignedReference.parse(text)
        return SignedReference(SignaturePolicy(), ImageReference.parse(text))

    @staticmethod
    def parse_pullspec(text: str) -> SignedReference:
        """Read any form, or a registry's name alone (`HOST/NAME@sha256:…`). Raises UsageError."""
        if not text.startswith("ostree-") and text.partition(":")[0] not in _TRANSPORTS:
            return SignedReference(SignaturePolicy(), ImageReference.parse(f"docker://{text}"))
        return SignedReference.parse_any(text)

    def __str__(self) -> str:
        """As ostree-ext shows it: the unverified image of a registry has a form of its own."""
        if self.signature.source == UNVERIFIED and self.image.transport == "docker":
            return f"ostree-unverified-registry:{str(self.image)[len('docker://') :]}"
        return f"{self.signature}:{self.image}"
