"""Packing components into chunks: which packages share a layer (rpm-ostree's algorithm).

Terms. A *component* is what changes together: a package, the initramfs, the package database. Its
*frequency* says how often it changes; the largest number means with every build. A *bin* becomes a
chunk, one layer. The *plan* of an image says which names each of its chunks holds.

With the plan of an earlier build every name stays in its bin, and new ones go to the last. Without
one, the largest components get a bin each (they cost most to fetch again), the small ones share one
bin, those in between are sorted by frequency and filled into bins by groups of frequency and size;
then neighbouring bins are merged until the limit holds. Components that change with every build
share a bin, and one bin stays empty for packages that come later. Source: "Reworking the chunking
algorithm" in ostree-ext's chunking module; its choices, quirks included, are kept, so that images
packed here and there agree. `packing_stable` is our own and the default. O(n log n) in components.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from strata.container.packing_plan import Plan
from strata.core.errors import ImageError

ALWAYS = (1 << 32) - 1
MIN_BINS = 4
DEFAULT_BINS = 64
_HIGH_SHARE = 0.6
_THRESHOLD = 2


@dataclass(frozen=True)
class Component:
    """What changes together. identifier: unique, e.g. a NEVRA; name: stable from build to build.

    source: components of one source change together. frequency: changes in a year, or ALWAYS;
    size_bytes: of its objects. content: a digest of what is in it, empty when it is not known.
    """

    identifier: str
    name: str
    source: str
    frequency: int
    size_bytes: int
    content: str = ""


Bin = tuple[Component, ...]


def pack(
    components: Sequence[Component], bins: int = DEFAULT_BINS, prior: Plan = ()
) -> tuple[Bin, ...]:
    """Components into at most `bins` bins; every component is in exactly one.

    prior: the plan of an earlier build, kept when it fits. The order of the input plays no part.
    Raises ImageError when bins is below 4.
    """
    check_bins(bins)
    ordered = sorted(components, key=lambda item: item.identifier)
    ordered.sort(key=lambda item: item.size_bytes, reverse=True)
    if prior:
        kept = _keep(ordered, prior)
        if len(kept) <= bins:
            return kept
    if not ordered:
        return ()
    if len(ordered) < bins:
        return (*((item,) for item in ordered), ())
    return _pack(ordered, bins)


def check_bins(bins: int) -> None:
    """Raises ImageError when there are fewer than a packing needs."""
    if bins < MIN_BINS:
        raise ImageError(f"{bins} layers are too few to pack into", hint=f"at least {MIN_BINS}")


def _keep(ordered: Sequence[Component], prior: Plan) -> tuple[Bin, ...]:
    """The earlier bins: names that are gone dropped, new ones in the last, in order of name.

    A name in two bins stays in the first (upstream packs it twice and fails); components that share
    a name stay together (upstream loses all but one, and fails). Bins that became empty are
    dropped, except for the last.
    """
    named: dict[str, list[Component]] = {}
    for item in ordered:
        named.setdefault(item.name, []).append(item)
    bins = [[item for name in chunk.names for item in named.pop(name, ())] for chunk in prior]
    bins[-1] += [item for name in sorted(named) for item in named[name]]
    return (*(tuple(packed) for packed in bins[:-1] if packed), tuple(bins[-1]))


def _pack(ordered: Sequence[Component], bins: int) -> tuple[Bin, ...]:
    always = tuple(item for item in ordered if item.frequency == ALWAYS)
    others = [item for item in ordered if item.frequency != ALWAYS]
    # The low bin, the new bin, the bin of what always changes.
    reserved = 1 + 1 + min(1, len(always))
    high_limit = _high_limit(bins - reserved)
    medium_limit = bins - high_limit - reserved
    packed: list[Bin] = []
    if others:
        partitions = _partition(others, high_limit)
        middle = len(others) - high_limit - len(partitions.get("2ls", ()))
        # Upstream's subtraction is unsigned: below zero it wraps to a number so large that each
        # group fills one bin (or panics, when checks are built in).
        per_bin = middle // medium_limit if middle >= 0 else len(others)
        for key in sorted(partitions):
            packed += _fill(key, partitions[key], per_bin)
    _merge(packed, start=1 + high_limit, limit=bins - 1 - min(1, len(always)))
    if always:
        packed.append(always)
    return (*packed, ())


def _high_limit(bins: int) -> int:
    """0.6 of the bins, in single precision as upstream computes it."""
    return math.floor(_single(_single(_HIGH_SHARE) * bins))


def _single(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _fill(key: str, items: Sequence[Component], per_bin: int) -> list[Bin]:
    """One group into bins. With per_bin 0 the first bin is empty and each item has one: a quirk."""
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
    """Merge neighbours from the end until the limit holds.

    The merged bin lands after the one that followed the two: upstream inserts at the index from
    before the removals.
    """
    while len(packed) > limit:
        before = len(packed)
        for index in reversed(range(start, len(packed) - 1, 2)):
            if len(packed) <= limit:
                break
            second, first = packed.pop(index), packed.pop(index - 1)
            packed.insert(index, first + second)
        if len(packed) == before:  # beyond the large ones nothing is left: upstream never ends here
            packed[-2:] = [packed[-2] + packed[-1]]


def _partition(items: Sequence[Component], high_limit: int) -> dict[str, list[Component]]:
    """Components by size, and the middle ones by frequency and size; keys sort in filling order.

    items: sorted by size, the largest first.
    """
    sizes = [item.size_bytes for item in items]
    median = _median(sizes)
    deviation = _median(sorted(abs(size - median) for size in sizes))
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
    if not rest:  # upstream panics here
        return partitions
    by_frequency = _limits([item.frequency for item in rest])
    by_size = _limits([item.size_bytes for item in rest])
    for item in rest:
        often = _class(item.frequency, by_frequency, ("3hf", "4mf", "5lf"))
        size = _class(item.size_bytes, by_size, ("hs", "ms", "ls"))
        partitions.setdefault(f"{often}_{size}", []).append(item)
    return partitions


def _median(ordered: Sequence[float]) -> float:
    """Of sorted values; of an even number of them the mean of the two in the middle."""
    half = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[half])
    return 0.5 * (ordered[half - 1] + ordered[half])


def _limits(values: Sequence[int]) -> tuple[float, float]:
    """Two standard deviations (of the population) below and above the mean, the lower halved."""
    mean = sum(values) / len(values)
    squares = 0.0
    for value in values:  # in this order: sums of floats depend on it
        squares += (mean - value) * (mean - value)
    deviation = math.sqrt(squares / len(values))
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
