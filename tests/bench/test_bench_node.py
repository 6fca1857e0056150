"""The node agent in virtual machines of 3 GiB, against the shell that installers use today: memory,
bytes, space, time. Each machine is booted anew; what is compared comes from one run.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_bench import report

from bootlab import BootLab, NodeImages, bootstrap
from registry import ADDRESS
from strata.bootimage.ignition import Config, File
from strata.bootimage.ignition.network import Mirror, Network, network_files
from strata.container.stored import base_layer_count
from strata.core.files import sha256_file
from strata.machine.qemu import HOST, QemuMachine
from strata.node.units import AGENT
from strata.oci.indexes import choose_manifest
from strata.oci.layout import Layout
from strata.oci.model import Descriptor, ImageConfig, Manifest

pytestmark = pytest.mark.bench

BOOT_S, MIB = 600.0, 1 << 20
NODE = "registry.example/sample/node"
SHELL = Path(__file__).parent / "shell-procedure"
GO = "/run/strata-go"
# Until it is told to go; then it samples what all tmpfs of the machine hold, and keeps the most.
SAMPLER = """\
import pathlib, time
def held():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Shmem:"))
start = most = held()
while True:
    most = max(most, held())
    pathlib.Path("/run/peak").write_text(f"{start} {most}")
    time.sleep(0.1)
"""
HOLD = f"""\
[Unit]
Before=node-image-pull-pre.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until [ -e {GO} ]; do sleep 0.1; done'
[Install]
WantedBy=node-image-pull-pre.target
"""


@dataclass(frozen=True)
class Measured:
    """A machine that got its node layer. grown_bytes: tmpfs at its peak, less what was there."""

    seconds: float
    grown_bytes: int
    differing_bytes: int
    space_bytes: int
    new_bytes: int
    status: dict[str, object]


@pytest.fixture
def layers(machine_store: Path) -> tuple[int, tuple[Descriptor, ...]]:
    """How many layers the node image has of its base, and those that it has above."""
    layout = Layout.open(machine_store)
    image = choose_manifest(layout, layout.resolve("node/4.19@sample-12"), "x86_64")
    manifest = Manifest.parse(layout.read(image))
    config = ImageConfig.parse(layout.read(manifest.config))
    count = base_layer_count(manifest, config)
    return count, manifest.layers[count:]


def unpacked_bytes(store: Path, layers: tuple[Descriptor, ...]) -> int:
    """The content of all files in some layers."""
    total = 0
    for layer in layers:
        path = Layout.open(store).blob_path(layer.digest)
        assert sha256_file(path) == layer.digest.hex
        with tarfile.open(path) as archive:
            total += sum(member.size for member in archive if member.isreg())
    return total


def config(boot_lab: BootLab, *files: File, hold: bool, merge: tuple[bytes, ...] = ()) -> bytes:
    mirror = Mirror("registry.example", f"{HOST}:{ADDRESS.rpartition(':')[2]}", plain=True)
    return Config(
        files=[File("/etc/sampler.py", SAMPLER.encode()), *files]
        + ([] if merge else network_files(Network([mirror]))),
        users=[("root", [boot_lab.key.public])],
        units=[("hold.service", HOLD)] if hold else [],
        merge=merge,
    ).to_bytes()


def sample(machine: QemuMachine) -> None:
    machine.wait_for_ssh(BOOT_S)
    machine.sh("systemd-run --collect --quiet --unit=sampler python3 /etc/sampler.py; sleep 1")


def grown(machine: QemuMachine) -> int:
    start, most = map(int, machine.sh("cat /run/peak").stdout.split())
    return (most - start) * 1024


def until_active(machine: QemuMachine) -> None:
    wait = "until systemctl -q is-active containerd.service; do sleep 0.2; done"
    machine.sh(wait, timeout_s=BOOT_S)


def by_agent(
    boot_lab: BootLab, images: NodeImages, folder: Path, form: str, digest: str
) -> Measured:
    folder.mkdir()
    given = config(boot_lab, hold=True, merge=(bootstrap(folder, digest),))
    with boot_lab.guest(
        form,
        folder,
        ignition=given,
        memory_mib=3072,
        network_namespace=images.registry.path,
    ) as machine:
        sample(machine)
        machine.sh(f"{_OBJECTS} >/run/objects; sync")
        used = space(machine)
        machine.sh(f"touch {GO}")
        until_active(machine)
        show = "systemctl show --value --property"
        started = machine.sh(f"{show}=ExecMainStartTimestampMonotonic node-image-pull.service")
        active = machine.sh(f"{show}=ActiveEnterTimestampMonotonic containerd.service")
        machine.sh("sync")
        return Measured(
            (int(active.stdout) - int(started.stdout)) / 1e6,
            grown(machine),
            int(machine.sh(_SUM.format("/run/strata-node/live/delta -type f")).stdout or 0),
            space(machine) - used,
            allocated(machine) if form == "qcow2" else 0,
            json.loads(machine.run(AGENT, "status", "--json").stdout),
        )


CHECKOUT = "/sysroot/ostree/node-image"
_OBJECTS = "find /sysroot/ostree/repo/objects -type f -printf '%P %b\\n' | sort"
# Sizes of files, each inode once.
_SUM = "find {} -printf '%i %s\\n' 2>/dev/null | sort -u | awk '{{s+=$2}} END {{print s+0}}'"


def space(machine: QemuMachine) -> int:
    """Bytes that are taken on the root's file system."""
    blocks, free, size = machine.sh("stat -f -c '%b %f %S' /sysroot").stdout.split()
    return (int(blocks) - int(free)) * int(size)


