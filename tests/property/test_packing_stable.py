"""Laws of the packing that stays."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.container.packing import ALWAYS, Component, pack
from strata.container.packing_plan import Plan, PlannedChunk
from strata.container.packing_stable import (
    DECAY,
    chunk_content,
    expected_bytes,
    pack_stable,
    planned,
)

pytestmark = pytest.mark.property

Packed = tuple[tuple[Component, ...], ...]


@st.composite
def systems(draw: st.DrawFn, max_size: int = 40) -> list[Component]:
    numbers = draw(st.lists(st.integers(0, 200), unique=True, max_size=max_size))
    return [
        Component(
            f"p{number}",
            # Now and then two components have one name, as several kernels do.
            f"n{number // 2 if draw(st.integers(0, 9)) == 0 else number + 1000}",
            f"s{draw(st.integers(0, 30))}",
            draw(st.sampled_from([0, 1, 5, 30, 400, ALWAYS])),
            draw(st.integers(0, 1 << 28)),
            f"c{draw(st.integers(0, 3))}",
        )
        for number in numbers
    ]


@st.composite
def updates(draw: st.DrawFn) -> tuple[list[Component], list[Component]]:
    """A system, and what became of it."""
    before = draw(systems())
    after = []
    for item in before:
        fate = draw(st.sampled_from(["stays"] * 8 + ["changes", "goes"]))
        if fate == "changes":
            size = draw(st.integers(0, 1 << 28))
            after.append(replace(item, content=item.content + "+", size_bytes=size))
        elif fate == "stays":
            after.append(item)
    known = {item.name for item in before}
    for number in range(draw(st.integers(0, 4))):
        item = Component(f"new{number}", f"new{number}", "sn", 3, draw(st.integers(0, 99)), "c")
        assert item.name not in known
        after.append(item)
    return before, after


bins_of = st.integers(4, 24)
plans: st.SearchStrategy[Plan] = st.lists(
    st.builds(
        PlannedChunk,
        st.lists(st.integers(0, 1200).map(lambda n: f"n{n}"), max_size=5).map(tuple),
        st.sampled_from(["", "x"]),
    ),
    max_size=12,
).map(tuple)


@given(systems(), bins_of, plans)
def test_it_covers_every_component_once_within_the_limit_in_any_order(
    items: list[Component], bins: int, plan: Plan
) -> None:
    packed = pack_stable(items, bins, plan)
    assert sorted(item.identifier for chunk in packed for item in chunk) == sorted(
        item.identifier for item in items
    )
    assert len(packed) <= bins
    assert all(packed)
    assert pack_stable(items[::-1], bins, plan) == packed


@given(updates(), bins_of)
def test_the_plan_it_gave_gives_the_same_packing(
    update: tuple[list[Component], list[Component]], bins: int
) -> None:
    before, after = update
    first = pack_stable(before, bins)
    assert pack_stable(before, bins, planned(first)) == first
    second = pack_stable(after, bins, planned(first))
    assert pack_stable(after, bins, planned(second)) == second


@given(systems(), bins_of)
def test_the_plan_of_an_upstream_image_is_settled_after_one_build(
    items: list[Component], bins: int
) -> None:
    foreign = tuple(replace(chunk, content="") for chunk in planned(pack(items, bins)))
    first = pack_stable(items, bins, foreign)
    assert pack_stable(items, bins, planned(first)) == first


@given(updates(), st.integers(6, 24))
def test_what_did_not_change_stays_in_a_chunk_that_did_not(
    update: tuple[list[Component], list[Component]], bins: int
) -> None:
    before, after = update
    old = pack_stable(before, bins)
    new = pack_stable(after, bins, planned(old), decay=math.inf)
    contents = {(item.name, item.identifier): item.content for item in after}
    names = {item.name for item in after}
    kept = {chunk_content(chunk) for chunk in new}
    for chunk in old:
        same = all(
            contents.get((item.name, item.identifier)) == item.content for item in chunk
        ) and sum(item.name in {mate.name for mate in chunk} for item in after) == len(chunk)
        if same and chunk[0].frequency != ALWAYS and _there_is_room(old, after, bins):
            assert chunk_content(chunk) in kept, (chunk, names)


def _there_is_room(old: Packed, after: list[Component], bins: int) -> bool:
    """Whether what is new needs no room that an unchanged chunk has."""
    always = sum(item.frequency == ALWAYS for item in after)
    clean = sum(1 for chunk in old if chunk[0].frequency != ALWAYS)
    return clean + always < bins


@given(updates(), bins_of)
def test_it_never_decays_beyond_the_threshold(
    update: tuple[list[Component], list[Component]], bins: int
) -> None:
    before, after = update
    kept = expected_bytes(pack_stable(after, bins, planned(pack_stable(before, bins))))
    assert kept <= DECAY * expected_bytes(pack_stable(after, bins)) * (1 + 1e-9)


@given(systems(max_size=20))
def test_what_always_changes_has_a_chunk_of_its_own(items: list[Component]) -> None:
    for chunk in pack_stable(items, 64):
        if any(item.frequency == ALWAYS for item in chunk):
            assert len(chunk) == 1
