"""`strata clean`: end machines left running, and remove the store."""

from __future__ import annotations

import argparse

from strata.cli.context import Context, add_command
from strata.compose.workspace import Workspace
from strata.core.files import remove_tree
from strata.machine.nspawn import stop_detached


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "clean",
        clean,
        summary="end machines left running, and remove the store",
        description="End the machines that `strata run --keep` left running and remove the whole "
        "store.\nThe download cache stays. A folder that is not a store, or that a build is using,"
        "\nis left alone.",
    )
    parser.add_argument(
        "--cache",
        action="store_true",
        help="remove only the store's cache: packages, metadata, what steps made",
    )


def clean(context: Context, arguments: argparse.Namespace) -> int:
    """Machines first: what they have mounted is in the store."""
    workspace = Workspace(context.store)
    if not workspace.exists():
        context.reporter.note(f"there is no store in {context.store}")
        return 0
    with workspace.locked():
        if arguments.cache:
            if context.dry_run:
                context.reporter.note(f"would remove {workspace.cache}")
            else:
                remove_tree(workspace.cache)
            return 0
        machines = workspace.machines
        for folder in sorted(machines.iterdir()) if machines.is_dir() else ():
            if context.dry_run:
                context.reporter.note(f"would end and remove machine {folder.name}")
            elif stop_detached(folder):
                context.reporter.note(f"ended machine {folder.name}")
        if context.dry_run:
            context.reporter.note(f"would remove {context.store}")
        else:
            remove_tree(context.store)
    return 0
