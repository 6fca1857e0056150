"""`strata lock check`: whether kept locks still hold."""

from __future__ import annotations

import argparse
import sys

from strata.cli.build import make_build_context
from strata.cli.context import Context, add_command, print_json
from strata.cli.lock.common import add_arches
from strata.compose.lockcheck import check_locks
from strata.compose.lockupdate import locked_targets
from strata.treefile.target import Target

DESCRIPTION = """\
Hold kept locks against the treefiles (is it still what they ask?), against the
repositories (is every package still there, with the same bytes?) and against
each other (is an architecture late?). Exit status 1 when one has to be made
anew. Newer builds are told, and are no fault.

  strata lock check
  strata lock check node/4.19 --arch x86_64
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "check", run, summary="whether locks still hold", description=DESCRIPTION
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all with a lock")
    add_arches(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print what is to be said."""
    build = make_build_context(context)
    named = [Target.parse(text) for text in arguments.targets]
    with build.workspace.locked():
        targets = locked_targets(build, named)
        findings = check_locks(build, targets, arguments.arch, context.reporter)
    faults = [item for item in findings if item.is_fault]
    if context.as_json:
        print_json([item.to_json() for item in findings])
    else:
        for item in findings:
            sys.stdout.write(f"{'fault' if item.is_fault else 'note '}  {item}\n")
        newer = len(findings) - len(faults)
        sys.stdout.write(
            f"{len(targets)} targets checked: {len(faults)} faults, {newer} newer builds\n"
        )
    return 1 if faults else 0
