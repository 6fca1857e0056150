"""Layers above a base: which packages have one of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.container.derive import MAX_LAYERS, Change, group

pytestmark = pytest.mark.unit


def grouped(folder: Path, sizes: Mapping[str, int], prior: set[str]) -> set[str]:
    """The layers' titles when packages have these sizes."""
    found = []
    for name, size in sorted(sizes.items()):
        path = folder / f"{name}-{size}"
        with path.open("wb") as stream:
            stream.truncate(size)
        found.append(Change(f"usr/{name}", "file", str(path)))
    layers = group(found, lambda path: path.rpartition("/")[2], [], prior)
    assert sorted(c.path for _, changes in layers for c in changes) == [c.path for c in found]
    assert len(layers) <= MAX_LAYERS
    return {title for title, _ in layers}


def test_a_package_keeps_its_layer_though_others_grow_past_it(tmp_path: Path) -> None:
    sizes = {f"p{number:02}": 1000 + 10 * number for number in range(30)}
    first = grouped(tmp_path, sizes, set())
    assert first == {*(f"p{number}" for number in range(11, 30)), "11 small packages"}
    grown = {**sizes, "p05": 1115, "p10": 1500}
    assert grouped(tmp_path, grown, set()) != first
    assert grouped(tmp_path, grown, first) == first
    # What has become twice as large has a layer, in the place of the smallest.
    assert grouped(tmp_path, {**grown, "p10": 2500}, first) == first - {"p11"} | {"p10"}
    # A package that went leaves its layer to the largest that had none.
    without = {name: size for name, size in grown.items() if name != "p20"}
    assert grouped(tmp_path, without, first) == first - {"p20", "11 small packages"} | {
        "p10",
        "10 small packages",
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=15, max_size=40), st.sets(st.integers(0, 40)))
def test_the_same_image_as_prior_gives_the_same_layers(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], before: set[int]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    named = {f"p{number:02}": size for number, size in enumerate(sizes)}
    first = grouped(folder, named, {f"p{number:02}" for number in before})
    assert grouped(folder, named, first) == first
