"""The rule between the layers: what `node-only` names may not be in bootc, CoreOS or boot images.

Requirements R0.1 and R5.1. The check runs on what is installed, a multiset of NEVRAs, and before
that on the lock, so that it fails in a second rather than after the install.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from strata.core.errors import PackageError
from strata.rpm.nevra import NEVRA


def node_packages(nevras: Iterable[NEVRA], patterns: Sequence[str]) -> list[NEVRA]:
    """The packages whose names match a `node-only` pattern, sorted; every copy counts."""
    return sorted(
        nevra for nevra in nevras if any(fnmatchcase(nevra.name, pattern) for pattern in patterns)
    )


def check_no_node_packages(
    nevras: Iterable[NEVRA],
    patterns: Sequence[str],
    *,
    layer: str,
    origin: Callable[[NEVRA], str],
) -> None:
    """Raise PackageError when a node package is in a base layer, saying what brought it in.

    origin: from a package to the words that explain it, e.g. the treefile line.
    """
    found = node_packages(nevras, patterns)
    if not found:
        return
    first = found[0]
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise PackageError(
        f"{first}{others} belongs to the node layer and may not be in {layer}: {origin(first)}",
        hint="take it out of the treefile, or out of node-only in strata.toml",
        context={"packages": ", ".join(str(nevra) for nevra in found)},
    )
