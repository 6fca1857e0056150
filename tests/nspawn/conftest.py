"""What the tests that boot share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conftest import cache_folder, leftovers


@pytest.fixture(scope="session", autouse=True)
def nothing_left_running() -> Iterator[None]:
    """After all tests no process and no mount of theirs is there."""
    yield
    assert leftovers(cache_folder() / "tests") == []
