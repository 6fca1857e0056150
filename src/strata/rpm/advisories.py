"""Security advisories of repositories, as rpm-ostree keeps them with a commit.

Source: rpm-ostree's rpmostree_advisories_variant (rpmostree-rpm-util.cxx).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEVERITIES = ("none", "low", "moderate", "important", "critical")
_CVE = re.compile(r"\bCVE-[0-9]+-[0-9]+\b")


@dataclass(frozen=True, order=True)
class Advisory:
    """A security advisory. severity: one of SEVERITIES. packages: its packages among those asked
    for, as NEVRAs. references: (address, title) of the first bug of each CVE.
    """

    id: str
    severity: str
    packages: tuple[str, ...]
    references: tuple[tuple[str, str], ...] = ()


def parse_advisory(row: Mapping[str, Any]) -> Advisory:
    """What dnf says of one."""
    severity = str(row["severity"] or "").lower()
    return Advisory(
        str(row["id"]),
        severity if severity in SEVERITIES else "none",
        tuple(sorted(map(str, row["packages"]))),
        first_of_each(row["bugs"]),
    )


def first_of_each(bugs: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Of bugs, (address, title), those that are the first to name some CVE, by their addresses."""
    seen: set[str] = set()
    found = []
    for url, title in sorted((str(url or ""), str(title or "")) for url, title in bugs):
        named = set(_CVE.findall(title))
        if url and named - seen:
            seen |= named
            found.append((url, title))
    return tuple(found)