def allocated(machine: QemuMachine) -> int:
    """Bytes on disk of the objects that are new, and of the checkout's folders."""
    total = "awk '{s+=$2} END {print s*512}'"
    new = machine.sh(f"{_OBJECTS} | join -v 1 - /run/objects | {total}").stdout
    folders = machine.sh(f"find {CHECKOUT} -xdev -type d -printf '%p %b\\n' | {total}").stdout
    return int(new) + int(folders)


def by_shell(
    boot_lab: BootLab, images: NodeImages, folder: Path, digest: str, base_layers: int
) -> Measured:
    folder.mkdir()
    script = File("/usr/local/bin/shell-procedure", SHELL.read_bytes(), 0o755)
    with boot_lab.guest(
        "live-iso",
        folder,
        ignition=config(boot_lab, script, hold=False),
        memory_mib=3072,
        network_namespace=images.registry.path,
    ) as machine:
        sample(machine)
        run = f"shell-procedure {NODE}@{digest} {base_layers}"
        timed = f"date +%s.%N >/run/started; {run} >/run/log 2>&1 || (cat /run/log >&2; exit 1)"
        machine.sh(timed, timeout_s=BOOT_S)
        until_active(machine)
        seconds = machine.sh("echo $(date +%s.%N) $(cat /run/started)").stdout.split()
        return Measured(float(seconds[0]) - float(seconds[1]), grown(machine), 0, 0, 0, {})


def test_a_live_system_on_the_same_base(
    boot_lab: BootLab,
    node_images: NodeImages,
    machine_store: Path,
    layers: tuple[int, tuple[Descriptor, ...]],
    tmp_path: Path,
) -> None:
    count, derived = layers
    unpacked = unpacked_bytes(machine_store, derived)
    digest = node_images.same
    ours = by_agent(boot_lab, node_images, tmp_path / "agent", "live-iso", digest)
    shell = by_shell(boot_lab, node_images, tmp_path / "shell", digest, count)
    growth, of = ours.grown_bytes / unpacked, f"{ours.grown_bytes / MIB:.0f} MiB"
    report("live, same base: tmpfs' growth / node layer unpacked", f"{of} = {growth:.2f}", "1.1")
    told = f"{ours.grown_bytes / MIB:.0f} / {shell.grown_bytes / MIB:.0f} MiB"
    report("live, same base: tmpfs' growth, agent / shell", told, "-")
    time = f"{ours.seconds:.1f} / {shell.seconds:.1f} s = {ours.seconds / shell.seconds:.2f}"
    report("live, same base: pull to containerd active, agent / shell", time, "0.5")
    peak = max(int(str(ours.status[key])) for key in ("pull_peak_bytes", "overlay_peak_bytes"))
    report("live, same base: the agent's VmHWM", f"{peak / MIB:.0f} MiB", "100 MiB")
    assert peak <= 100 * MIB
    assert growth <= 1.1
    assert ours.seconds <= 0.5 * shell.seconds


def test_a_live_system_on_an_older_base(
    boot_lab: BootLab, node_images: NodeImages, tmp_path: Path
) -> None:
    digest = node_images.newer
    ours = by_agent(boot_lab, node_images, tmp_path / "agent", "live-iso", digest)
    shell = by_shell(boot_lab, node_images, tmp_path / "shell", digest, 0)
    growth = ours.grown_bytes / ours.differing_bytes
    told = f"{ours.grown_bytes / MIB:.0f} / {ours.differing_bytes / MIB:.0f} MiB = {growth:.2f}"
    report("live, older base: tmpfs' growth / what differs unpacked", told, "1.1")
    ratio = ours.grown_bytes / shell.grown_bytes
    told = f"{ours.grown_bytes / MIB:.0f} / {shell.grown_bytes / MIB:.0f} MiB = {ratio:.2f}"
    report("live, older base: tmpfs' growth, agent / shell", told, "0.5")
    time = f"{ours.seconds:.1f} / {shell.seconds:.1f} s = {ours.seconds / shell.seconds:.2f}"
    report("live, older base: pull to containerd active, agent / shell", time, "0.5")
    assert growth <= 1.1
    assert ratio <= 0.5
    assert ours.seconds <= 0.5 * shell.seconds


def test_a_disk_on_the_same_base(
    boot_lab: BootLab,
    node_images: NodeImages,
    layers: tuple[int, tuple[Descriptor, ...]],
    tmp_path: Path,
) -> None:
    ours = by_agent(boot_lab, node_images, tmp_path / "agent", "qcow2", node_images.same)
    wanted = sum(layer.size_bytes for layer in layers[1])
    fetched = int(str(ours.status["fetched_bytes"]))
    report("disk, same base: bytes fetched / derived layers", f"{fetched} / {wanted}", "1")
    ratio = ours.space_bytes / ours.new_bytes
    told = f"{ours.space_bytes / MIB:.1f} / {ours.new_bytes / MIB:.1f} MiB = {ratio:.2f}"
    report("disk, same base: space taken / new objects and folders", told, "1.05")
    assert fetched == wanted
    assert ratio <= 1.05
