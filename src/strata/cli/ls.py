"""`strata ls`: what can be built, what was, and which releases share which base."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from dataclasses import asdict

from strata.cli.context import Context, add_command, print_json
from strata.cli.progress import print_table
from strata.compose.context import BuildContext
from strata.compose.overview import Row, hotfixes_of, rows_of
from strata.compose.workspace import Workspace
from strata.core.errors import UsageError
from strata.core.text import shown
from strata.treefile.project import load_project

DESCRIPTION = """\
List the targets of strata.toml: each stream's layers, and the releases that
stand on them. What the store has of a target is shown as it is; whether it is up
to date, `strata build --dry-run` says. Below stand what is ahead of a base, by how
much, and the hotfixes.

  strata ls
  strata ls 'node/*' --json
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "ls", run, summary="list targets, and who shares a base", description=DESCRIPTION
    )
    parser.add_argument("pattern", nargs="?", default="*", metavar="GLOB", help="e.g. 'node/*'")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """List them."""
    project = load_project(context.definitions)
    building = BuildContext(project, Workspace(context.store), context.arch, context.jobs)
    rows = rows_of(building)
    wanted = [row for row in rows if fnmatch.fnmatchcase(row.target, arguments.pattern)]
    if not wanted:
        raise UsageError(
            f"no target is like {arguments.pattern}",
            hint="there are " + ", ".join(row.target for row in rows),
        )
    if context.as_json:
        document = [asdict(row) for row in wanted]
        print_json(document)
        return 0
    columns = ["target", "stands on", "version in the store", "digest", "", "shares its base with"]
    print_table("", columns, [_shown(row) for row in wanted])
    for row in wanted:
        sys.stdout.writelines(f"{row.target}: {shown(debt)}\n" for debt in row.debts)
    for hotfix in hotfixes_of(building) if arguments.pattern == "*" else ():
        sys.stdout.write(f"{shown(hotfix)}\n")
    return 0


def _shown(row: Row) -> list[str]:
    return [
        row.target,
        row.base,
        row.version,
        row.digest.removeprefix("sha256:")[:12],
        "base moved on" if row.behind else "",
        ", ".join(row.shares),
    ]
