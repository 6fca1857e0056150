"""`strata lint`: what the definitions of targets ask for."""

from __future__ import annotations

import argparse

from strata.cli.context import Context, add_command
from strata.cli.lintpublic import show_needs
from strata.core.errors import UsageError
from strata.treefile.target import Target

DESCRIPTION = """\
Look into the definitions of targets. Nothing is fetched.

  strata lint --public              what builds need that is not public: repositories,
  strata lint --public node/4.19    images and secrets, with the line that asks for each

What is public is declared in strata.toml, by prefixes of addresses and images:
public = ["https://mirror.example/", "registry.example/os"]. Exits with 1 when
something is not. Treefiles are looked at by `strata treefile lint`.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "lint", run, summary="look into targets' definitions", description=DESCRIPTION
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all targets")
    parser.add_argument("--public", action="store_true", help="list what is not public")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the findings."""
    targets = [Target.parse(text) for text in arguments.targets]
    if not arguments.public:
        raise UsageError("say what to look for", hint="strata lint --public")
    return show_needs(context, targets)
