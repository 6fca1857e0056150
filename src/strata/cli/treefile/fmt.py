"""`strata treefile fmt`: one layout for all, comments kept."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from strata.cli.context import Context, add_command
from strata.core.errors import DefinitionError
from strata.core.files import atomic_write
from strata.treefile.yaml import reformat

DESCRIPTION = """\
Lay treefiles out alike: lists indented by two under their key, one item a line
as it was, comments and quotes kept. A file is written only if it says the same
afterwards. --check writes nothing and exits with 1 when one would change;
--diff shows how.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "fmt", run, summary="lay treefiles out alike", description=DESCRIPTION
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="treefiles")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1")
    parser.add_argument("--diff", action="store_true", help="show what changes")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Format each file."""
    changed = 0
    for name in arguments.files:
        path = context.definitions / name
        try:
            before = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DefinitionError(f"{path} cannot be read: {error}") from error
        after = reformat(before, str(name))
        if after == before:
            continue
        changed += 1
        if arguments.diff:
            lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(*lines, str(name), str(name)))
        if not arguments.check and not context.dry_run:
            atomic_write(Path(path), after.encode())
        if not arguments.diff:
            sys.stdout.write(f"{name}\n")
    return 1 if changed and arguments.check else 0
