"""Which libostree is here, from what it says of itself."""

from __future__ import annotations

import pytest

from strata.ostree.libostree import KEEPS_VAR, parse_version

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("libostree:\n Version: '2022.7'\n Git: (unknown)\n", (2022, 7)),
        ("libostree:\n Version: '2024.10'\n", (2024, 10)),
        ("OSTree 2016.1\n", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_the_version_is_read(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


def test_months_compare_as_numbers() -> None:
    assert (2024, 10) > KEEPS_VAR > (2023, 11)
