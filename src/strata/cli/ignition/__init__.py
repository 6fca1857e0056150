"""`strata ignition`: configs for a machine's first boot. One module a verb."""

from __future__ import annotations

import argparse

from strata.cli.context import add_group
from strata.cli.ignition import bootstrap, check

VERBS = (bootstrap, check)

DESCRIPTION = """\
Ignition configs: one that puts the node agent on a machine that boots the
CoreOS image, and a look at what a config needs too early.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(
        commands, "ignition", summary="configs for a first boot", description=DESCRIPTION
    )
    for module in VERBS:
        module.register(verbs)
