"""A packing that stays: what did not change is not fetched again, update after update.

Terms. A *unit* is what changes together: components of one source package (or of one name). Its
*rate* is how many changes an update is expected to bring it; of a *chunk*, the sum over its units.
A chunk of S bytes and rate r costs an update S·(1 - e^-r) bytes in the mean; the cost of a packing
is the sum over its chunks. A chunk is *clean* when all it held in the earlier build is there
unchanged, and *dirty* otherwise.

Without a plan: every component that changes with every build (initramfs, package database, what no
package owns) has a chunk of its own. Each other unit starts as a chunk; again and again the two
chunks whose union adds least to the cost are joined, until the limit holds. What changes often thus
stays apart from what does not, and large units apart from what would drag them along.

With the plan of the earlier build: clean chunks are left alone. A client fetches a dirty chunk
anyway, so what is in the dirty chunks, and what is new, is packed anew into the room that is left,
at no cost to it. So the packing follows the system without moving anything that did not change.
Only when no room is left for something new are clean chunks joined, the cheapest to fetch again.
Should the packing's cost yet exceed DECAY times that of one made without a plan, that one is taken:
a rare update that costs much, for the sake of those that follow.

Laws: the same components with the plan they were packed by give that plan; an unchanged component
stays with its chunk as long as no chunk-mate changes, comes or goes, DECAY and the limit apart.

O(u²) in the number of units, twice. Measured alternatives: docs/adr/0011-packing-is-stable.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from strata.container.packing import ALWAYS, DEFAULT_BINS, Bin, Component, check_bins
from strata.container.packing_plan import Plan, PlannedChunk

# Fedora CoreOS brings an update every two weeks; several changelog entries reach it as one change.
# By measurement: with 4 entries small updates cost twice as much and more; 16 and 64 are as good.
UPDATES_A_YEAR = 26
ENTRIES_A_CHANGE = 32
DECAY = 1.25
# How many updates the cost of a join is counted for, against the bytes it costs at once.
HORIZON_UPDATES = 26


def pack_stable(
    components: Sequence[Component],
    bins: int = DEFAULT_BINS,
    prior: Plan = (),
    *,
    decay: float = DECAY,
) -> tuple[Bin, ...]:
    """Components into at most `bins` bins; every component is in exactly one.

    prior: the plan of the earlier build; decay: how much it may cost of one made without a plan.
    The order of the input plays no part.
    Raises ImageError when bins is below 4.
    """
    check_bins(bins)
    ordered = sorted(components, key=lambda item: item.identifier)
    special = _special([item for item in ordered if item.frequency == ALWAYS], bins, ordered)
    units = _units([item for item in ordered if item.frequency != ALWAYS])
    room = bins - len(special)
    fresh = _join([_Chunk.of(unit) for unit in units], room)
    packed = _keep(units, room, prior) if prior else fresh
    if _cost(packed) > decay * _cost(fresh):
        packed = fresh
    return (*(chunk.bin for chunk in packed), *special)


def planned(packed: Sequence[Bin]) -> Plan:
    """The plan that an image of this packing carries."""
    return tuple(
        PlannedChunk(tuple(sorted(item.name for item in chunk)), chunk_content(chunk))
        for chunk in packed
    )


def chunk_content(chunk: Bin) -> str:
    """A digest of what is in a chunk; empty when that of a component is not known."""
    if not chunk or not all(item.content for item in chunk):
        return ""
    rows = sorted(f"{item.name}\0{item.content}\n" for item in chunk)
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def expected_bytes(packed: Sequence[Bin]) -> float:
    """How many bytes an update is expected to cost, components that always change apart."""
    return _cost(
        [
            _Chunk.of(_Unit(chunk, _rate(chunk)))
            for chunk in packed
            if chunk and chunk[0].frequency != ALWAYS
        ]
    )


# --- units and chunks ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Unit:
    components: Bin
    rate: float


@dataclass(frozen=True)
class _Chunk:
    """A chunk in the making. still: the chance that an update leaves it alone.

    at_stake: bytes that an update leaves alone, in the mean: size_bytes · still. clean_bytes: what
    is fetched again, although it did not change, if it is joined to another.
    """

    components: Bin
    size_bytes: int
    still: float
    at_stake: float
    clean_bytes: int = 0

    @staticmethod
    def of(unit: _Unit, *, clean: bool = False) -> _Chunk:
        size = sum(item.size_bytes for item in unit.components)
        still = math.exp(-unit.rate)
        return _Chunk(unit.components, size, still, size * still, size if clean else 0)

    @property
    def bin(self) -> Bin:
        return tuple(sorted(self.components, key=lambda item: item.identifier))

    def joined(self, other: _Chunk) -> _Chunk:
        size, still = self.size_bytes + other.size_bytes, self.still * other.still
        return _Chunk(self.components + other.components, size, still, size * still)

    def price(self, other: _Chunk) -> float:
        """What joining two chunks costs, in bytes."""
        more = self.at_stake * (1 - other.still) + other.at_stake * (1 - self.still)
        return HORIZON_UPDATES * more + self.clean_bytes + other.clean_bytes


def _cost(chunks: Iterable[_Chunk]) -> float:
    return sum(chunk.size_bytes * (1 - chunk.still) for chunk in chunks)


def _rate(components: Iterable[Component]) -> float:
    """Changes to expect in an update. A source that did not change in a year may yet change."""
    by_source: dict[str, int] = {}
    for item in components:
        key = item.source or item.name
        by_source[key] = max(by_source.get(key, 0), item.frequency)
    yearly = sum(0.5 + frequency / ENTRIES_A_CHANGE for frequency in by_source.values())
    return yearly / UPDATES_A_YEAR


def _units(components: Sequence[Component]) -> list[_Unit]:
    """Components of one source, or of one name (several versions of a kernel), are one unit."""
    groups: dict[str, list[Component]] = {}
    of_name: dict[str, str] = {}
    for item in components:
        key = of_name.setdefault(item.name, item.source or item.name)
        groups.setdefault(key, []).append(item)
    return [_Unit(tuple(group), _rate(group)) for _, group in sorted(groups.items())]


def _special(always: Sequence[Component], bins: int, every: Sequence[Component]) -> list[Bin]:
    """A bin for each component that always changes; when there are too many, the last share one."""
    room = bins - 1 if len(every) > len(always) else bins
    if len(always) <= room:
        return [(item,) for item in always]
    return [*((item,) for item in always[: room - 1]), tuple(always[room - 1 :])]


# --- with a plan ---------------------------------------------------------------------------------


def _keep(units: Sequence[_Unit], room: int, prior: Plan) -> list[_Chunk]:
    """Clean chunks as they were; the rest packed anew into the room that is left."""
    named: dict[str, list[Component]] = {}
    for unit in units:
        for item in unit.components:
            named.setdefault(item.name, []).append(item)
    clean: list[_Chunk] = []
    for chunk in prior:
        names = dict.fromkeys(chunk.names)  # versions of a kernel have one name
        found = tuple(item for name in names for item in named.get(name, ()))
        if found and _is_clean(chunk, found):
            clean.append(_Chunk.of(_Unit(found, _rate(found)), clean=True))
            for name in names:
                named.pop(name, None)
    loose = []
    for unit in units:
        rest = tuple(item for item in unit.components if item.name in named)
        if rest:
            loose.append(_Chunk.of(_Unit(rest, _rate(rest))))
    left = room - len(clean)
    if left >= min(1, len(loose)):
        return clean + _join(loose, left)
    return _join(clean + loose, room)


def _is_clean(chunk: PlannedChunk, found: Bin) -> bool:
    """Whether a planned chunk's components are those found, unchanged.

    When the plan does not say what was in it, a chunk that lost nothing is taken for unchanged:
    then nothing is moved, as with upstream's packing.
    """
    if chunk.content:
        return chunk_content(found) == chunk.content
    return {item.name for item in found} == set(chunk.names)


def _join(chunks: Sequence[_Chunk], limit: int) -> list[_Chunk]:
    """Join the two chunks whose union is cheapest until `limit` are left.

    The order of those that are left is kept; a union stands where its first was. Each chunk
    remembers its cheapest partner among those after it, so that a join costs O(u) and not O(u²).
    """
    alive: dict[int, _Chunk] = dict(enumerate(chunks))
    nearest: dict[int, tuple[float, int]] = {}

    def seek(index: int) -> None:
        price = alive[index].price
        options = [(price(chunk), other) for other, chunk in alive.items() if other > index]
        if options:
            nearest[index] = min(options)
        else:
            nearest.pop(index, None)

    if len(alive) > limit:
        for index in alive:
            seek(index)
    while len(alive) > limit:
        first = min(nearest, key=lambda index: (nearest[index][0], index))
        second = nearest[first][1]
        alive[first] = alive[first].joined(alive.pop(second))
        nearest.pop(second, None)
        for index in alive:
            known = nearest.get(index)
            if index == first or (known and known[1] in (first, second)):
                seek(index)
            elif index < first:
                price = alive[index].price(alive[first])
                if known is None or (price, first) < known:
                    nearest[index] = price, first
    return list(alive.values())
