"""Refs of stored images: `ostree/container/blob/…` for layers, `ostree/container/image/…`.

Escaping: ASCII letters, digits and `-` stand for themselves; `_` becomes `__`; `/` stands for
itself after a letter or digit, unless it is last; anything else becomes `_HEX_`.
Source: ostree-ext's refescape.rs.
"""

from __future__ import annotations

from strata.core.errors import UsageError
from strata.oci.digest import Digest
from strata.oci.reference import ImageReference

BLOB = "ostree/container/blob/"
IMAGE = "ostree/container/image/"


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
