"""`strata ignition embed`: a config into a live image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from strata.bootimage.embed import append_to_initramfs, embed_in_iso, embedded
from strata.cli.context import Context, add_command
from strata.cli.ignition.common import read_file
from strata.core.errors import UsageError

DESCRIPTION = """\
Write an Ignition config into a live ISO, in place, or append it to the
initramfs of a PXE boot: what boots it is set up by the config.

  strata ignition embed live.iso --config config.ign
  strata ignition embed initramfs.img --initramfs --config config.ign
  strata ignition embed live.iso --show
  strata ignition embed live.iso --remove

Work on a copy of the store's file: one image serves many machines.
"""


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        verbs,
        "embed",
        run,
        summary="write a config into a live image",
        description=DESCRIPTION,
    )
    parser.add_argument("image", metavar="FILE", help="a live ISO, or an initramfs")
    parser.add_argument("--config", metavar="FILE", help="the config; - is standard input")
    parser.add_argument("--initramfs", action="store_true", help="FILE is an initramfs")
    parser.add_argument("--force", action="store_true", help="replace the config that is there")
    parser.add_argument("--remove", action="store_true", help="take the ISO's config out")
    parser.add_argument("--show", action="store_true", help="print the ISO's config")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Do one of the three."""
    context.no_dry_run("ignition embed")
    image = Path(arguments.image)
    if not image.is_file():
        raise UsageError(f"there is no file {image}")
    asked = [bool(arguments.config), arguments.remove, arguments.show]
    if sum(asked) != 1:
        raise UsageError("one of --config, --remove and --show is to be given")
    if arguments.initramfs and not arguments.config:
        raise UsageError("--initramfs goes with --config", hint="what is appended stays")
    if arguments.show:
        with open(image, "rb") as stream:
            found = embedded(stream)
        if found is None:
            raise UsageError(f"{image} has no Ignition config")
        sys.stdout.buffer.write(found)
        return 0
    config = None
    if arguments.config:
        piped = arguments.config == "-"
        config = sys.stdin.buffer.read() if piped else read_file(arguments.config, "--config")
    if arguments.initramfs and config is not None:
        append_to_initramfs(image, config)
    else:
        embed_in_iso(image, config, force=arguments.force)
    return 0
