"""`strata treefile`: read, explain, compare and tidy treefiles. One module a verb."""

from __future__ import annotations

import argparse

from strata.cli.context import add_group
from strata.cli.treefile import diff, explain, flatten, fmt, lint, schema

VERBS = (flatten, explain, diff, lint, fmt, schema)

DESCRIPTION = """\
Treefiles are rpm-ostree's definitions of a tree. They are read as rpm-ostree
reads them; nothing needs to be built, and no strata.toml is needed.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(
        commands, "treefile", summary="read and check definitions", description=DESCRIPTION
    )
    for module in VERBS:
        module.register(verbs)
