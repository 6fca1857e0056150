"""Upstream's packing, choice by choice: each quirk in a table small enough to follow by hand."""

from __future__ import annotations

import pytest

from strata.container.packing import ALWAYS, Component, _high_limit, _limits, _median, pack
from strata.container.packing_plan import Plan, PlannedChunk

pytestmark = pytest.mark.unit

# name, frequency, size
Row = tuple[str, int, int]


def components(*rows: Row) -> list[Component]:
    return [Component(f"{name}-1", name, name, often, size) for name, often, size in rows]


def names(packed: tuple[tuple[Component, ...], ...]) -> list[list[str]]:
    return [[item.name for item in chunk] for chunk in packed]


def plan(*chunks: str) -> Plan:
    return tuple(PlannedChunk(tuple(chunk.split())) for chunk in chunks)


def test_an_even_number_of_values_has_the_mean_of_its_middle_two() -> None:
    assert _median([1, 2, 4, 9]) == 3.0
    assert _median([1, 2, 9]) == 2.0


def test_limits_are_two_population_deviations_around_the_mean_the_lower_halved() -> None:
    # mean 5, deviation 2: 0.5·|5 - 4| and 5 + 4
    assert _limits([2, 4, 4, 4, 5, 5, 7, 9]) == (0.5, 9.0)
    # mean 1, deviation 2 (of 0, 0, 0, 0, 5): the lower limit is positive even below zero
    assert _limits([0, 0, 0, 0, 5]) == (1.5, 5.0)


@pytest.mark.parametrize(("bins", "high"), [(1, 0), (2, 1), (5, 3), (61, 36), (62, 37)])
def test_six_tenths_of_the_bins_are_for_large_ones(bins: int, high: int) -> None:
    assert _high_limit(bins) == high


# Sizes: median (8 + 8)/2, deviations 0 0 1 1 1 1 6 7 792 892, so the limits are 0.5·|8 - 2·1| = 3
# and 8 + 2·1 = 10. All of the middle has one frequency and much the same size: one group.
SPREAD = components(
    ("huge", 1, 900),
    ("large", 1, 800),
    ("m1", 4, 9),
    ("m2", 4, 9),
    ("m3", 4, 8),
    ("m4", 4, 8),
    ("m5", 4, 7),
    ("m6", 4, 7),
    ("small", 9, 2),
    ("tiny", 9, 1),
)


def test_a_merged_bin_lands_behind_the_one_that_followed() -> None:
    # 8 bins, 2 of them for the small and the new: 0.6·6 = 3 for large ones, 3 for the middle, and
    # (10 - 3 - 2) // 3 = 1 in each. 3 + 6 bins are to be 7. From 1 + 3 on every second, backwards:
    # bins 5 and 6 (m3, m4) are joined and land behind m5; bins 3 and 4 (m1, m2) behind m5 too.
    assert names(pack(SPREAD, 8)) == [
        ["huge"],
        ["large"],
        ["small", "tiny"],
        ["m5"],
        ["m1", "m2"],
        ["m3", "m4"],
        ["m6"],
        [],
    ]


def test_large_ones_too_many_are_grouped_with_the_middle_by_frequency_and_size() -> None:
    # 4 bins: one for a large one, one for the middle, 7 in it. `large` is in the middle, the least
    # frequent there: groups 4mf_hs and 4mf_ls. 4 bins are to be 3: the small ones and the first
    # group are joined, and land behind the second.
    assert names(pack(SPREAD, 4)) == [
        ["huge"],
        ["m1", "m2", "m3", "m4", "m5", "m6"],
        ["small", "tiny", "large"],
        [],
    ]


def test_no_room_in_a_bin_gives_a_group_an_empty_bin_and_then_one_each() -> None:
    # Median 7.5, deviation 6.5: small up to 2.75, large from 20.5. 12 bins, 6 for large ones and 4
    # for the middle: (12 - 6 - 5) // 4 = 0 in each.
    middle = (("m1", 4, 9), ("m2", 4, 9), ("m3", 4, 8), ("m4", 4, 8), ("m5", 4, 7))
    small = ((f"s{number}", 9, 1) for number in range(5))
    items = components(("huge", 1, 900), ("large", 1, 800), *middle, *small)
    assert names(pack(items, 12)) == [
        ["huge"],
        ["large"],
        ["s0", "s1", "s2", "s3", "s4"],
        [],
        ["m1"],
        ["m2"],
        ["m3"],
        ["m4"],
        ["m5"],
        [],
    ]


def test_the_unsigned_difference_below_zero_fills_one_bin_for_each_group() -> None:
    # 8 bins: 0.6·5 = 3 for large ones; 2 - 3 components are less than none.
    always = ((f"always{number}", ALWAYS, 9) for number in range(6))
    packed = names(pack(components(("a", 1, 5), ("b", 1, 3), *always), 8))
    assert packed == [["a", "b"], [f"always{number}" for number in range(6)], []]


def test_components_of_the_highest_frequency_share_the_bin_before_the_last() -> None:
    always: list[Row] = [("initramfs", ALWAYS, 50), ("rest", ALWAYS, 40)]
    rows = [(item.name, item.frequency, item.size_bytes) for item in SPREAD]
    packed = names(pack(components(*rows, *always), 8))
    assert packed[-2:] == [["initramfs", "rest"], []]


def test_nothing_gives_no_bins() -> None:
    assert pack([], 4) == ()
    assert pack([], 7) == ()


@pytest.mark.parametrize(
    ("prior", "packed"),
    [
        # kept as it was, in the order of the names
        (("a b", "c", ""), [["a", "b"], ["c"], []]),
        # what is gone is dropped; a bin left empty too, the last one apart
        (("a b gone", "gone2", "c", ""), [["a", "b"], ["c"], []]),
        (("", "a b", "c", "gone"), [["a", "b"], ["c"], []]),
        # what is new is added to the last bin, in order of name
        (("b", ""), [["b"], ["a", "c"]]),
        (("b", "c"), [["b"], ["c", "a"]]),
        # a name in two bins stays in the first
        (("a b", "a c", ""), [["a", "b"], ["c"], []]),
    ],
)
def test_a_plan_is_kept(prior: tuple[str, ...], packed: list[list[str]]) -> None:
    items = components(("a", 1, 3), ("b", 1, 2), ("c", 1, 1))
    assert names(pack(items, 4, plan(*prior))) == packed


def test_a_plan_of_more_bins_than_there_may_be_is_not_kept() -> None:
    items = components(*((name, 1, 1) for name in "abcde"))
    prior = plan("e", "d", "c", "b", "a", "")
    assert names(pack(items, 6, prior)) == [["e"], ["d"], ["c"], ["b"], ["a"], []]
    assert pack(items, 5, prior) == pack(items, 5)
    # Empty bins do not count.
    assert names(pack(items, 6, plan("e", "", "d", "c", "b", "a", "")))[0] == ["e"]


def test_components_of_one_name_stay_together() -> None:
    items = [Component(f"kernel-{n}", "kernel", "k", 1, 1) for n in (1, 2)]
    assert pack(items, 4, plan("kernel", "")) == ((items[0], items[1]), ())
