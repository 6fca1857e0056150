"""`strata image`: between OSTree and OCI, and looking at images. One module a verb."""

from __future__ import annotations

import argparse

from strata.cli.context import add_group
from strata.cli.image import (
    copy,
    diff,
    encapsulate,
    import_,
    index,
    inspect,
    lint,
    ls,
    owner,
    prune,
    simulate,
)

VERBS = (inspect, ls, owner, diff, lint, encapsulate, import_, copy, index, prune, simulate)

DESCRIPTION = """\
Container images of operating systems: make one from an OSTree commit, bring one
back to a repository, look into it, compare two, copy and prune.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(
        commands, "image", summary="make, import and compare images", description=DESCRIPTION
    )
    for module in VERBS:
        module.register(verbs)
