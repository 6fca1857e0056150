"""`strata image copy`: images from and to registries, layouts and archives."""

from __future__ import annotations

import argparse
import sys

from strata.cli.context import Context, add_command, print_json
from strata.cli.progress import size
from strata.oci.reference import ImageReference, SignedReference
from strata.oci.transfer import copy_image

DESCRIPTION = """\
Copy an image, and keep its digest. Credentials, mirrors and certificates are
skopeo's: its login, registries.conf and policy.json.

  strata image copy oci:build/store:node/4.19 docker://registry.example/node:4.19
  strata image copy --all docker://registry.example/node:4.19 oci-archive:node.tar:4.19

Of an index the image for --arch is copied; with --all the index and every image.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "copy", run, summary="copy an image, its digest kept", description=DESCRIPTION
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="e.g. oci:DIR:TAG")
    add("destination", metavar="DST", help="e.g. docker://HOST/NAME:TAG")
    add("--all", action="store_true", dest="every", help="an index with all its images")
    add("--arch", metavar="ARCH", help="of an index (default: this machine's)")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Copy, and say what was copied."""
    context.no_dry_run("strata image copy")
    given = SignedReference.parse_any(arguments.source)
    destination = ImageReference.parse(arguments.destination)
    with context.reporter.step(f"copy {given.image}"):
        done = copy_image(
            given.image,
            destination,
            architecture=arguments.arch or context.arch,
            every=arguments.every,
            signature=given.signature,
        )
    if context.as_json:
        places = {"source": str(given.image), "destination": str(destination)}
        print_json({**places, **done.to_json()})
        return 0
    images = "1 image" if done.images == 1 else f"{done.images} images"
    sys.stdout.write(
        f"{destination}: {done.digest}, {images}, {done.layers} layers, {size(done.size_bytes)}\n"
    )
    return 0
