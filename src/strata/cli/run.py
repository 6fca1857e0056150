"""`strata run`: boot a base, overlay the node image, look around."""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from strata.cli.build import make_build_context
from strata.cli.context import Context, add_command
from strata.cli.progress import print_table, size
from strata.compose.build import build_targets
from strata.compose.context import BuildContext
from strata.core.errors import UsageError
from strata.machine.nspawn import NspawnMachine, shell
from strata.machine.session import Images, Overlaid, booted, overlay, stored_images
from strata.oci.reference import ImageReference
from strata.treefile.target import Target

DESCRIPTION = """\
Deploy the base image as an OSTree deployment, boot it, and overlay the node
image on the running system: no reboot. Then give a shell (without a terminal:
show what changed and power off).

  strata run node/4.19                 build what is out of date, boot, overlay
  strata run coreos/sample-12          boot the base alone
  strata run oci:DIR:TAG --base oci:DIR:TAG2
                                       any node image on any base
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "run",
        run,
        summary="boot a base and overlay a node image",
        description=DESCRIPTION,
    )
    parser.add_argument(
        "what", metavar="TARGET|IMGREF", help="a node or coreos target, or an image"
    )
    parser.add_argument("--on", choices=("nspawn",), default="nspawn", help="what boots it")
    parser.add_argument("--base", metavar="IMGREF", help="boot this base image instead")
    parser.add_argument(
        "--keep", action="store_true", help="leave it running, and say how to look around"
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Boot, overlay, show, and give a shell where there is a terminal."""
    building = make_build_context(context)
    images = _images(context, building, arguments.what, arguments.base)
    if context.dry_run:
        context.reporter.note(f"would boot {images.base_commit} and overlay {images.node}")
        return 0
    name = arguments.what.replace("/", "-").replace(":", "-").strip("-")[-48:]
    marker = building.project.marker
    with booted(
        building.workspace,
        images,
        name,
        marker=marker,
        reporter=context.reporter,
        keep=arguments.keep,
    ) as machine:
        if images.node is not None:
            done = overlay(machine, context.reporter)
            _show(context, images, done)
        if arguments.keep:
            _say_how_to_look(machine)
        elif sys.stdin.isatty() and not context.as_json:
            context.pause()
            sys.stdout.write("A shell in the machine; leave it with exit, and the machine ends.\n")
            sys.stdout.flush()
            shell(machine)
    return 0


def _images(context: Context, building: BuildContext, what: str, base: str | None) -> Images:
    """Build a target, or bring an image to the store; then what to boot and overlay."""
    given = ImageReference.parse(base) if base else None
    store = str(building.workspace.store)
    if ":" in what and not what.startswith(("node/", "coreos/")):
        return stored_images(
            building.workspace,
            ImageReference.parse(what),
            given,
            arch=context.arch,
            reporter=context.reporter,
        )
    target = building.project.canonical(Target.parse(what))
    if target.kind not in ("node", "coreos"):
        raise UsageError(f"{target} cannot be run", hint="node/ and coreos/ targets and images can")
    build_targets(
        building, [target], base=given, verify=False, dry_run=False, reporter=context.reporter
    )
    image = ImageReference("oci", store, str(target))
    node, below = (image, given) if target.kind == "node" else (None, image)
    return stored_images(
        building.workspace, node, below, arch=context.arch, reporter=context.reporter
    )


def _show(context: Context, images: Images, done: Overlaid) -> None:
    before, after, status = done.before, done.after, done.status
    if context.as_json:
        document = {
            "boot_id": {"before": before.boot_id, "after": after.boot_id},
            "packages": {"before": list(before.packages), "after": list(after.packages)},
            "commands": {"before": before.commands, "after": after.commands},
            "units": {"before": before.units, "after": after.units},
            "failed": list(after.failed),
            "seconds": round(done.seconds, 2),
            "agent": status,
        }
        sys.stdout.write(json.dumps(document, indent=2, sort_keys=True) + "\n")
        return
    rows = [
        ["system", before.release, after.release],
        ["boot id", before.boot_id, after.boot_id],
        ["packages", str(len(before.packages)), str(len(after.packages))],
    ]
    for command, version in after.commands.items():
        if version or before.commands[command]:
            rows.append([command, before.commands[command] or "absent", version or "absent"])
    for unit, state in after.units.items():
        rows.append([unit, before.units.get(unit, "absent"), state])
    rows.append(
        ["failed units", ", ".join(before.failed) or "none", ", ".join(after.failed) or "none"]
    )
    print_table("The running system", ["", "before", "after"], rows)
    fetched = int(str(status["fetched_bytes"]))
    peak = max(int(str(status["pull_peak_bytes"])), int(str(status["overlay_peak_bytes"])))
    facts = [
        ["layers of the node image", str(images.layers)],
        ["its size", size(images.size_bytes)],
        ["fetched by the machine", size(fetched)],
        ["pull", f"{status['pull_seconds']} s"],
        ["/etc, /usr, users, units", f"{status['overlay_seconds']} s"],
        ["until all services were up", f"{done.seconds:.1f} s"],
        ["the agent's peak memory", size(peak)],
    ]
    print_table("The overlay", ["", ">"], facts)
    if before.boot_id == after.boot_id:
        sys.stdout.write("The boot id is the same: nothing was rebooted.\n")


def _say_how_to_look(machine: NspawnMachine) -> None:
    sys.stdout.write("The machine is left running.\n")
    sys.stdout.write(f"  look around: {shlex.join(machine.enter_command())} /bin/bash -l\n")
    sys.stdout.write(f"  its console: {machine.console}\n")
    sys.stdout.write(
        "  end it:      power it off inside, or strata clean (which removes the store)\n"
    )
