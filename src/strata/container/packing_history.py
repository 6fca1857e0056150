"""Made-up histories of a system: what packings are measured on, from one real list of components.

In each update every source changes with a chance that follows its frequency, scaled so that a given
number of sources changes in the mean; all components of a source change together, and their sizes
vary by some percent. Now and then a component comes or goes. What always changes, changes. The same
arguments give the same history.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from strata.container.packing import ALWAYS, Component


@dataclass(frozen=True)
class History:
    """How a history goes. changes: sources that change in an update, in the mean.

    comes, goes: the chance that an update adds, or removes, a component; size_spread: the standard
    deviation of a changed component's size, as a share of it.
    """

    updates: int
    seed: int = 1
    changes: float = 30.0
    comes: float = 0.25
    goes: float = 0.15
    size_spread: float = 0.02


def generate(start: Sequence[Component], history: History) -> Iterator[tuple[Component, ...]]:
    """The composes of a history: `start` itself, then one for each update."""
    chance = random.Random(history.seed)  # noqa: S311 -- a repeatable history, no secret
    system = {
        item.identifier: replace(item, content=item.content or f"{item.identifier}@0")
        for item in sorted(start, key=lambda item: item.identifier)
    }
    templates = [item for item in system.values() if item.frequency != ALWAYS]
    scale = _scale(templates, history.changes)
    yield tuple(system.values())
    for number in range(1, history.updates + 1):
        fate: dict[str, bool] = {}
        for identifier, item in list(system.items()):
            if item.frequency != ALWAYS:
                if item.source not in fate:
                    rate = scale * (item.frequency + 1)
                    fate[item.source] = chance.random() < 1 - math.exp(-rate)
                if not fate[item.source]:
                    continue
            size = max(1, round(item.size_bytes * chance.gauss(1, history.size_spread)))
            content = f"{identifier}@{number}"
            system[identifier] = replace(item, size_bytes=size, content=content)
        if templates and chance.random() < history.goes:
            ordinary = [name for name, item in system.items() if item.frequency != ALWAYS]
            if len(ordinary) > 1:
                del system[chance.choice(ordinary)]
        if templates and chance.random() < history.comes:
            like = chance.choice(templates)
            name = f"new-{number}"
            system[name] = replace(
                like, identifier=name, name=name, source=name, content=f"{name}@{number}"
            )
        yield tuple(system.values())


def _scale(items: Sequence[Component], changes: float) -> float:
    """The factor from frequency to rate at which `changes` sources change in the mean."""
    frequencies: dict[str, int] = {}
    for item in items:
        frequencies.setdefault(item.source, item.frequency)
    wanted = min(changes, 0.9 * len(frequencies))
    low, high = 0.0, 1000.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = sum(1 - math.exp(-middle * (value + 1)) for value in frequencies.values())
        low, high = (middle, high) if mean < wanted else (low, middle)
    return low
