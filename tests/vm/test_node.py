"""The node layer comes to running machines: disks and live images, on their own base and on an
older one, from a registry, without a reboot. The configs are those of `strata ignition bootstrap`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootlab import BootLab
from conftest import SAMPLE, cache_folder, make_store, run_strata
from registry import ADDRESS, Registry
from strata.bootimage.ignition import Config
from strata.machine.facts import Facts, gather
from strata.machine.qemu import BIOS, HOST, UEFI, QemuMachine

pytestmark = pytest.mark.vm

BOOT_S, GIB = 420.0, 1 << 30
NAME, POD = "registry.example/sample/node", "registry.example/sample/pod"
AGENT = "/usr/local/bin/strata-node.pyz"
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
[Install]
WantedBy=node-image-pull-pre.target
"""
# Stands in for the temporary control plane: it needs the node layer, and an image of the registry.
PLANE = f"""\
[Unit]
Description=A static pod
After=node-image-overlay.service network-online.target
[Service]
ExecStartPre=/bin/sh -c 'command -v kubectl'
ExecStart=/usr/bin/podman run --rm --name pod --net host --cgroups no-conmon {POD}:1
ExecStop=/usr/bin/podman stop pod
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Images:
    """What the registry has, by digest: of the node image on the base of the disks, and on a base
    whose packages were updated since."""

    registry: Registry
    same: str
    newer: str


@pytest.fixture(scope="module")
def images(built_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """A registry with the node images and a pod's."""
    newer = cache_folder() / "tests" / "sample-updates"
    run_strata("sample", "repos", str(newer), "--compose", "updates")
    store = make_store(tmp_path_factory.mktemp("newer") / "store", newer)
    run_strata("-C", str(SAMPLE), "--store", str(store), "build", "node/4.19")
    folder = tmp_path_factory.mktemp("registry")
    with Registry(folder) as registry:
        registry.start()
        push_pod(registry, folder / "pod")
        yield Images(
            registry,
            registry.push(f"oci:{built_store}:node/4.19@sample-12", "sample/node:same"),
            registry.push(f"oci:{store}:node/4.19@sample-12", "sample/node:newer"),
        )


def push_pod(registry: Registry, folder: Path) -> None:
    """An image with `sleep` and what it is linked with."""
    root = folder / "root"
    linked = subprocess.run(["ldd", "/usr/bin/sleep"], capture_output=True, text=True, check=True)
    files = [word for word in linked.stdout.split() if word.startswith("/")]
    for name in ("/usr/bin/sleep", *files):
        target = root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target, follow_symlinks=True)
    layout = folder / "layout"
    for command in (
        ["umoci", "init", "--layout", str(layout)],
        ["umoci", "new", "--image", f"{layout}:pod"],
        ["umoci", "insert", "--image", f"{layout}:pod", str(root), "/"],
        [
            *("umoci", "config", "--image", f"{layout}:pod"),
            *("--config.entrypoint", "/usr/bin/sleep", "--config.cmd", "infinity"),
        ],
    ):
        subprocess.run(command, check=True, capture_output=True)
    registry.push(f"oci:{layout}:pod", "sample/pod:1")


def ignition(boot_lab: BootLab, folder: Path, digest: str) -> bytes:
    """The config of a machine that overlays an image of the registry."""
    config = folder / "bootstrap.ign"
    run_strata(
        *("ignition", "bootstrap", "--image", f"{NAME}@{digest}", "--marker", "kubernetes-client"),
        *("--mirror", f"registry.example=http://{HOST}:{ADDRESS.rpartition(':')[2]}"),
        *("-o", str(config)),
    )
    return Config(
        users=[("root", [boot_lab.key.public])],
        units=[("hold.service", HOLD), ("control-plane.service", PLANE)],
        merge=[config.read_bytes()],
    ).to_bytes()


def agent(machine: QemuMachine, *arguments: str, timeout_s: float = 300) -> str:
    """What the agent prints."""
    return machine.run(AGENT, *arguments, timeout_s=timeout_s).stdout


def look_before(machine: QemuMachine) -> Facts:
    """A machine of the base alone, whose pull waits."""
    machine.wait_for_ssh(BOOT_S)
    found = gather(machine)
    assert found.commands["kubectl"] == ""
    assert found.failed == ()
    assert json.loads(agent(machine, "status", "--json"))["phase"] == "nothing"
    return found


def look_after(machine: QemuMachine, before: Facts) -> dict[str, object]:
    """Everything that has to be so after every overlay; returns what the agent says."""
    machine.sh("systemctl is-system-running --wait", check=False, timeout_s=BOOT_S)
    machine.sh("until systemctl is-active multi-user.target; do sleep 1; done", timeout_s=BOOT_S)
    machine.sh("systemctl is-system-running --wait", check=False, timeout_s=BOOT_S)
    after = gather(machine)
    assert after.boot_id == before.boot_id
    assert after.commands["kubectl"] != ""
    assert after.units == {"containerd.service": "active"}
    assert after.failed == ()
    machine.sh("until podman ps --format '{{.Names}}' | grep -x pod; do sleep 1; done")
    machine.sh("modprobe dummy && modprobe openvswitch")
    assert machine.sh("touch /usr/x", check=False).status != 0
    verified = json.loads(agent(machine, "verify", "--json"))
    assert verified["differences"] == []
    assert verified["files"] > 5000
    status: dict[str, object] = json.loads(agent(machine, "status", "--json"))
    assert status["phase"] == "finished"
    return status


CASES = {
    "disk-bios-same": ("qcow2", BIOS, "same", 1536),
    "disk-uefi-older": ("qcow2", UEFI, "newer", 1024),
    "live-iso-older": ("live-iso", BIOS, "newer", 3072),
    "pxe-same": ("pxe", BIOS, "same", 1536),
}


@pytest.mark.parametrize("case", CASES)
def test_a_machine_gets_its_node_layer_while_it_runs(
    boot_lab: BootLab, images: Images, tmp_path: Path, case: str
) -> None:
    form, firmware, which, memory_mib = CASES[case]
    digest = getattr(images, which)
    with boot_lab.guest(
        form,
        tmp_path,
        ignition=ignition(boot_lab, tmp_path, digest),
        firmware=firmware,
        memory_mib=memory_mib,
        network_namespace=images.registry.path,
    ) as machine:
        before = look_before(machine)
        machine.sh(f"touch {GO}")
        status = look_after(machine, before)
        assert status["manifest_digest"] == digest
        if form == "qcow2":
            reboot(machine, before)


def reboot(machine: QemuMachine, before: Facts) -> None:
    """The disk comes up on the deployment it had, and gets the image again without fetching it."""
    machine.sh("systemctl reboot", check=False)
    machine.wait_for("login:", BOOT_S)  # the first boot's
    machine.wait_for("login:", BOOT_S)
    machine.wait_for_ssh(BOOT_S)
    again = gather(machine)
    assert again.boot_id != before.boot_id
    status = look_after(machine, again)
    assert status["fetched_bytes"] == 0
    assert machine.sh("ostree admin status").stdout.count("* strata") == 1
