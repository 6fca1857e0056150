"""What the verbs of `strata image` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strata.core.errors import UsageError
from strata.oci.layout import Layout
from strata.oci.reference import ImageReference


def layout_of(target: ImageReference) -> Layout:
    """The layout an image is written to, made when it is not there. Raises UsageError."""
    if target.transport != "oci" or target.digest:
        raise UsageError(f"{target} is not a layout to write to", hint="write oci:DIR:TAG")
    return Layout.create(Path(target.name))


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """KEY=VALUE options as a mapping. Raises UsageError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE")
        found[key] = value
    return found
