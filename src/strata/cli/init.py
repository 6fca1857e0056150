"""`strata init`: a strata.toml for definitions that exist."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from strata.cli.context import Context, add_command, print_json
from strata.core.errors import DefinitionError
from strata.core.files import atomic_write
from strata.treefile.project import FILE
from strata.treefile.propose import propose

DESCRIPTION = """\
Write a strata.toml that says how existing definitions go together: build-args
files, treefiles, extensions and .repo files, found in the folders named. None of
them is changed. What could not be read off is said.

  git clone REPO/rhel-coreos-config && git clone REPO/os
  strata init --from rhel-coreos-config --from os

With --dry-run the file is printed and not written.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "init",
        run,
        summary="write a strata.toml for existing definitions",
        description=DESCRIPTION,
    )
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="DIR",
        action="append",
        help="a folder of definitions (several times; default: where the file is written)",
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Write it, unless there is one."""
    folder = context.definitions
    path = folder / FILE
    sources = [folder / source for source in arguments.sources or ["."]]
    proposal = propose(folder, [Path(source) for source in sources])
    if not context.dry_run:
        if path.exists():
            raise DefinitionError(
                f"there is a {FILE} in {folder.absolute()} already",
                hint="--dry-run prints what would be written",
            )
        atomic_write(path, proposal.text.encode())
    if context.as_json:
        document = {"file": str(path), "text": proposal.text, "notes": list(proposal.notes)}
        print_json(document)
        return 0
    if context.dry_run:
        sys.stdout.write(proposal.text)
    else:
        sys.stdout.write(f"{path}\n")
    for note in proposal.notes:
        sys.stderr.write(f"strata: {note}\n")
    return 0
