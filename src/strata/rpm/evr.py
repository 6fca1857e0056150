"""Epoch, version, release, and rpm's order of them.

rpm compares versions segment by segment: runs of digits as numbers, runs of letters as text, digits
newer than letters; `~` sorts before everything, even the end, and `^` after the end but before any
other segment. Source: rpmvercmp in rpm's rpmio/rpmver.c, the tests hold this against rpm itself.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_SEGMENT = re.compile(r"\d+|[a-zA-Z]+|[~^]")


def compare_versions(one: str, two: str) -> int:
    """-1, 0 or 1, as rpm orders two version or release strings."""
    if one == two:
        return 0
    left, right = _SEGMENT.findall(one), _SEGMENT.findall(two)
    for a, b in zip(left, right, strict=False):
        if a == b:
            continue
        for special, sign in (("~", -1), ("^", 1)):
            if a == special or b == special:
                # `^` against another segment: the one without it is newer.
                if special == "^":
                    return -1 if a == special else 1
                return sign if a == special else -sign
        if a.isdigit() != b.isdigit():
            return 1 if a.isdigit() else -1
        left_key, right_key = (int(a), int(b)) if a.isdigit() else (a, b)
        if left_key != right_key:
            return 1 if left_key > right_key else -1
    if len(left) == len(right):
        return 0
    longer, sign = (left, 1) if len(left) > len(right) else (right, -1)
    following = longer[min(len(left), len(right))]
    return -sign if following == "~" else sign


@functools.total_ordering
@dataclass(frozen=True, eq=False)
class Evr:
    """An epoch, version and release; ordered as rpm orders them. An absent epoch is 0."""

    epoch: int
    version: str
    release: str

    @staticmethod
    def parse(text: str) -> Evr:
        """Read `[epoch:]version-release`. Raises ValueError."""
        epoch, colon, rest = text.rpartition(":")
        version, dash, release = rest.rpartition("-")
        if not dash or not version or not release or (colon and not epoch.isdigit()):
            raise ValueError(f"{text!r} is not [epoch:]version-release")
        return Evr(int(epoch) if colon else 0, version, release)

    def __str__(self) -> str:
        return (f"{self.epoch}:" if self.epoch else "") + f"{self.version}-{self.release}"

    def compare(self, other: Evr) -> int:
        """-1, 0 or 1, as rpm orders the two."""
        if self.epoch != other.epoch:
            return 1 if self.epoch > other.epoch else -1
        return compare_versions(self.version, other.version) or compare_versions(
            self.release, other.release
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evr) and (self.epoch, self.version, self.release) == (
            other.epoch,
            other.version,
            other.release,
        )

    def __lt__(self, other: Evr) -> bool:
        order = self.compare(other)
        # Different strings may compare equal in rpm (1.0 and 1_0); the text keeps the order total.
        return order < 0 or (order == 0 and str(self) < str(other))

    def __hash__(self) -> int:
        return hash((self.epoch, self.version, self.release))
