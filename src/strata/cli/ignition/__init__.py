"""`strata ignition`: configs for a machine's first boot. One module a verb."""

from __future__ import annotations

import argparse

from strata.cli.context import add_group
from strata.cli.ignition import bootstrap, check, embed

VERBS = (bootstrap, check, embed)

DESCRIPTION = """\
Ignition configs: one that puts the node agent on a machine that boots the
CoreOS image, a look at what a config needs too early, and a config in a live
image.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(
        commands, "ignition", summary="configs for a first boot", description=DESCRIPTION
    )
    for module in VERBS:
        module.register(verbs)
