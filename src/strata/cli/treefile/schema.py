"""`strata treefile schema`: the JSON schema, for editors."""

from __future__ import annotations

import argparse
import json
import sys

from strata.cli.context import Context, add_command
from strata.treefile.jsonschema import treefile_schema

DESCRIPTION = """\
Print a JSON schema of treefiles, with a line on every field, for editors that
check and complete YAML by one.

  strata treefile schema >treefile.schema.json
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    add_command(commands, "schema", run, summary="print a JSON schema", description=DESCRIPTION)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print it."""
    sys.stdout.write(json.dumps(treefile_schema(), indent=2) + "\n")
    return 0
