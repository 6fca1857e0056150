"""`strata image prune`: what no image needs goes, from a repository or a layout."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from strata.cli.context import Context, add_command
from strata.cli.progress import size
from strata.container.refs import image_ref
from strata.container.stored import forget_unneeded
from strata.core.errors import UsageError
from strata.oci import prune as blobs
from strata.oci.layout import Layout
from strata.oci.reference import ImageReference, SignedReference
from strata.ostree import prune as objects
from strata.ostree.repo import Repo

DESCRIPTION = """\
Remove what no image needs any more: in a repository, layers that no stored or
deployed image has, and objects that no ref reaches; in a layout, blobs that no
tag reaches and that are older than an hour.

  strata image prune --repo /ostree/repo --forget docker://registry.example/os:4.18
  strata image prune oci:build/store --forget node/4.18@sample-12
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "prune", run, summary="remove what no image needs", description=DESCRIPTION
    )
    parser.add_argument("layout", metavar="oci:DIR", nargs="?", help="a layout")
    parser.add_argument("--repo", metavar="DIR", help="an OSTree repository")
    parser.add_argument(
        "--forget",
        metavar="NAME",
        action="append",
        default=[],
        help="first forget this image (of a repository) or tag (of a layout)",
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Prune, and say what went."""
    if bool(arguments.layout) == bool(arguments.repo):
        raise UsageError("prune needs a layout or a repository", hint="write oci:DIR or --repo DIR")
    dry_run = context.dry_run
    if dry_run and arguments.forget:
        raise UsageError("--dry-run cannot forget an image first", hint="leave --forget out")
    if arguments.repo:
        repo = Repo.open(Path(arguments.repo))
        for name in arguments.forget:
            ref = image_ref(SignedReference.parse_any(name).image)
            if repo.resolve(ref) is None:
                raise UsageError(f"{arguments.repo} stores no image {name}")
            repo.delete_ref(ref)
        if not dry_run:
            forget_unneeded(repo, wait=True)
        done: objects.Pruned | blobs.PrunedBlobs = objects.prune(repo, dry_run=dry_run)
    else:
        reference = ImageReference.parse(arguments.layout)
        if reference.transport != "oci" or reference.tag:
            raise UsageError(f"{reference} is not a layout", hint="write oci:DIR")
        layout = Layout.open(Path(reference.name))
        for name in arguments.forget:
            layout.untag(name)
        done = blobs.prune(layout, dry_run=dry_run)
    if context.as_json:
        sys.stdout.write(json.dumps({**asdict(done), "dry_run": dry_run}, sort_keys=True) + "\n")
    else:
        what = "objects" if arguments.repo else "blobs"
        verb = "would go" if dry_run else "went"
        sys.stdout.write(
            f"{done.removed} {what} {verb} ({size(done.freed_bytes)}), {done.kept} stay\n"
        )
    return 0
