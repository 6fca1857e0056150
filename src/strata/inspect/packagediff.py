"""Which packages differ between two images, and who brought them. Values in, values out.

Multisets of NEVRA: several builds of one name, or one for each of two architectures, are not lost
(a map by name would lose them). What both have is taken away; what is left is paired by name and
architecture from the newest down, then by name alone; the rest was added or removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from strata.rpm.nevra import NEVRA

BASE, NODE, OVERRIDE = "base", "node", "override"


@dataclass(frozen=True)
class PackageChange:
    """One difference. old: None when added; new: None when removed; never both.

    mark: base, node or override, of the new package (the old one when it was removed); empty for an
    image without a base to tell from.
    """

    old: NEVRA | None
    new: NEVRA | None
    mark: str = ""

    @property
    def either(self) -> NEVRA:
        """The new package, or the old one when it was removed."""
        found = self.new or self.old
        if found is None:
            raise ValueError("a change of nothing")
        return found

    @property
    def name(self) -> str:
        """The package's name."""
        return self.either.name

    @property
    def kind(self) -> str:
        """changed, added or removed."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"

    @property
    def is_downgrade(self) -> bool:
        """Whether the new package is older."""
        return bool(self.old and self.new and self.new.evr < self.old.evr)

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "name": self.name,
            "change": self.kind,
            "old": str(self.old) if self.old else None,
            "new": str(self.new) if self.new else None,
            "from": self.mark or None,
        }


def mark_of(nevra: NEVRA, whole: Sequence[NEVRA], base: Sequence[NEVRA]) -> str:
    """Where a package of an image is from. whole, base: the image's packages and its base's.

    An override stands in place of a base package of its name and architecture; beside it (both are
    installed) it is the node layer's.
    """
    if nevra in base:
        return BASE
    replaced = [one for one in base if (one.name, one.arch) == (nevra.name, nevra.arch)]
    return OVERRIDE if any(one not in whole for one in replaced) else NODE


def diff_packages(old: Sequence[NEVRA], new: Sequence[NEVRA]) -> tuple[PackageChange, ...]:
    """The differences, sorted by name; without marks."""
    left, right = Counter(old), Counter(new)
    gone = list((left - right).elements())
    come = list((right - left).elements())
    found: list[PackageChange] = []
    for key in (_name_and_arch, _name):
        pairs, gone, come = _pair(gone, come, key)
        found += pairs
    found += [PackageChange(one, None) for one in gone]
    found += [PackageChange(None, one) for one in come]
    return tuple(sorted(found, key=lambda change: (change.name, change.either)))


Installed = tuple[Sequence[NEVRA], "Sequence[NEVRA] | None"]


def with_marks(
    changes: Iterable[PackageChange], old: Installed, new: Installed
) -> tuple[PackageChange, ...]:
    """The changes with their marks. old, new: packages and the base's; None without a base."""
    marked = []
    for change in changes:
        whole, base = old if change.new is None else new
        mark = "" if base is None else mark_of(change.either, whole, base)
        marked.append(PackageChange(change.old, change.new, mark))
    return tuple(marked)


def _name_and_arch(nevra: NEVRA) -> tuple[str, str]:
    return nevra.name, nevra.arch


def _name(nevra: NEVRA) -> tuple[str, str]:
    return nevra.name, ""


def _pair(
    gone: list[NEVRA], come: list[NEVRA], key: Callable[[NEVRA], tuple[str, str]]
) -> tuple[list[PackageChange], list[NEVRA], list[NEVRA]]:
    """Pair what is gone and what has come by a key, the newest first; and what is left of each."""
    waiting: dict[tuple[str, str], list[NEVRA]] = {}
    for one in sorted(come):
        waiting.setdefault(key(one), []).append(one)
    pairs, left = [], []
    for one in sorted(gone, reverse=True):
        others = waiting.get(key(one))
        if others:
            pairs.append(PackageChange(one, others.pop()))
        else:
            left.append(one)
    return pairs, left, [one for others in waiting.values() for one in others]


def by_name(changes: Sequence[PackageChange]) -> dict[str, dict[str, object]]:
    """The shape release tools read (requirement R8.3), each kind by the package's name.

    {"changed": {name: {"old", "new"}}, "added": {name: evr}, "removed": {name: evr}}. A name that
    stands twice in a kind is written with its architecture, or as a whole NEVRA: none is lost.
    """
    found: dict[str, dict[str, object]] = {"changed": {}, "added": {}, "removed": {}}
    for kind, rows in found.items():
        of_kind = [change for change in changes if change.kind == kind]
        names = Counter(change.name for change in of_kind)
        with_arch = Counter(_name_and_arch(change.either) for change in of_kind)
        for change in of_kind:
            key = change.name
            if names[key] > 1:
                once = with_arch[_name_and_arch(change.either)] == 1
                key = f"{key}.{change.either.arch}" if once else str(change.either)
            while key in rows:  # the same NEVRA more often than once
                key += " (again)"
            if change.old and change.new:
                rows[key] = {"old": str(change.old.evr), "new": str(change.new.evr)}
            else:
                rows[key] = str(change.either.evr)
    return found
