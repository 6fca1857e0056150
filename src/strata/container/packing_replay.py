"""Replaying composes through packings: what a client that has one must download to have the next.

An estimate: the bytes of a chunk are those of its components, uncompressed; headers, hardlinks and
the commit layer are left out. A chunk is fetched when what is in it is not what a chunk of the
build before held. The package database is counted apart: it changes with every update, whatever
the packing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from strata.container.packing import Bin, Component, pack
from strata.container.packing_plan import Plan
from strata.container.packing_stable import chunk_content, pack_stable, planned

RPMDB = "rpmdb"

# Packs one compose, with the plan of the one before.
Packer = Callable[[Sequence[Component], Plan], Sequence[Bin]]


@dataclass(frozen=True)
class Update:
    """What one update costs. layers: chunks of the new image; fetched: of those, to download.

    fetched_bytes: without the package database, which is rpmdb_bytes.
    """

    layers: int
    fetched: int
    fetched_bytes: int
    rpmdb_bytes: int


@dataclass(frozen=True)
class Replay:
    """A packing's updates, in order."""

    packing: str
    updates: tuple[Update, ...]

    @property
    def median_bytes(self) -> float:
        """Of the updates' fetched bytes; 0 without updates."""
        return statistics.median([item.fetched_bytes for item in self.updates] or [0])


def packers(bins: int) -> dict[str, Packer]:
    """The packings that are compared, by name: upstream's as its builds use it, and without the
    earlier plan; ours."""

    def upstream_fresh(components: Sequence[Component], prior: Plan) -> Sequence[Bin]:
        return pack(components, bins)

    return {
        "stable": lambda components, prior: pack_stable(components, bins, prior),
        "upstream": lambda components, prior: pack(components, bins, prior),
        "upstream, no prior": upstream_fresh,
    }


def replay(packing: str, packer: Packer, composes: Iterable[Sequence[Component]]) -> Replay:
    """Pack composes one after the other, each with the plan of the one before."""
    updates: list[Update] = []
    plan: Plan = ()
    held: set[str] = set()
    for number, components in enumerate(composes):
        packed = packer(components, plan)
        keys = [chunk_content(chunk) for chunk in packed]
        if number:
            changed = [chunk for chunk, key in zip(packed, keys) if chunk and key not in held]
            updates.append(_update(len(packed), changed))
        plan, held = planned(packed), set(keys)
    return Replay(packing, tuple(updates))


def _update(layers: int, changed: Sequence[Bin]) -> Update:
    items = [item for chunk in changed for item in chunk]
    database = sum(item.size_bytes for item in items if item.name == RPMDB)
    total = sum(item.size_bytes for item in items)
    return Update(layers, len(changed), total - database, database)
