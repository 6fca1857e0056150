"""Virtual machines from boot images: Ignition sets them up, and the node layer comes to them while
they run, on their own base and on an older one, from a registry. The configs are those of
`strata ignition bootstrap`.

Disks switch, go back, and boot both. Five machines are in `make test`; `make soak` has the whole
product of boots, bases and memories.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest

from bootlab import BootLab, NodeImages, bootstrap, check_live, check_set_up
from conftest import SAMPLE, Strata
from strata.bootimage.ignition import Config, File
from strata.core.process import run
from strata.machine.facts import Facts, gather
from strata.machine.qemu import BIOS, UEFI, QemuMachine
from strata.node import host
from strata.node.units import AGENT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

BOOT_S, GIB = 420.0, 1 << 30
GO = "/run/strata-go"
# Waits for the test, and is what the pull needs: it says so by the hook.
HOLD = f"""\
[Unit]
Description=Let the machine be looked at first
Before=node-image-pull-pre.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until [ -e {GO} ] || [ -e /var/lib/held ]; do sleep 0.2; done'
ExecStart=/usr/bin/touch /var/lib/held
ExecStart=/usr/bin/sync --file-system /var/lib/held
[Install]
WantedBy=node-image-pull-pre.target
"""
# Stands in for the temporary control plane: it needs the node layer, and an image of the registry.
PLANE = """\
[Unit]
Description=A static pod
After=node-image-overlay.service network-online.target
[Service]
ExecStartPre=/bin/sh -c 'command -v kubectl'
ExecStart=/usr/bin/podman run --rm --replace --name pod --net host registry.example/sample/pod:1
ExecStop=/usr/bin/podman stop --time 1 pod
[Install]
WantedBy=multi-user.target
"""
TRACE = """\
[Unit]
Description=Leave a trace of every boot
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /proc/sys/kernel/random/boot_id >>/var/lib/traces'
[Install]
WantedBy=sysinit.target
"""


@dataclass(frozen=True)
class Case:
    """A machine. base: whether the node image's is the booted one, or has updates since. cuts: how
    often its power fails."""

    form: str
    firmware: str
    base: str
    memory_mib: int
    cuts: int = 0

    def __str__(self) -> str:
        cuts = f"-{self.cuts}cuts" if self.cuts else ""
        return f"{self.form}-{self.firmware}-{self.base}-{self.memory_mib}{cuts}"


SAME, OLDER = "same", "older"
DISK, ISO, PXE = "qcow2", "live-iso", "pxe"
CASES = (
    Case(DISK, BIOS, SAME, 1024, cuts=2),
    Case(ISO, UEFI, OLDER, 1536),
    Case(DISK, UEFI, OLDER, 1024),
    Case(PXE, BIOS, SAME, 3072),
    Case(DISK, UEFI, SAME, 1536),
)
BOOTS = ((DISK, BIOS), (DISK, UEFI), (ISO, BIOS), (ISO, UEFI), (PXE, BIOS))
ALL = (
    *(
        case
        for boot, base, memory in product(BOOTS, (SAME, OLDER), (1024, 1536, 3072))
        if (case := Case(*boot, base, memory)) not in CASES
    ),
    Case(DISK, UEFI, OLDER, 1536, cuts=10),
)


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.soak) for case in ALL)], ids=str
)
def test_a_machine_is_set_up_and_gets_its_node_layer(
    boot_lab: BootLab, node_images: NodeImages, tmp_path: Path, case: Case
) -> None:
    digest = node_images.same if case.base == SAME else node_images.newer
    config = config_of(boot_lab, tmp_path, digest)
    with boot_lab.guest(
        case.form,
        tmp_path,
        ignition=config,
        firmware=case.firmware,
        memory_mib=case.memory_mib,
        disk_bytes=12 * GIB if case.form == DISK else 0,
        network_namespace=node_images.registry.path,
    ) as machine:
        before = look_before(machine, case)
        machine.sh(f"touch {GO}")
        if case.cuts:
            before = replace(before, boot_id=cut_power(machine, case.cuts))
        status = look_after(machine, before)
        assert status["manifest_digest"] == digest
        if case.form == DISK:
            boot_old_deployment(machine, before)
            boot_node_image(machine, str(status["merge_commit"]))


def config_of(boot_lab: BootLab, folder: Path, digest: str) -> bytes:
    """A file, a user, units, and what brings the node layer."""
    return Config(
        files=[File("/etc/strata-test", b"it is here\n", 0o640)],
        users=[("root", [boot_lab.key.public]), ("core", [boot_lab.key.public])],
        groups=["sudo"],
        units=[
            ("hold.service", HOLD),
            ("control-plane.service", PLANE),
            ("trace.service", TRACE),
        ],
        merge=[bootstrap(folder, digest)],
    ).to_bytes()


# --- what has to be so ---------------------------------------------------------------------------


def agent(machine: QemuMachine, *arguments: str) -> dict[str, object]:
    """What the agent says, as JSON."""
    said: dict[str, object] = json.loads(machine.run(AGENT, *arguments, timeout_s=300).stdout)
    return said


def look_before(machine: QemuMachine, case: Case) -> Facts:
    """Ignition has run on the base alone, and the pull waits."""
    machine.wait_for_ssh(BOOT_S)
    found = gather(machine)
    assert found.failed == ()
    assert not any(found.commands[name] for name in ("kubectl", "kubelet", "containerd"))
    assert agent(machine, "status", "--json")["phase"] == "nothing"
    check_set_up(machine)
    if case.form == DISK:
        assert int(machine.sh("findmnt -bno SIZE /sysroot").stdout) > 11 * GIB
        assert machine.sh("test -e /run/ostree-live", check=False).status == 1
    else:
        check_live(machine)
    firmware = machine.sh("ls -d /sys/firmware/*").stdout
    assert ("/sys/firmware/efi" in firmware) == (case.firmware == UEFI)
    return found


def wait_for_node(machine: QemuMachine) -> Facts:
    """The node layer is there, with all that waits for it."""
    machine.sh("until systemctl -q is-active multi-user.target; do sleep 1; done", timeout_s=BOOT_S)
    machine.sh("systemctl is-system-running --wait", check=False, timeout_s=BOOT_S)
    after = gather(machine)
    assert after.commands["kubectl"] != ""
    assert after.units == {"containerd.service": "active"}
    assert after.failed == ()
    run([*machine.ssh_command(), "true"])  # by a connection of its own
    machine.sh("until podman ps --format '{{.Names}}' | grep -qx pod; do sleep 1; done")
    return after


def look_after(machine: QemuMachine, before: Facts) -> dict[str, object]:
    """Everything that has to be so after an overlay; returns what the agent says."""
    assert wait_for_node(machine).boot_id == before.boot_id
    machine.sh("modprobe dummy && modprobe openvswitch")
    assert machine.sh("touch /usr/x", check=False).status != 0
    verified = agent(machine, "verify", "--json")
    assert verified["differences"] == []
    assert int(str(verified["files"])) > 5000
    status = agent(machine, "status", "--json")
    assert status["phase"] == "finished"
    return status


def cut_power(machine: QemuMachine, cuts: int) -> str:
    """The power fails, by turns while layers come and in the overlay; the machine goes on by
    itself. Returns the id of the boot after the last time."""
    boot_id = machine.boot_id()
    for number in range(cuts):
        phase, more_s = ("merge", 0) if number % 2 else ("pull", 5 + 4 * number)
        began = f"until grep -qs '\"{phase}\"' {host.JOURNAL}; do sleep 0.1; done"
        machine.sh(f"{began}; sleep {more_s}", timeout_s=BOOT_S)
        machine.reset()
        machine.wait_for_ssh(BOOT_S, after=boot_id)
        boot_id = machine.boot_id()
    return boot_id


def boot_old_deployment(machine: QemuMachine, before: Facts) -> None:
    """Switched and rolled back, the disk comes up on what it had; Ignition does not run again."""
    machine.run(AGENT, "switch")
    machine.run(AGENT, "switch", "--rollback")
    identity = machine.sh("cat /etc/machine-id").stdout
    machine.sh("echo changed >/etc/strata-test; rm /var/lib/held")
    machine.reboot(BOOT_S)
    found = gather(machine)
    assert found.boot_id != before.boot_id
    assert (found.packages, found.commands) == (before.packages, before.commands)
    assert "ignition.firstboot" not in machine.sh("cat /proc/cmdline").stdout
    assert machine.sh("cat /etc/strata-test; cat /etc/machine-id").stdout == f"changed\n{identity}"
    boots = machine.sh("cat /var/lib/traces").stdout.split()
    assert {before.boot_id, found.boot_id} <= set(boots)


def boot_node_image(machine: QemuMachine, merge_commit: str) -> None:
    """What was switched to boots, without an overlay, and is the image whole."""
    assert merge_commit in machine.run(AGENT, "switch", "--rollback").stdout
    machine.reboot(BOOT_S)
    wait_for_node(machine)
    assert agent(machine, "status", "--json")["phase"] == "nothing"
    assert f"* strata {merge_commit}.0" in machine.sh("ostree admin status").stdout
    assert machine.sh("findmnt -no TARGET /usr | wc -l").stdout.strip() == "1"
    assert agent(machine, "verify", "--json")["differences"] == []


# --- beside the matrix --------------------------------------------------------------------------


@pytest.mark.soak
def test_run_boots_a_live_iso_under_bios(boot_lab: BootLab, strata: Strata) -> None:
    store = boot_lab.context.workspace.store
    where = ("-C", str(SAMPLE), "--store", str(store), "--json")
    done = strata(*where, "run", "--on", "qemu", "bootimage/sample-12:live-iso", "--ssh")
    facts = json.loads(done.stdout)
    assert facts["failed"] == []
    assert facts["commands"]["kubectl"] == ""
    assert len(facts["packages"]) > 200
    assert list(boot_lab.context.workspace.machines.iterdir()) == []
