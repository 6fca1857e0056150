"""docs/node.md answers every requirement of the overlay, by tests that exist."""

from __future__ import annotations

import re

import pytest

from conftest import ROOT

pytestmark = pytest.mark.unit

TEXT = (ROOT / "docs/node.md").read_text()


def test_each_requirement_of_the_overlay_has_an_answer() -> None:
    rows = re.findall(r"^\| R6\.(\d+) [^|]+\| (.+) \|$", TEXT, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, 29))


def test_tests_that_are_named_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT))
    assert len(named) > 20
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not (ROOT / path).exists() or f"def {name}" not in (ROOT / path).read_text()
    ]
    assert missing == []
