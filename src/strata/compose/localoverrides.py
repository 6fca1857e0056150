"""What an engineer lays over definitions on their own machine: `overrides/rpm` and
`overrides/rootfs` beside strata.toml, as coreos-assembler has them (requirement R1.23).

The packages in `overrides/rpm` take the place of those of the same name that a base layer has, over
any lock; `overrides/rootfs` is the last overlay of the CoreOS layer. The image says so, and is not
published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.compose.amend import Amendment, LocalPackage, local_package
from strata.rpm.lock import LockedPackage

FOLDER = "overrides"
OF = "overrides/rpm"
ROOTFS = "overrides/rootfs"


@dataclass(frozen=True)
class LocalOverrides:
    """What is there. rootfs: None for none."""

    packages: tuple[LocalPackage, ...] = ()
    rootfs: Path | None = None

    def of_layer(self, locked: Sequence[LockedPackage]) -> Amendment:
        """The packages that a layer with these packages takes."""
        names = {package.nevra.name for package in locked}
        return Amendment(local=tuple(one for one in self.packages if one.nevra.name in names))


def read_local_overrides(definitions: Path) -> LocalOverrides:
    """Look for local overrides. Raises UsageError on a file that is no package."""
    files = sorted((definitions / FOLDER / "rpm").glob("*.rpm"))
    rootfs = definitions / FOLDER / "rootfs"
    return LocalOverrides(
        tuple(local_package(path, OF) for path in files),
        rootfs if rootfs.is_dir() else None,
    )
