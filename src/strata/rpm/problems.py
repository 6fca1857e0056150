"""A solver's explanation, for people: shortened, and with the lines that asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from strata.rpm.nevra import NEVRA

MAX_LINES = 6
_HEAD = re.compile(r"Problem( \d+)?: ")
_EMPTY = "conflicting requests"  # dnf says so of every problem with what was asked for
_WORD = re.compile(r"[A-Za-z0-9][\w.+~^:-]*")


def explain(message: str, requests: Sequence[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
    """dnf's explanation as one sentence, and who asked for what stands in it: `NAME at LINE`.

    message: lines, each a reason, problems one after another. requests: texts and their places.
    Equal lines stand once, at most MAX_LINES of them, and what says nothing does not.
    """
    said = [_HEAD.sub("", line.strip(" -")) for line in message.splitlines() if line.strip()]
    lines = list(dict.fromkeys(line for line in said if line != _EMPTY)) or said[:1]
    shown = lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        shown.append(f"and {len(lines) - MAX_LINES} more reasons")
    found = [nevra for line in lines for word in _WORD.findall(line) if (nevra := _nevra(word))]
    asked = [
        f"{text} at {place}"
        for text, place in requests
        if any(text == nevra.name or str(nevra).startswith(f"{text}.") for nevra in found)
    ]
    return "; ".join(shown), tuple(dict.fromkeys(asked))


def _nevra(word: str) -> NEVRA | None:
    try:
        return NEVRA.parse(word)
    except ValueError:
        return None
