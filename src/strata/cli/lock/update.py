"""`strata lock update`: solve anew into the files that definitions keep."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from strata.cli.build import make_build_context
from strata.cli.context import Context, add_command
from strata.cli.lock.common import add_arches, show_kept
from strata.compose.lockupdate import keep, locked_targets, update_locks
from strata.core.errors import UsageError
from strata.treefile.target import Target

DESCRIPTION = """\
Solve the layers that keep a lock anew, for all their architectures, and say
what moved. A word with a slash is a target; any other is a package, and then
only packages named move. With --dry-run nothing is written.

  strata lock update                        every lock
  strata lock update node/4.19 cri-o        one package of one layer
  strata lock update coreos/rhel-9.8 --arch aarch64
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(commands, "update", run, summary="solve anew", description=DESCRIPTION)
    parser.add_argument(
        "words", nargs="*", metavar="TARGET|PACKAGE", help="what to lock, what may move"
    )
    add_arches(parser)


def split_words(words: Sequence[str]) -> tuple[list[Target], list[str]]:
    """Targets and package names. Raises UsageError on a word with a slash that is no target."""
    targets = [Target.parse(word) for word in words if "/" in word]
    return targets, [word for word in words if "/" not in word]


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Solve, write, and print the changelog."""
    build = make_build_context(context)
    named, packages = split_words(arguments.words)
    with build.workspace.locked():
        targets = locked_targets(build, named)
        changes = update_locks(
            build, targets, arguments.arch, only=packages, reporter=context.reporter
        )
        if not changes:
            raise UsageError("there is nothing to lock")
        files = [] if context.dry_run else keep(build, changes)
    return show_kept(context, changes, files)
