"""`strata lock import`: a lock of another tool decides which builds ours has."""

from __future__ import annotations

import argparse
from pathlib import Path

from strata.cli.build import make_build_context
from strata.cli.context import Context, add_command
from strata.cli.lock.common import add_arches, show_kept
from strata.compose.lockforeign import (
    FCOS,
    FORMATS,
    check_prefetched,
    fcos_pins,
    read_konflux,
)
from strata.compose.lockupdate import keep, locked_targets, update_locks
from strata.core.errors import DefinitionError
from strata.rpm.konflux import Prefetched
from strata.treefile.target import Target

DESCRIPTION = """\
Solve a target with only the builds that another tool's lock names, and keep the
result. Whatever the lock does not have is an error, not an addition. Of
fedora-coreos-config, name the lock and then its overrides, the stronger later,
or their folder; rpms.lock.yaml is held against the repositories' checksums.

  strata lock import coreos/fcos --format fcos --arch x86_64 fedora-coreos-config
  strata lock import node/4.19 --format konflux rpms.lock.yaml
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "import", run, summary="take over a lock", description=DESCRIPTION
    )
    add = parser.add_argument
    add("target", metavar="TARGET", help="the layer that keeps the lock")
    add("files", nargs="+", metavar="FILE", help="the lock, and its overrides")
    add("--format", choices=FORMATS, required=True, help="what FILE is")
    add_arches(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Read the pins, solve with them, keep the result."""
    build = make_build_context(context)
    paths = [Path(name) for name in arguments.files]
    with build.workspace.locked():
        targets = locked_targets(build, [Target.parse(arguments.target)])
        if arguments.format == FCOS:
            arches = arguments.arch or [context.arch]
            pins = {arch: fcos_pins(paths, arch) for arch in arches}
            packages: dict[str, tuple[Prefetched, ...]] = {}
        else:
            packages = {}
            for path in paths:
                for arch, of in read_konflux(path).items():
                    packages[arch] = (*packages.get(arch, ()), *of)
            pins = {arch: tuple(one.nevra for one in of) for arch, of in packages.items()}
        changes = update_locks(build, targets, arguments.arch, pins=pins, reporter=context.reporter)
        if not changes:
            raise DefinitionError(
                f"{arguments.files[0]} has nothing for the architectures of {targets[0]}",
                hint=f"it is for: {', '.join(pins)}",
            )
        if packages:
            check_prefetched(changes, packages)
        files = [] if context.dry_run else keep(build, changes)
    return show_kept(context, changes, files)
