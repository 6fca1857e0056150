"""`strata lock export`: locks in the form of another tool."""

from __future__ import annotations

import argparse
import sys

from strata.cli.build import make_build_context
from strata.cli.context import Context, add_command
from strata.cli.lock.common import add_arches
from strata.compose.lockforeign import FCOS, FORMATS, any_locks, export
from strata.treefile.target import Target

DESCRIPTION = """\
Print the locks of targets (those they keep, else those of their last build) as a
manifest lock (fcos), which rpm-ostree and the tools of fedora-coreos-config
read, or as rpms.lock.yaml (konflux), from which Konflux prefetches packages.
Several targets become one lock.

  strata lock export bootc/s coreos/s --format fcos --arch x86_64 >manifest-lock.x86_64.json
  strata lock export node/4.19 --format konflux >rpms.lock.yaml
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "export", run, summary="a lock in another tool's form", description=DESCRIPTION
    )
    add = parser.add_argument
    add("targets", nargs="+", metavar="TARGET", help="layers")
    add("--format", choices=FORMATS, default=FCOS, help="the form (default: fcos)")
    add_arches(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print it."""
    build = make_build_context(context)
    targets = [build.project.canonical(Target.parse(text)) for text in arguments.targets]
    locks = {target: any_locks(build, target, arguments.arch) for target in targets}
    sys.stdout.write(export(build, locks, arguments.format, context.reporter))
    return 0
