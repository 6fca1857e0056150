"""How changed locks are shown: for each target and architecture, what moved."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from strata.compose.lockdiff import Line, changelog, counts, describe, of_packages
from strata.compose.lockupdate import LockChange


def show_lines(lines: Sequence[Line], indent: str = "") -> None:
    """A changelog for people, its totals last."""
    kind = ""
    for line in lines:
        if line.kind != kind:
            kind = line.kind
            sys.stdout.write(f"{indent}{kind}:\n")
        sys.stdout.write(f"{indent}  {describe(line)}\n")
    sys.stdout.write(f"{indent}{counts(lines)}\n")


def show_changes(changes: Sequence[LockChange], files: Sequence[str]) -> None:
    """What moved in each lock; of a new one only how large it is. files: those written."""
    for change in changes:
        title = f"{change.target} {change.new.arch}"
        if change.old is None:
            sys.stdout.write(f"{title}: {len(change.new.packages)} packages locked\n")
            continue
        sys.stdout.write(f"{title}:\n")
        show_lines(_lines(change), "  ")
    sys.stdout.writelines(f"written: {file}\n" for file in files)


def changes_json(changes: Sequence[LockChange]) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "target": str(change.target),
            "arch": change.new.arch,
            "new": change.old is None,
            "packages": len(change.new.packages),
            "changes": [line.to_json() for line in _lines(change)],
        }
        for change in changes
    ]


def _lines(change: LockChange) -> tuple[Line, ...]:
    old = change.old.packages if change.old else ()
    return changelog(of_packages(old), of_packages(change.new.packages))
