"""`strata lock`: the locks that definitions keep, and those of other tools. One module a verb."""

from __future__ import annotations

import argparse

from strata.cli.context import add_group
from strata.cli.lock import check, diff, export, import_, update

DESCRIPTION = """\
A lock says exactly which packages a layer has, with checksums and why. Where
strata.toml names a file (lock = "locks/x.lock"), it keeps the locks of all
architectures and decides alone; elsewhere a build solves anew. What a build
used is in the store (STORE/locks).
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(
        commands, "lock", summary="make, check and compare locks", description=DESCRIPTION
    )
    for module in (update, check, diff, import_, export):
        module.register(verbs)
