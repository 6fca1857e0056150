"""`strata image owner`: which layer, package and definition line a path comes from."""

from __future__ import annotations

import argparse
from pathlib import Path

from strata.cli.context import Context, add_command
from strata.cli.image.looking import add_arch_option, all_files, opened, print_json, write
from strata.core.text import shown
from strata.inspect.diff import Opened
from strata.inspect.owner import Owner, owner_of, read_locks
from strata.inspect.packages import NoDatabaseError, read_base_packages, read_inventory_in
from strata.oci.reference import SignedReference
from strata.rpm.inventory import Inventory

DESCRIPTION = """\
Say where a path of an image comes from: the layer that put it there, the
package that owns it, and, when the store has the lock the image was built
from, the line of a treefile that brought the package in.

  strata image owner oci:build/store:node/4.19@sample-12 /usr/bin/kubectl
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "owner", run, summary="say where a path comes from", description=DESCRIPTION
    )
    parser.add_argument("image", metavar="IMGREF", help="e.g. oci:DIR:TAG or docker://HOST/NAME")
    parser.add_argument("path", metavar="PATH", help="a path in the image")
    add_arch_option(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Find out and print."""
    with opened(context, arguments, arguments.image) as image:
        files = all_files(context, image, digests=False).files
        inventory, problem = _inventory(image)
        view = image[1]
        base = read_base_packages(*image) if view.base_layers and not problem else None
    locks = read_locks(_store(context, arguments.image), view)
    owner = owner_of(view, files, inventory, base, locks, arguments.path)
    if context.as_json:
        print_json(_document(owner))
        return 0
    link = f" → {shown(owner.file.target)}" if owner.file.kind == "link" else ""
    write(f"{shown(owner.path)}{link}")
    write(f"  layer    {owner.layer.number}, {owner.layer.kind}: {owner.layer.summary}")
    write(f"           {owner.layer.digest}")
    for nevra, mark in owner.packages:
        write(f"  package  {nevra}" + (f"  ({mark})" if mark else ""))
        if nevra in owner.reasons:
            reason = owner.reasons[nevra]
            write(f"  because  {reason.words}", f"           by {reason.lock}")
        else:
            write("  because  not known: no lock in the store names it (--store DIR)")
    if not owner.packages:
        write(f"  package  {problem or 'no package owns it'}")
    return 0


def _inventory(image: Opened) -> tuple[Inventory, str]:
    """The packages with their files; and why there are none, for an image of no rpm system."""
    try:
        return read_inventory_in(*image, image[1].layers)[0], ""
    except NoDatabaseError as error:
        return Inventory(()), error.message


def _store(context: Context, image: str) -> Path:
    """The store with the locks: the image's own layout, when that is one."""
    reference = SignedReference.parse_any(image).image
    beside = Path(reference.name)
    own = reference.transport == "oci" and (beside / "locks").is_dir()
    return beside if own else context.store


def _document(owner: Owner) -> dict[str, object]:
    return {
        "path": shown(owner.path),
        "file": owner.file.to_json(),
        "layer": owner.layer.to_json(),
        "packages": [
            {
                "nevra": str(nevra),
                "from": mark or None,
                "lock": owner.reasons[nevra].lock if nevra in owner.reasons else None,
                "because": owner.reasons[nevra].words if nevra in owner.reasons else None,
            }
            for nevra, mark in owner.packages
        ],
    }
