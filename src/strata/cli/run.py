"""`strata run`: boot a base, overlay the node image, look around."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from strata.cli.build import add_with, make_build_context
from strata.cli.context import Context, add_command, print_json
from strata.cli.progress import print_table, size
from strata.cli.runqemu import run_qemu
from strata.cli.scriptshell import shell_hint
from strata.compose.amend import parse_with
from strata.compose.build import BuildResult, build_targets
from strata.compose.workspace import Workspace
from strata.core.errors import MachineError, UsageError
from strata.machine.facts import complaints
from strata.machine.nspawn import NspawnMachine, shell
from strata.machine.qemu import BIOS, FIRMWARES
from strata.machine.session import Images, Overlaid, booted, overlay, stored_images
from strata.node.units import MARKER
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.treefile.project import FILE
from strata.treefile.target import Target

DESCRIPTION = """\
Deploy the base image as an OSTree deployment, boot it, and overlay the node
image on the running system: no reboot. Then give a shell (without a terminal:
show what changed and power off).

  strata run node/4.19                 build what is out of date, boot, overlay
  strata run node/4.19 --with ./kubectl:/usr/bin/kubectl
                                       with a file that was just built
  strata run coreos/sample-12          boot the base alone
  strata run oci:DIR:TAG --base oci:DIR:TAG2
                                       any node image on any base, with no definitions
  strata run --on qemu bootimage/sample-12:live-iso --ignition config.ign
                                       a virtual machine from a boot image
  strata run --on qemu node/4.19 --ssh
                                       a disk that overlays the node image

It ends with an error when the machine was rebooted, a unit failed, or the
marker package of strata.toml is still absent.
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
    parser.add_argument("--on", choices=("nspawn", "qemu"), default="nspawn", help="what boots it")
    parser.add_argument("--base", metavar="IMGREF", help="boot this base image instead")
    add_with(parser)
    virtual = parser.add_argument_group("with --on qemu")
    virtual.add_argument("--ignition", metavar="FILE", help="the first boot's configuration")
    virtual.add_argument(
        "--ssh", action="store_true", help="give a shell by ssh in place of the console"
    )
    virtual.add_argument(
        "--memory", metavar="MIB", type=int, default=2048, help="its memory (default: 2048)"
    )
    virtual.add_argument("--firmware", choices=FIRMWARES, default=BIOS, help="(default: bios)")
    parser.add_argument(
        "--keep", action="store_true", help="leave it running, and say how to look around"
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Have the images, boot, and say how it went."""
    if arguments.on == "qemu":
        return run_qemu(context, arguments)
    if arguments.ignition or arguments.ssh:
        raise UsageError("--ignition and --ssh are for --on qemu")
    what, base = arguments.what, arguments.base
    given = ImageReference.parse(base) if base else None
    target, image = _parse(what, given)
    if arguments.swaps and target is None:
        raise UsageError(f"{what} is an image: --with swaps components of a target")
    # An image needs no definitions; where there are some, they say which package is the marker.
    defined = target is not None or (context.definitions / FILE).exists()
    building = make_build_context(context) if defined else None
    workspace = building.workspace if building else Workspace.create(context.store)
    if building and target:
        with shell_hint(context, [what], base=base, swaps=arguments.swaps):
            results = build_targets(
                building,
                [target],
                base=given,
                given=parse_with(arguments.swaps),
                verify=False,
                dry_run=context.dry_run,
                reporter=context.reporter,
            )
        image = ImageReference("oci", str(workspace.store), str(results[-1].target))
        if context.dry_run:
            return _say_what_would_be_run(context, results, image, given)
    elif context.dry_run:
        return _say_what_would_be_run(context, [], image, given)
    node, below = (None, image) if target and target.kind == "coreos" else (image, given)
    images = stored_images(workspace, node, below, arch=context.arch, reporter=context.reporter)
    marker = building.project.marker if building else None
    name = what.replace("/", "-").replace(":", "-").strip("-")[-48:]
    wrong = _boot(context, workspace, images, name, marker=marker, keep=arguments.keep)
    if wrong:
        raise MachineError(f"the overlay went through, but {'; '.join(wrong)}")
    return 0


def _boot(
    context: Context,
    workspace: Workspace,
    images: Images,
    name: str,
    *,
    marker: str | None,
    keep: bool,
) -> tuple[str, ...]:
    """Boot, overlay, show, give a shell; returns what is wrong with the overlay."""
    reporter = context.reporter
    wrong: tuple[str, ...] = ()
    with booted(
        workspace, images, name, marker=marker or MARKER, reporter=reporter, keep=keep
    ) as machine:
        if images.node is not None:
            done = overlay(machine, reporter)
            _show(context, images, done)
            wrong = complaints(done.before, done.after, marker)
        if keep:
            _say_how_to_look(machine)
        elif sys.stdin.isatty() and not context.as_json:
            if wrong:
                reporter.warn("; ".join(wrong))  # known before one looks around
            context.pause()
            sys.stdout.write("A shell in the machine; leave it with exit, and the machine ends.\n")
            sys.stdout.flush()
            shell(machine)
    return wrong


def _parse(what: str, base: ImageReference | None) -> tuple[Target | None, ImageReference | None]:
    """The target or the image that is to be run. Raises UsageError."""
    if ":" in what and not what.startswith(("node/", "coreos/", "bootimage/")):
        return None, ImageReference.parse(what)
    target = Target.parse(what)
    if target.kind not in ("node", "coreos"):
        raise UsageError(
            f"{target} cannot be run under systemd-nspawn",
            hint="node/ and coreos/ targets and images can; --on qemu boots bootimage/ and node/",
        )
    if target.kind == "coreos" and base is not None:
        raise UsageError(
            f"{target} is a base itself: --base goes with a node target or image",
            hint="leave --base away",
        )
    return target, None


def _say_what_would_be_run(
    context: Context,
    results: Sequence[BuildResult],
    image: ImageReference | None,
    base: ImageReference | None,
) -> int:
    """The end of a dry run: nothing was fetched, built or booted."""
    note = context.reporter.note
    for result in results:
        note(f"{result.target}: {result.status}")
    for reference in (base, None if results else image):
        if reference is not None:
            with open_source(reference, architecture=context.arch) as source:
                note(f"{reference} is {source.manifest_digest}")
    if results and results[-1].target.kind == "coreos":
        note(f"would boot {image}")
    else:
        note(f"would boot {base or f'the base of {image}'} and overlay {image}")
    return 0


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
        print_json(document)
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
    for name, command in (
        ("look around:", [*machine.enter_command(), "/bin/bash", "-l"]),
        ("end it:     ", [*machine.enter_command(), "/usr/bin/systemctl", "poweroff"]),
    ):
        sys.stdout.write(f"  {name} {shlex.join(command)}\n")
    sys.stdout.write(f"  its console: {machine.console}\n")
