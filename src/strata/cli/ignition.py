"""`strata ignition`: configs of first boots, into live images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from strata.bootimage.embed import append_to_initramfs, embed_in_iso, embedded
from strata.cli.context import Context, add_command
from strata.core.errors import UsageError

EMBED_DESCRIPTION = """\
Write an Ignition config into a live ISO, in place, or append it to the
initramfs of a PXE boot: what boots it is set up by the config.

  strata ignition embed live.iso --config config.ign
  strata ignition embed initramfs.img --initramfs --config config.ign
  strata ignition embed live.iso --show
  strata ignition embed live.iso --remove

Work on a copy of the store's file: one image serves many machines.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    group = commands.add_parser("ignition", help="configs of first boots").add_subparsers(
        metavar="COMMAND", required=True
    )
    parser = add_command(
        group,
        "embed",
        embed,
        summary="write a config into a live image",
        description=EMBED_DESCRIPTION,
    )
    parser.add_argument("image", metavar="FILE", help="a live ISO, or an initramfs")
    parser.add_argument("--config", metavar="FILE", help="the config; - is standard input")
    parser.add_argument("--initramfs", action="store_true", help="FILE is an initramfs")
    parser.add_argument("--force", action="store_true", help="replace the config that is there")
    parser.add_argument("--remove", action="store_true", help="take the ISO's config out")
    parser.add_argument("--show", action="store_true", help="print the ISO's config")


def embed(context: Context, arguments: argparse.Namespace) -> int:
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
    config = _read(arguments.config) if arguments.config else None
    if arguments.initramfs and config is not None:
        append_to_initramfs(image, config)
    else:
        embed_in_iso(image, config, force=arguments.force)
    return 0


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
