"""`strata publish`: images of the store under their tags in the registry."""

from __future__ import annotations

import argparse
import sys

from strata.cli.build import make_build_context
from strata.cli.context import Context, add_command, print_json
from strata.compose.publish import publish_targets
from strata.treefile.target import Target

DESCRIPTION = """\
Push images that are built to strata.toml's registry, by its tags: first under a
unique tag, which is never moved, then under the moving one. A node image brings
its extensions, before its own moving tag. What has swapped components, or a
developer's version, is refused; a hotfix has tags of its own.

  strata publish coreos/sample-12 node/4.19
  strata publish hotfix/case-0042 --dry-run
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "publish", run, summary="push images by the tag policy", description=DESCRIPTION
    )
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="e.g. node/4.19")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Push, and say what has which tag now."""
    done = publish_targets(
        make_build_context(context),
        [Target.parse(text) for text in arguments.targets],
        dry_run=context.dry_run,
        reporter=context.reporter,
    )
    if context.as_json:
        print_json([item.to_json() for item in done])
        return 0
    for item in done:
        state = "would be pushed" if context.dry_run else "pushed"
        sys.stdout.write(f"{item.target}: {item.digest} {state}\n")
        already = "" if item.new else "  (there already)"
        sys.stdout.write(f"  {item.tags.unique}{already}\n  {item.tags.moving}  (moving)\n")
    return 0
