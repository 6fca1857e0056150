"""What updates of the base cost a client, under our packing and upstream's; `make bench` prints it.

The components are a real Fedora CoreOS build's, the updates made up (a seed each). Commit layer and
package database are apart, and so is what every build changes anyway (in this list the initramfs
and `rpmostree-unpackaged-content`, which has the package database in it): no packing decides about
those. The bound is held for updates of a few source packages, as nightly builds bring them; of
large ones no packing is far from the components that changed, which are printed too.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from strata.compose.composes import parse_components
from strata.container.packing import ALWAYS, Component
from strata.container.packing_history import History, generate
from strata.container.packing_replay import packers, replay

pytestmark = pytest.mark.bench

FIXTURE = Path(__file__).parents[1] / "data/chunking/fedora-coreos-contentmeta.json.gz"
BINS = 64
BOUND = 0.6


def ordinary(components: Sequence[Component]) -> list[Component]:
    return [item for item in components if item.frequency != ALWAYS]


@pytest.mark.parametrize(("changes", "bound"), [(2, BOUND), (4, BOUND), (8, 1.0), (15, 1.0)])
def test_updates_of_the_base_against_upstreams_packing(changes: int, bound: float) -> None:
    start = parse_components(FIXTURE.read_bytes(), FIXTURE.name)
    fixed = sum(item.size_bytes for item in start) - sum(i.size_bytes for i in ordinary(start))
    costs: dict[str, list[int]] = {"stable": [], "upstream": []}
    least = []
    for seed in (1, 2):
        composes = list(generate(start, History(20, seed, changes)))
        for old, new in zip(composes, composes[1:]):
            before = {item.content for item in old}
            changed = [item for item in ordinary(new) if item.content not in before]
            least.append(sum(item.size_bytes for item in changed))
        for name, found in costs.items():
            done = replay(name, packers(BINS)[name], composes)
            for update, compose in zip(done.updates, composes[1:]):
                every = sum(i.size_bytes for i in compose) - sum(
                    i.size_bytes for i in ordinary(compose)
                )
                found.append(update.fetched_bytes - every)
                assert update.layers <= BINS
    ours, theirs, floor = (
        statistics.median(item) for item in (costs["stable"], costs["upstream"], least)
    )
    whole = (ours + fixed) / (theirs + fixed)
    print(
        f"\nbase, updates of {changes} sources: {ours / 1e6:.0f} MB / {theirs / 1e6:.0f} MB = "
        f"{ours / theirs:.2f} (bound: {bound}); what changed alone {floor / 1e6:.0f} MB; with what "
        f"every build changes {whole:.2f}",
        end="",
    )
    assert ours <= bound * theirs
