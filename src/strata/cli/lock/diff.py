"""`strata lock diff`: two locks as a changelog."""

from __future__ import annotations

import argparse
from pathlib import Path

from strata.cli.context import Context, add_command, print_json
from strata.cli.lock.common import show_lines
from strata.compose.lockdiff import changelog, read_lock

DESCRIPTION = """\
Compare two locks: ours, or manifest locks of rpm-ostree and fedora-coreos-config
(manifest-lock.ARCH.json, override files). Packages of one source that moved
alike are one line. With --exit-code a difference exits with 1.

  strata lock diff old/manifest-lock.x86_64.json manifest-lock.x86_64.json
  strata lock diff yesterday.lock build/store/locks/node/4.19@sample-12.lock
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "diff", run, summary="two locks as a changelog", description=DESCRIPTION
    )
    add = parser.add_argument
    add("old", metavar="OLD", help="a lock")
    add("new", metavar="NEW", help="another")
    add("--target", metavar="TARGET", default="", help="of files that hold several")
    add("--arch", metavar="ARCH", help="of builds that do not say (default: this machine's)")
    add("--exit-code", action="store_true", help="exit with 1 when they differ")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the changelog."""
    arch = arguments.arch or context.arch
    names = (arguments.old, arguments.new)
    old, new = (read_lock(Path(name), arch, arguments.target) for name in names)
    lines = changelog(old, new)
    if context.as_json:
        document = [line.to_json() for line in lines]
        print_json(document)
    else:
        show_lines(lines)
    return 1 if lines and arguments.exit_code else 0
