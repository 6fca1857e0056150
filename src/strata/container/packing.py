"""Packing components into chunks: which packages share a layer (rpm-ostree's algorithm).

Terms. A *component* is what changes together: a package, the initramfs, the package database. Its
*frequency* says how often it changes; the largest number means with every build. A *bin* becomes a
chunk, one layer.

The largest components get a bin each (they cost most to fetch again), the small ones share one bin,
those in between are sorted by frequency and filled into bins by groups of frequency and size; then
neighbouring bins are merged until the limit holds. Components that change with every build share a
bin, and one bin stays empty for packages that come later. Source: "Reworking the chunking
algorithm" in ostree-ext's chunking module; its choices, quirks included, are kept, so that images
packed here and there agree. O(n log n) in components.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from strata.core.errors import ImageError

ALWAYS = (1 << 32) - 1
MIN_BINS = 4
DEFAULT_BINS = 64
_HIGH_SHARE = 0.6
_THRESHOLD = 2


@dataclass(frozen=True)
class Component:
    """What changes together. identifier: unique, e.g. a NEVRA; name: stable from build to build.

    frequency: changes in a year, or ALWAYS; size_bytes: of its objects.
    """

    identifier: str
    name: str
    source: str
    frequency: int
    size_bytes: int


Bin = tuple[Component, ...]


def pack(components: Sequence[Component], bins: int = DEFAULT_BINS) -> tuple[Bin, ...]:
    """Components into at most `bins` bins; every component is in exactly one.

    The order of the input plays no part. Raises ImageError when bins is below 4.
    """
    if bins < MIN_BINS:
        raise ImageError(f"{bins} layers are too few to pack into", hint=f"at least {MIN_BINS}")
    ordered = sorted(components, key=lambda item: item.identifier)
    ordered.sort(key=lambda item: item.size_bytes, reverse=True)
    if not ordered:
        return ()
    if len(ordered) < bins:
        return (*((item,) for item in ordered), ())
    return _pack(ordered, bins)


def _pack(ordered: list[Component], bins: int) -> tuple[Bin, ...]:
    always = tuple(item for item in ordered if item.frequency == ALWAYS)
    others = [item for item in ordered if item.frequency != ALWAYS]
    reserved = (
        1 + 1 + min(1, len(always))
    )  # the low bin, the new bin, the bin of what always changes
    high_limit = int(_HIGH_SHARE * (bins - reserved))
    medium_limit = bins - high_limit - reserved
    packed: list[Bin] = []
    if others:
        partitions = _partition(others, high_limit)
        low = len(partitions.get("2ls", ()))
        per_bin = max(0, len(others) - high_limit - low) // medium_limit
        for key in sorted(partitions):
            packed += _fill(key, partitions[key], per_bin)
    _merge(packed, start=1 + high_limit, limit=bins - 1 - min(1, len(always)))
    if always:
        packed.append(always)
    return (*packed, ())


def _fill(key: str, items: Sequence[Component], per_bin: int) -> list[Bin]:
    if key == "1hs":
        return [(item,) for item in items]
    if key == "2ls":
        return [tuple(items)]
    bins: list[Bin] = []
    current: list[Component] = []
    for item in items:
        if len(current) < per_bin:
            current.append(item)
        else:
            bins.append(tuple(current))
            current = [item]
    return [*bins, tuple(current)] if current else bins


def _merge(packed: list[Bin], *, start: int, limit: int) -> None:
    """Merge neighbours from the end until the limit holds."""
    while len(packed) > limit:
        before = len(packed)
        for index in reversed(range(start, len(packed) - 1, 2)):
            if len(packed) <= limit:
                break
            second, first = packed.pop(index), packed.pop(index - 1)
            packed.insert(index, first + second)
        if len(packed) == before:  # nothing beyond the large ones is left to merge
            packed[-2:] = [packed[-2] + packed[-1]]


def _partition(items: Sequence[Component], high_limit: int) -> dict[str, list[Component]]:
    """Components by size, and the middle ones by frequency and size; keys sort in filling order."""
    sizes = [item.size_bytes for item in items]
    median = statistics.median(sizes)
    deviation = statistics.median([abs(size - median) for size in sizes])
    low, high = 0.5 * abs(median - _THRESHOLD * deviation), median + _THRESHOLD * deviation
    partitions: dict[str, list[Component]] = {}
    overflow: list[Component] = []
    middle: list[Component] = []
    for item in items:
        if item.size_bytes >= high:
            large = partitions.setdefault("1hs", [])
            (large if len(large) < high_limit else overflow).append(item)
        elif item.size_bytes <= low:
            partitions.setdefault("2ls", []).append(item)
        else:
            middle.append(item)
    rest = sorted([*overflow, *middle], key=lambda item: item.frequency)
    if not rest:
        return partitions
    by_frequency = _limits([item.frequency for item in rest])
    by_size = _limits([item.size_bytes for item in rest])
    for item in rest:
        often = _class(item.frequency, by_frequency, ("3hf", "4mf", "5lf"))
        size = _class(item.size_bytes, by_size, ("hs", "ms", "ls"))
        partitions.setdefault(f"{often}_{size}", []).append(item)
    return partitions


def _limits(values: Sequence[int]) -> tuple[float, float]:
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return 0.5 * abs(mean - _THRESHOLD * deviation), mean + _THRESHOLD * deviation


def _class(value: int, limits: tuple[float, float], names: tuple[str, str, str]) -> str:
    low, high = limits
    if value >= high:
        return names[0]
    return names[2] if value <= low else names[1]


def chunk_name(components: Bin) -> str:
    """A chunk's name, as its layer's history shows it."""
    if not components:
        return "Reserved for new packages"
    if len(components) <= 5:
        return " and ".join(item.identifier for item in components)
    return f"{len(components)} components"
