"""The name of one build of one package: name, epoch, version, release, architecture."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from strata.rpm.evr import Evr


@functools.total_ordering
@dataclass(frozen=True)
class NEVRA:
    """A package's full name; ordered by name, then rpm's version order, then architecture."""

    name: str
    epoch: int
    version: str
    release: str
    arch: str

    @property
    def evr(self) -> Evr:
        """Its epoch, version and release."""
        return Evr(self.epoch, self.version, self.release)

    def __str__(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"

    @staticmethod
    def parse(text: str) -> NEVRA:
        """Read `name-[epoch:]version-release.arch`. Raises ValueError."""
        rest, dot, arch = text.rpartition(".")
        rest, _, release = rest.rpartition("-")
        name, _, version = rest.rpartition("-")
        epoch, colon, version = version.rpartition(":")
        if (
            "/" in text
            or "\0" in text
            or not (dot and arch and release and version and name)
            or (colon and not epoch.isdigit())
        ):
            raise ValueError(f"{text!r} is not name-[epoch:]version-release.arch")
        return NEVRA(name, int(epoch) if colon else 0, version, release, arch)

    def __lt__(self, other: NEVRA) -> bool:
        return (self.name, self.evr, self.arch) < (other.name, other.evr, other.arch)
