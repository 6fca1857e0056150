"""The fuzz targets on their seeds and on every input that broke one of them once."""

from __future__ import annotations

from pathlib import Path

import pytest
from seeds import SEEDS
from targets import CORPUS, TARGETS

pytestmark = pytest.mark.unit

KEPT = [(path.parent.name, path) for path in sorted(CORPUS.glob("*/*"))]


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_seeds_and_their_beginnings(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)
        for length in range(0, len(seed), max(1, len(seed) // 50)):
            TARGETS[name](seed[:length])


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{n}/{p.name}" for n, p in KEPT])
def test_what_broke_a_target_once(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


def test_a_target_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that lets another error out breaks its target."""
    monkeypatch.setattr("targets.parse_payload", lambda data: [][1])
    with pytest.raises(IndexError):
        TARGETS["documents"](b"{}")
