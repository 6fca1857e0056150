"""Hotfixes: a node layer with a change for one case, until a day (requirement R3.13).

A hotfix goes through the node layer's own pipeline, under a name of its own. Built on something
new, each of its changes is superseded (what it brings is there), conflicting (what it replaces is
no longer what it was), or still needed.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strata.compose.amend import (
    REDUNDANT,
    Ahead,
    Debt,
    Swap,
    make_swap,
    parse_ahead,
)
from strata.core.errors import DefinitionError
from strata.treefile.project import Hotfix, Project

NEEDED, SUPERSEDED, CONFLICTING = "still needed", "superseded", "conflicting"
HOTFIX_LABEL = "strata.hotfix"


@dataclass(frozen=True)
class Standing:
    """Where one change of a hotfix stands. subject: a path or a package."""

    subject: str
    state: str
    why: str

    def __str__(self) -> str:
        return f"{self.subject} is {self.state}: {self.why}"

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {"subject": self.subject, "state": self.state, "why": self.why}


def check_not_expired(hotfix: Hotfix, today: datetime.date) -> None:
    """Raises DefinitionError once a hotfix's day has come."""
    if today >= hotfix.expires:
        raise DefinitionError(
            f"{hotfix.place}: hotfix {hotfix.name} expired on {hotfix.expires}: {hotfix.reason}",
            hint="take it out, or give it a later day",
            context={"file": hotfix.place, "key": f"hotfix.{hotfix.name}.expires"},
        )


def changes_of(project: Project, hotfix: Hotfix) -> tuple[tuple[Swap, ...], tuple[Ahead, ...]]:
    """A hotfix's files and packages. Raises DefinitionError, UsageError."""
    of = f"hotfix {hotfix.name}"
    swaps = [make_swap(project.path / name, path, of) for path, name in hotfix.files.items()]
    ahead = [parse_ahead(text, hotfix.reason, of) for text in hotfix.packages]
    return tuple(swaps), tuple(ahead)


def standings(
    swaps: Sequence[Swap],
    before: Mapping[str, str],
    earlier: Mapping[str, str],
    debts: Sequence[Debt],
) -> list[Standing]:
    """Where a hotfix's changes stand.

    before: the sha256 of each path's file without the hotfix, empty for none. earlier: the same
    when the hotfix was last built; empty when it was not. debts: of its packages.
    """
    found = []
    for swap in swaps:
        was, now = earlier.get(swap.path, before[swap.path]), before[swap.path]
        if now == swap.sha256:
            found.append(Standing(swap.path, SUPERSEDED, "the node layer has this very file"))
        elif was != now:
            why = "what it replaces changed since the hotfix was last built"
            found.append(Standing(swap.path, CONFLICTING, why))
        else:
            what = "it replaces the same file as before" if now else "there is no such file"
            found.append(Standing(swap.path, NEEDED, what))
    for debt in debts:
        if debt.state == REDUNDANT:
            found.append(Standing(debt.package, SUPERSEDED, f"{debt.base} is there without it"))
        else:
            what = f"{debt.base} is older" if debt.base else "it is not there"
            found.append(Standing(debt.package, NEEDED, what))
    return found
