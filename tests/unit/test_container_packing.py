"""Packing: the real build's figures, and laws that hold for any components."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from strata.container.packing import ALWAYS, Component, chunk_name, pack
from strata.core.errors import ImageError

pytestmark = pytest.mark.unit

FIXTURE = Path(__file__).parents[1] / "data/chunking/fedora-coreos-contentmeta.json.gz"


@pytest.fixture(scope="module")
def fcos() -> list[Component]:
    rows = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    return [
        Component(
            row["identifier"], row["name"], row["srcid"], row["change_frequency"], row["size"]
        )
        for row in rows
    ]


def test_r2_17_a_real_build_fills_64_bins_and_loses_nothing(fcos: list[Component]) -> None:
    bins = pack(fcos, 64)
    assert len(bins) == 64
    packed = [item for chunk in bins for item in chunk]
    assert sorted(packed, key=lambda item: item.identifier) == sorted(
        fcos, key=lambda item: item.identifier
    )
    assert bins[-1] == ()


def test_one_bin_is_an_error(fcos: list[Component]) -> None:
    with pytest.raises(ImageError, match="1 layers are too few"):
        pack(fcos, 1)


def test_the_order_of_the_input_plays_no_part(fcos: list[Component]) -> None:
    shuffled = list(fcos)
    random.Random(7).shuffle(shuffled)  # noqa: S311 -- a fixed order, no secret
    assert pack(shuffled, 64) == pack(fcos, 64)


def test_few_components_get_a_bin_each_and_one_stays_empty() -> None:
    components = [Component(str(n), str(n), "s", 1, n) for n in range(5)]
    bins = pack(components, 64)
    assert [len(chunk) for chunk in bins] == [1, 1, 1, 1, 1, 0]


def test_what_always_changes_shares_a_bin(fcos: list[Component]) -> None:
    always = [Component(f"always-{n}", f"always-{n}", "s", ALWAYS, 10) for n in range(3)]
    bins = pack([*fcos, *always], 64)
    assert len(bins) == 64
    assert {item.name for item in bins[-2]} >= {"always-0", "always-1", "always-2", "initramfs"}
    assert all(item.frequency == ALWAYS for item in bins[-2])


def test_chunks_are_named_after_what_is_in_them() -> None:
    components = [Component(name, name, "s", 1, 1) for name in "abcdefg"]
    assert chunk_name(()) == "Reserved for new packages"
    assert chunk_name(tuple(components[:2])) == "a and b"
    assert chunk_name(tuple(components)) == "7 components"
