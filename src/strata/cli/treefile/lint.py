"""`strata treefile lint`: what loads, and yet is likely not what was meant."""

from __future__ import annotations

import argparse
import sys

from strata.cli.context import Context, add_command, print_json
from strata.cli.treefile.common import FILES, add_file, chosen
from strata.treefile.lint import ERROR, NOTE, WARNING, lint

DESCRIPTION = f"""\
Look for what a treefile says twice, against itself, in an old spelling, or where
it has no effect. Exits with 1 when rpm-ostree would refuse it, with --strict on
warnings too; notes never fail.

{FILES}"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "lint", run, summary="look for likely mistakes", description=DESCRIPTION
    )
    add_file(parser)
    parser.add_argument("--strict", action="store_true", help="warnings fail too")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the findings."""
    with chosen(context, arguments, arguments.file) as choice:
        found = lint(choice.flatten())
    if context.as_json:
        document = [finding.to_json() for finding in found]
        print_json(document)
    else:
        for finding in found:
            sys.stdout.write(
                f"{finding.place}: {finding.severity}: {finding.message} [{finding.rule}]\n"
            )
        counts = {level: sum(f.severity == level for f in found) for level in (ERROR, WARNING)}
        notes = sum(finding.severity == NOTE for finding in found)
        sys.stdout.write(f"{counts[ERROR]} errors, {counts[WARNING]} warnings, {notes} notes\n")
    fails = (ERROR, WARNING) if arguments.strict else (ERROR,)
    return 1 if any(finding.severity in fails for finding in found) else 0
