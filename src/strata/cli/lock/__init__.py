"""`strata lock`: locks compared, and in other tools' form. One module a verb."""

from __future__ import annotations

import argparse

from strata.cli.context import add_group
from strata.cli.lock import diff, export

DESCRIPTION = """\
A lock says exactly which packages a layer has. Builds write one for each target
into the store (STORE/locks).
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(commands, "lock", summary="compare and export locks", description=DESCRIPTION)
    for module in (diff, export):
        module.register(verbs)
