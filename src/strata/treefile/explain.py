"""Explain: which lines brought a package in, through which includes and conditions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from strata.treefile.treefile import Flattened, Sourced


@dataclass(frozen=True)
class Mention:
    """A line that names a package. kind: packages or exclude-packages."""

    kind: str
    item: Sourced


def explain(flat: Flattened, package: str) -> tuple[Mention, ...]:
    """Every line that names a package, by its name or pinned to a version; in the order of merging.

    A package that none names is there as a dependency, or not at all: the lock says.
    """
    found = [Mention("packages", item) for item in _naming(flat.named, package)]
    return (*found, *(Mention("exclude-packages", i) for i in _naming(flat.excluded, package)))


def near(flat: Flattened, package: str) -> list[str]:
    """Names that hold the one asked for, for who misspelt it; sorted."""
    names = {item.text for item in (*flat.named, *flat.excluded)}
    return sorted(name for name in names if package.lower() in name.lower())


def _naming(items: Sequence[Sourced], package: str) -> list[Sourced]:
    pinned = re.compile(rf"{re.escape(package)}(-\d.*|\s*[<>=].*)?", re.DOTALL)
    return [item for item in items if pinned.fullmatch(item.text)]
