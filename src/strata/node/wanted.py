"""Which node image this machine wants: named, found in a release payload, or named after boot.

What is not known yet, or not reachable, is a TransportError: the pull tries again, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import DefinitionError, TransportError, UsageError
from strata.core.events import Reporter
from strata.core.text import shown
from strata.node.config import PATH, NodeConfig
from strata.oci.payload import read_payload
from strata.oci.reference import SignedReference
from strata.oci.source import open_source

MAX_LATE_BYTES = 4096


@dataclass(frozen=True)
class Wanted:
    """What a machine wants, asked for anew at every try. named: on the command line, or None.

    Raises DefinitionError when nothing names an image.
    """

    config: NodeConfig
    named: SignedReference | None = None

    def __post_init__(self) -> None:
        config = self.config
        if not (self.named or config.image or config.release or config.late):
            raise _nothing_named()

    def __str__(self) -> str:
        config = self.config
        if self.named or config.image:
            return str(self.named or config.image)
        return f"the release {config.release}" if config.release else f"what {config.late} names"

    def image(self, *, architecture: str, reporter: Reporter) -> SignedReference:
        """The image, as far as it can be known now. architecture: as uname names it.

        Raises TransportError when it cannot be known yet, DefinitionError when the late file holds
        something else than one, UsageError when the payload lacks the tag, ImageError, DigestError,
        SignatureError.
        """
        config = self.config
        if self.named:
            return config.signed(self.named)
        if config.image:
            return config.signed(config.image)
        if config.release:
            return _of_release(config, config.release, architecture, reporter)
        if config.late:
            return config.signed(read_late(config.late))
        raise _nothing_named()


def _nothing_named() -> DefinitionError:
    return DefinitionError(
        f"no image is named: {PATH} has none of image, release and late",
        hint='give --image, or write {"image": "docker://HOST/NAME@sha256:…"} there',
    )


def _of_release(
    config: NodeConfig, release: SignedReference, architecture: str, reporter: Reporter
) -> SignedReference:
    signed = config.signed(release)
    with reporter.step(f"find {config.release_tag} in the release") as step:
        with open_source(
            signed.image, architecture=architecture, signature=signed.signature
        ) as source:
            payload = read_payload(source)
        found = payload.resolve(config.release_tag)
        step.detail(f"{payload.name}: {found}")
    # Who has to have signed the release has to have signed what it names.
    return SignedReference(signed.signature, found)


def read_late(path: Path) -> SignedReference:
    """The image reference in a file that something else writes; a registry's is by digest.

    Raises TransportError while the file is missing or empty, DefinitionError.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_LATE_BYTES + 1)
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise DefinitionError(f"{path} cannot be read: {error.strerror}") from error
    text = data.decode("utf-8", "replace").strip()
    if not text:
        raise TransportError(
            f"the node image is not known yet: {path} is not written",
            hint=f"the unit that writes {path} has to; see its journal",
        )
    if len(data) > MAX_LATE_BYTES or len(text.split()) > 1:
        raise DefinitionError(
            f"{path} holds more than an image reference",
            hint="write HOST/NAME@sha256:… there, and nothing else",
        )
    try:
        reference = SignedReference.parse_pullspec(text)
    except UsageError as error:
        raise DefinitionError(f"{path}: {shown(error.message)}", hint=error.hint) from error
    if reference.image.transport == "docker" and reference.image.digest is None:
        raise DefinitionError(
            f"{path} does not name the node image by digest: {reference.image}",
            hint="write HOST/NAME@sha256:… there",
        )
    return reference
