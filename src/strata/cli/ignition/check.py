"""`strata ignition check`: what a config needs from the node image before that is there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from strata.bootimage.ignition.check import Finding, Images, Report, check
from strata.bootimage.ignition.contents import read_contents
from strata.cli.context import Context, add_command
from strata.cli.ignition.common import read_file
from strata.cli.image.looking import (
    add_arch_option,
    all_files,
    opened,
    plural,
    print_json,
    write,
)
from strata.core.errors import UsageError
from strata.inspect.entries import File, LayerEntries
from strata.inspect.files import LayerKey
from strata.inspect.owner import packages_owning
from strata.inspect.packages import NoDatabaseError, read_inventory_in
from strata.node.units import OVERLAY, UNIT_FOLDER, Installation, unit_files
from strata.rpm.inventory import Inventory

DESCRIPTION = """\
Look in an Ignition config for programs that its units and scripts call, that the
node image has and the boot image lacks: they are not there before the overlay.
Units that start after the overlay are left alone. Exits with 1 when something is
found, or when units wait for each other.

  strata ignition check bootstrap.ign --node oci:build/store:node/4.19@sample-12
"""
SHOWN_TRAILS = 3


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "check",
        run,
        summary="find what a config needs before the overlay",
        description=DESCRIPTION,
    )
    parser.add_argument("config", metavar="FILE", help="the Ignition config")
    parser.add_argument("--node", metavar="IMGREF", required=True, help="the node image")
    parser.add_argument(
        "--boot", metavar="IMGREF", help="the boot image's (default: the node image's base)"
    )
    add_arch_option(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Read the config and the images, check, print."""
    contents = read_contents(read_file(arguments.config), arguments.config)
    images = _images(context, arguments)
    agent = {
        file.name: file.text
        for file in unit_files(Installation())
        if file.path == f"{UNIT_FOLDER}/{file.name}"
    }
    report = check(contents, images, agent)
    if context.as_json:
        print_json(_document(report))
    else:
        _print(report)
    return 0 if report.ok else 1


def _images(context: Context, arguments: argparse.Namespace) -> Images:
    known: dict[LayerKey, LayerEntries] = {}
    with opened(context, arguments, arguments.node) as image:
        node = all_files(context, image, digests=False, known=known)
        try:
            inventory = read_inventory_in(*image, image[1].layers)[0]
        except NoDatabaseError:
            inventory = Inventory(())
    boot: Mapping[str, File] = node.base
    if arguments.boot:
        with opened(context, arguments, arguments.boot) as image:
            boot = all_files(context, image, digests=False, known=known).files
    elif not boot:
        raise UsageError(
            f"{arguments.node} does not say which base it stands on",
            hint="name the image that is booted with --boot",
        )

    def package_of(path: str) -> str:
        return ", ".join(map(str, packages_owning(node.files, inventory, path)))

    return Images(boot, node.files, package_of)


def _document(report: Report) -> dict[str, object]:
    return {
        "ok": report.ok,
        "findings": [finding.to_json() for finding in report.findings],
        "early": list(report.early),
        "late": list(report.late),
        "ring": list(report.ring),
        "elsewhere": list(report.elsewhere),
    }


def _print(report: Report) -> None:
    if report.ring:
        write(f"units wait for each other: {' after '.join([*report.ring, report.ring[0]])}")
        write("  systemd would drop one of them; take an After= or Before= away")
    together: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        together.setdefault((finding.by, finding.path), []).append(finding)
    for (by, path), found in together.items():
        of = f" of {found[0].package}" if found[0].package else ""
        write(f"{by} needs {path}{of}, which comes with the node image")
        for finding in found[:SHOWN_TRAILS]:
            write(f"  {' → '.join((*finding.trail, finding.command))}")
        if len(found) > SHOWN_TRAILS:
            write(f"  … and in {plural(len(found) - SHOWN_TRAILS, 'other place')}")
        if by.endswith(".service"):
            write(f"  After={OVERLAY} in {by} would do")
    for source in report.elsewhere:
        write(f"not looked into: {source}")
    early, late = len(report.early), len(report.late)
    write(
        f"{plural(len(together), 'finding')} in {plural(early, 'unit')} that "
        f"{'does' if early == 1 else 'do'} not wait for the overlay; {late} wait for it"
    )
