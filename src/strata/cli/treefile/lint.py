"""`strata treefile lint`: what loads, and yet is likely not what was meant."""

from __future__ import annotations

import argparse

from strata.cli.context import Context, add_command
from strata.cli.treefile.common import FILES, add_file, chosen, print_findings
from strata.treefile.lint import lint

DESCRIPTION = f"""\
Look for what a treefile says twice, against itself, in an old spelling, or what
no build does. Exits with 1 when rpm-ostree or a build would refuse it, with
--strict on warnings too; notes never fail.

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
    return print_findings(context, found, strict=arguments.strict)
