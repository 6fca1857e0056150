"""What a running machine says of itself, before and after an overlay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from strata.core.process import Completed

# Commands of node layers in the field, and how each says its version.
COMMANDS = {
    "kubectl": ("kubectl", "version", "--client", "--short"),
    "oc": ("oc", "version", "--client"),
    "kubelet": ("kubelet", "--version"),
    "crio": ("crio", "--version"),
    "containerd": ("containerd", "--version"),
    "ovs-vsctl": ("ovs-vsctl", "--version"),
}
UNITS = ("containerd.service", "crio.service", "kubelet.service")


class Runs(Protocol):
    """A machine in which commands can be run."""

    def run(self, *argv: str, check: bool = ..., timeout_s: float = ...) -> Completed:
        """Run one, as root."""


@dataclass(frozen=True)
class Facts:
    """boot_id: changes with every boot. commands: the first line of each one's version, or empty.

    units: systemd's word for each unit that exists. packages: installed NEVRAs, sorted.
    """

    boot_id: str
    release: str
    packages: tuple[str, ...]
    commands: dict[str, str]
    units: dict[str, str]
    failed: tuple[str, ...]


def gather(machine: Runs) -> Facts:
    """Ask the machine. Raises ToolFailedError when it does not answer."""
    rpm = ("rpm", "--dbpath", "/usr/lib/sysimage/rpm", "-qa", "--qf", "%{NEVRA}\\n")
    listing = machine.run(*rpm).stdout.split()
    commands = {}
    for name, argv in COMMANDS.items():
        found = machine.run("sh", "-c", f"command -v {name}", check=False).status == 0
        done = machine.run(*argv, check=False) if found else None
        text = (done.stdout or done.stderr).strip() if done else ""
        commands[name] = text.splitlines()[0] if text else ""
    units = {}
    for unit in UNITS:
        shown = machine.run("systemctl", "show", "-P", "LoadState", unit, check=False).stdout
        if shown.strip() == "loaded":
            state = machine.run("systemctl", "is-active", unit, check=False).stdout
            units[unit] = state.strip()
    listed = machine.run("systemctl", "--failed", "--plain", "--no-legend", check=False).stdout
    failed = [line.split()[0] for line in listed.splitlines() if line.strip()]
    return Facts(
        machine.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip(),
        machine.run("sh", "-c", '. /usr/lib/os-release; echo "$PRETTY_NAME"').stdout.strip(),
        tuple(sorted(listing)),
        commands,
        units,
        tuple(failed),
    )


def complaints(before: Facts, after: Facts, marker: str | None) -> tuple[str, ...]:
    """What an overlay must not have done, or has failed to do: a sentence each; empty when well.

    marker: the package that the node image must bring; None when nobody says which.
    """
    found = []
    if before.boot_id != after.boot_id:
        found.append("the machine was rebooted")
    failed = sorted(set(after.failed) - set(before.failed))
    if failed:
        found.append(f"{', '.join(failed)} failed")
    if marker is not None and marker not in {_name(nevra) for nevra in after.packages}:
        found.append(f"the package {marker} is still absent")
    return tuple(found)


def _name(nevra: str) -> str:
    return nevra.rsplit("-", 2)[0]
