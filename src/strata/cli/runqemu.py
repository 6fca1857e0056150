"""`strata run --on qemu`: a boot image, or a node image on its stream's disk, as a machine."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from strata.bootimage.build import QCOW2
from strata.cli.build import make_build_context
from strata.cli.context import Context, print_json
from strata.cli.progress import print_table
from strata.compose.amend import parse_with
from strata.compose.build import build_targets
from strata.compose.context import BuildContext
from strata.core.errors import MachineError, UsageError
from strata.core.files import remove_tree
from strata.core.process import require_root
from strata.core.text import shown
from strata.machine.facts import Facts, complaints, gather
from strata.machine.qemu import QemuMachine
from strata.machine.virtual import VirtualRun, virtual_machine
from strata.treefile.target import Target

BOOT_TIMEOUT_S = 900.0
_LOGIN = "login:"


def run_qemu(context: Context, arguments: argparse.Namespace) -> int:
    """Build, boot, show the console or give a shell, and shut it down."""
    for option in ("base", "keep"):
        if getattr(arguments, option):
            raise UsageError(f"--{option} is for --on nspawn")
    require_root("making a machine's files")
    building = make_build_context(context)
    wanted = _parse(building, arguments)
    results = build_targets(
        building,
        [wanted.image, wanted.node] if wanted.node else [wanted.image],
        base=None,
        given=parse_with(arguments.swaps),
        verify=False,
        dry_run=context.dry_run,
        reporter=context.reporter,
    )
    if context.dry_run:
        for result in results:
            context.reporter.note(f"{result.target}: {result.status}")
        context.reporter.note(f"would boot {wanted.image} under QEMU")
        return 0
    folder = building.workspace.machines / str(wanted.node or wanted.image).replace("/", "-")
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not context.as_json
    remove_tree(folder)
    folder.mkdir(parents=True)
    try:
        made = virtual_machine(building, wanted, folder, context.reporter, terminal=terminal)
        with made as machine:
            if wanted.has_ssh:
                marker = building.project.marker if wanted.node else None
                return _with_ssh(context, machine, marker, terminal)
            return _with_console(context, machine, terminal)
    finally:
        remove_tree(folder)


def _parse(building: BuildContext, arguments: argparse.Namespace) -> VirtualRun:
    target = building.project.canonical(Target.parse(arguments.what))
    if target.kind not in ("bootimage", "node"):
        raise UsageError(
            f"{target} cannot be run under QEMU",
            hint="bootimage/STREAM:FORMAT and node/ targets can",
        )
    image, node = target, None
    if target.kind == "node":
        image = Target("bootimage", building.project.node(target).stream, format=QCOW2)
        node = target
    try:
        given = Path(arguments.ignition).read_bytes() if arguments.ignition else None
    except OSError as error:
        raise UsageError(f"{arguments.ignition} cannot be read: {error.strerror}") from error
    return VirtualRun(image, node, given, arguments.ssh, arguments.memory, arguments.firmware)


def _with_console(context: Context, machine: QemuMachine, on_terminal: bool) -> int:
    if on_terminal:
        context.pause()
        machine.wait()
        return 0
    with context.reporter.step("boot under QEMU"):
        machine.wait_for(_LOGIN, BOOT_TIMEOUT_S)
    if not context.as_json:
        sys.stdout.writelines(f"{shown(line)}\n" for line in machine.console_text().splitlines())
    with context.reporter.step("shut it down"):
        machine.power_off()
    return 0


def _with_ssh(context: Context, machine: QemuMachine, marker: str | None, on_terminal: bool) -> int:
    with context.reporter.step("boot under QEMU") as step:
        machine.wait_for_ssh(BOOT_TIMEOUT_S)
        machine.run("systemctl", "is-system-running", "--wait", check=False, timeout_s=600)
        step.detail(f"ssh on port {machine.port}")
    found = gather(machine)
    wrong = complaints(replace(found, failed=()), found, marker)
    _show(context, found)
    if on_terminal:
        context.pause()
        sys.stdout.write("A shell in the machine; leave it with exit, and the machine ends.\n")
        sys.stdout.write(f"  {shlex.join(machine.ssh_command())}\n")
        sys.stdout.flush()
        subprocess.call(machine.ssh_command())
    if machine.running:
        with context.reporter.step("shut it down"):
            machine.power_off()
    if wrong:
        raise MachineError(f"the machine booted, but {'; '.join(wrong)}")
    return 0


def _show(context: Context, found: Facts) -> None:
    if context.as_json:
        print_json(
            {
                "boot_id": found.boot_id,
                "release": found.release,
                "packages": list(found.packages),
                "commands": found.commands,
                "units": found.units,
                "failed": list(found.failed),
            }
        )
        return
    rows = [
        ["system", found.release],
        ["packages", str(len(found.packages))],
        *([command, version] for command, version in found.commands.items() if version),
        *([unit, state] for unit, state in found.units.items()),
        ["failed units", ", ".join(found.failed) or "none"],
    ]
    print_table("The running machine", ["", ""], rows)
