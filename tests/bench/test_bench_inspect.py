"""How long looking at images in a layout takes, packages and layers; no file list is read."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from lookimages import looking
from strata.inspect.diff import compare_packages, fetch_of
from strata.inspect.packages import read_packages

pytestmark = pytest.mark.bench

ROUNDS = 5
BOUND_S = 0.3
BOOTC, COREOS, NODE, OTHER = (
    "bootc/sample-12",
    "coreos/sample-12",
    "node/4.19@sample-12",
    "node/4.20@sample-12",
)


def report(what: str, took: list[float]) -> float:
    median = statistics.median(took)
    print(f"\n{what:60} {median:>26.3f} s   (bound: {BOUND_S} s)", end="")
    return median


@pytest.mark.parametrize("tag", [COREOS, NODE])
def test_inspect(built_store: Path, tag: str) -> None:
    took = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        with looking(f"oci:{built_store}:{tag}") as image:
            assert read_packages(*image).nevras
        took.append(time.monotonic() - started)
    assert report(f"inspect {tag}", took) <= BOUND_S


@pytest.mark.parametrize(("a", "b"), [(NODE, OTHER), (COREOS, NODE), (BOOTC, COREOS)])
def test_diff(built_store: Path, a: str, b: str) -> None:
    took = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        with looking(f"oci:{built_store}:{a}") as old, looking(f"oci:{built_store}:{b}") as new:
            assert compare_packages(old, new).new
            assert fetch_of(old[1], new[1]).size_bytes
        took.append(time.monotonic() - started)
    assert report(f"diff {a} {b}", took) <= BOUND_S
