"""What the verbs have in common: which architectures, and what moved in which lock."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from strata.cli.context import Context, print_json
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


def add_arches(parser: argparse.ArgumentParser) -> None:
    """The option that chooses among the architectures that are locked."""
    parser.add_argument(
        "--arch", action="append", default=[], metavar="ARCH", help="only these architectures"
    )


def show_kept(context: Context, changes: Sequence[LockChange], files: Sequence[str]) -> int:
    """What moved in each lock, and the files that were written."""
    if context.as_json:
        print_json({"files": files, "changes": _changes_json(changes)})
    else:
        _show_changes(changes, files)
    return 0


def _show_changes(changes: Sequence[LockChange], files: Sequence[str]) -> None:
    """What moved in each lock; of a new one only how large it is. files: those written."""
    for change in changes:
        title = f"{change.target} {change.new.arch}"
        if change.old is None:
            sys.stdout.write(f"{title}: {len(change.new.packages)} packages locked\n")
            continue
        sys.stdout.write(f"{title}:\n")
        show_lines(_lines(change), "  ")
    sys.stdout.writelines(f"written: {file}\n" for file in files)


def _changes_json(changes: Sequence[LockChange]) -> list[dict[str, object]]:
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
