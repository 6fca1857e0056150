"""Refs of stored images: `ostree/container/blob/…` for layers, `ostree/container/image/…`.

Escaping: ASCII letters, digits and `-` stand for themselves; `_` becomes `__`; `/` stands for
itself after a letter or digit, unless it is last; anything else becomes `_HEX_`.
Source: ostree-ext's refescape.rs.

Beside them, `strata/layer/KIND/DIGEST/DIFF-ID` says that a layer was read by us, as a commit layer,
chunk or derived layer, that its tar had this diff-id, and which commit came of it. An image's own
word is not enough to take a layer for another one: a configuration may claim any diff-id, and a
commit's metadata is its maker's.
"""

from __future__ import annotations

from strata.core.errors import StrataError, UsageError
from strata.oci.digest import Digest
from strata.oci.reference import ImageReference

BLOB = "ostree/container/blob/"
IMAGE = "ostree/container/image/"
BASE_IMAGE = "ostree/container/baseimage/"
READ = "strata/layer/"


def escape(text: str) -> str:
    """A text as part of a ref. Raises UsageError when it is empty or holds NUL."""
    if not text or "\0" in text:
        raise UsageError(f"{text!r} cannot be part of a ref")
    out = []
    for position, character in enumerate(text):
        plain = character.isascii() and character.isalnum()
        if plain or character == "-":
            out.append(character)
        elif character == "_":
            out.append("__")
        elif character == "/" and 0 < position < len(text) - 1 and _is_plain(text[position - 1]):
            out.append("/")
        else:
            out.append(f"_{ord(character):02X}_")
    return "".join(out)


def _is_plain(character: str) -> bool:
    return character.isascii() and character.isalnum()


def blob_ref(digest: Digest) -> str:
    """The ref of a layer."""
    return BLOB + escape(str(digest))


def image_ref(reference: ImageReference) -> str:
    """The ref of an image."""
    return IMAGE + escape(str(reference))


def read_ref(kind: str, digest: Digest, diff_id: Digest) -> str:
    """The ref of a layer that was read: what its tar had for a diff-id."""
    return f"{READ}{kind}/{digest.hex}/{diff_id.hex}"


def parse_read_ref(name: str) -> tuple[str, Digest, Digest] | None:
    """Kind, digest and diff-id of such a ref; None for another's."""
    parts = name[len(READ) :].split("/")
    if not name.startswith(READ) or len(parts) != 3:
        return None
    try:
        return parts[0], Digest.parse(f"sha256:{parts[1]}"), Digest.parse(f"sha256:{parts[2]}")
    except StrataError:
        return None
