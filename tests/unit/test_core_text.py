"""Text from outside, shown."""

from __future__ import annotations

import io

import pytest

from strata.core.events import Warned, plain
from strata.core.text import shown

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain → ünï", "plain → ünï"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r", "two\\x0alines\\x0d"),
        ("byte \udcff", "byte \\xff"),
        ("half \ud800", "half \\ud800"),
        ("\u202eback", "\\x202eback"),
    ],
)
def test_nothing_speaks_to_the_terminal(text: str, safe: str) -> None:
    assert shown(text) == safe
    assert shown(safe) == safe


def test_warnings_are_shown_so() -> None:
    sink = io.StringIO()
    plain(sink)(Warned("a \x1b]0;title\x07"))
    assert sink.getvalue() == "warning: a \\x1b]0;title\\x07\n"
