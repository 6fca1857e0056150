"""Boot images for tests, built once a store, and machines that boot them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from registry import ADDRESS, Registry
from strata.bootimage.build import prepare_bootimage
from strata.compose.context import BuildContext
from strata.compose.workspace import Workspace
from strata.machine.guest import Key, guest
from strata.machine.qemu import BIOS, HOST, Hardware, QemuMachine
from strata.treefile.project import load_project
from strata.treefile.target import Target

STREAM = "sample-12"
NODE = "registry.example/sample/node"


@dataclass(frozen=True)
class BootLab:
    """A store that has boot images, and a key for the machines."""

    context: BuildContext
    key: Key

    @staticmethod
    def open(definitions: Path, store: Path, key: Key) -> BootLab:
        """From a store that was built."""
        project, workspace = load_project(definitions), Workspace.create(store)
        makers = {"bootimage": prepare_bootimage}
        return BootLab(BuildContext(project, workspace, "x86_64", 2, makers=makers), key)

    def guest(
        self,
        form: str,
        folder: Path,
        *,
        ignition: bytes | None,
        firmware: str = BIOS,
        memory_mib: int = 1536,
        disk_bytes: int = 0,
        network_namespace: Path | None = None,
    ) -> QemuMachine:
        """A machine that boots an image of the sample's stream."""
        return guest(
            self.context,
            Target("bootimage", STREAM, format=form),
            folder / "machine",
            Hardware(memory_mib, firmware=firmware),
            ignition=ignition,
            key=self.key,
            disk_bytes=disk_bytes,
            network_namespace=network_namespace,
        )


@dataclass(frozen=True)
class NodeImages:
    """What a registry has, by digest: the node image on the base of the boot images, and one on a
    base whose packages were updated since."""

    registry: Registry
    same: str
    newer: str

    @staticmethod
    def push(registry: Registry, same: Path, newer: Path) -> NodeImages:
        """From two stores; a pod's image comes beside them."""
        push_pod(registry, registry.folder / "pod")
        source = "node/4.19@sample-12"
        return NodeImages(
            registry,
            registry.push(f"oci:{same}:{source}", "sample/node:same"),
            registry.push(f"oci:{newer}:{source}", "sample/node:newer"),
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


def bootstrap(folder: Path, digest: str) -> bytes:
    """The Ignition config that overlays an image of the registry."""
    config = folder / "bootstrap.ign"
    strata = Path(sys.executable).with_name("strata")
    command = [str(strata), "ignition", "bootstrap", "--image", f"{NODE}@{digest}"]
    mirror = f"registry.example=http://{HOST}:{ADDRESS.rpartition(':')[2]}"
    options = ["--marker", "kubernetes-client", "--mirror", mirror, "-o", str(config)]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return config.read_bytes()


def check_set_up(machine: QemuMachine) -> None:
    """What the configs of the tests say is there, on a booted deployment, and was done once."""
    there = machine.sh("cat /etc/strata-test; stat -c %a /etc/strata-test").stdout
    assert there == "it is here\n640\n"
    assert machine.sh("wc -l </var/lib/traces").stdout.strip() == "1"
    assert "sudo" in machine.sh("id -Gn core").stdout.split()
    assert "* strata" in machine.sh("ostree admin status").stdout
    assert machine.sh("findmnt -no OPTIONS /usr").stdout.startswith("ro,")


def check_live(machine: QemuMachine) -> None:
    """A live system writes to nothing but memory."""
    assert machine.sh("test -e /run/ostree-live", check=False).status == 0
    for path in ("/etc", "/var", "/tmp"):
        assert machine.sh(f"findmnt -no FSTYPE {path}").stdout.split()[0] == "tmpfs"
    assert machine.sh("findmnt -no FSTYPE /sysroot").stdout.strip() == "squashfs"
    assert "strata-test" in machine.sh("ostree admin config-diff").stdout.split()
    assert machine.sh("touch /usr/x", check=False).status != 0
