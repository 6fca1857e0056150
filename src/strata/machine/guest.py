"""A boot image of the store becomes a virtual machine: its files are made ready in a folder, and
the store's own are never written to.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.bootimage.artefact import Artefact
from strata.bootimage.build import LIVE_ISO, PXE, QCOW2, artefacts_of
from strata.bootimage.embed import append_to_initramfs, embed_in_iso
from strata.bootimage.ignition.resource import parse_config
from strata.compose.context import BuildContext
from strata.core.errors import MachineError, UsageError
from strata.core.files import atomic_write
from strata.core.process import run
from strata.core.record import BuildRecord
from strata.machine.qemu import CD, Disk, Hardware, Kernel, Medium, QemuMachine, kvm_works
from strata.ostree.tree import Tree
from strata.treefile.target import Target

BOOTABLE = (QCOW2, LIVE_ISO, PXE)
_MODULES = "usr/lib/modules"


@dataclass(frozen=True)
class Key:
    """A key pair of ssh. public: the line that goes into authorized_keys."""

    path: Path
    public: str


def make_key(folder: Path) -> Key:
    """A new key pair in a folder; one that is there is used again."""
    path = folder / "key"
    if not path.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "strata", "-f", str(path)])
    return Key(path, path.with_suffix(".pub").read_text().strip())


def guest(
    context: BuildContext,
    target: Target,
    folder: Path,
    hardware: Hardware,
    *,
    ignition: bytes | None,
    key: Key | None = None,
    disk_bytes: int = 0,
    data: Sequence[Path] = (),
    on_terminal: bool = False,
    network_namespace: Path | None = None,
) -> QemuMachine:
    """A machine, off, that boots a boot image. folder: new, for its files.

    ignition: a config, given the way the image takes one. disk_bytes: how large the disk of a
    machine is, when not as large as the image. data: further disks, read-only. network_namespace:
    see QemuMachine.
    Raises UsageError, MachineError, ToolFailedError.
    """
    record = context.record(target)
    if record is None:
        raise MachineError(f"{target} is not in the store", hint=f"strata build {target}")
    if target.format not in BOOTABLE:
        others = ", ".join(f"{target.kind}/{target.name}:{form}" for form in BOOTABLE)
        raise UsageError(
            f"{target} is for a machine's own disk", hint=f"what can be booted here: {others}"
        )
    if ignition is not None:
        parse_config(ignition, "the Ignition config")
    folder.mkdir(parents=True, exist_ok=True)
    media, config = _media(context, record, target, folder, ignition, disk_bytes)
    more = [Disk(path, "raw", data=True) for path in data]
    return QemuMachine(
        folder,
        [*media, *more],
        hardware,
        ignition=config,
        key=key.path if key else None,
        on_terminal=on_terminal,
        network_namespace=network_namespace,
    )


def _media(
    context: BuildContext,
    record: BuildRecord,
    target: Target,
    folder: Path,
    ignition: bytes | None,
    disk_bytes: int,
) -> tuple[list[Medium], Path | None]:
    """What is booted, and the config for the firmware to give."""
    parts = {item.role: item for item in artefacts_of(record)}
    if target.format == QCOW2:
        disk = folder / "disk.qcow2"
        base = _blob(context, parts["disk"])
        size = [str(disk_bytes)] if disk_bytes else []
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2"]
        run([*command, str(disk), *size])
        if ignition is None:
            return [Disk(disk, "qcow2")], None
        config = folder / "config.ign"
        atomic_write(config, ignition, mode=0o600)
        return [Disk(disk, "qcow2")], config
    if target.format == LIVE_ISO:
        iso = folder / "live.iso"
        shutil.copyfile(_blob(context, parts["disk"]), iso)
        if ignition is not None:
            embed_in_iso(iso, ignition)
        return [CD(iso)], None
    initramfs = folder / "initramfs.img"
    shutil.copyfile(_blob(context, parts["initramfs"]), initramfs)
    if ignition is not None:
        append_to_initramfs(initramfs, ignition)
    with open(_blob(context, parts["rootfs"]), "rb") as source, open(initramfs, "ab") as whole:
        whole.write(bytes(-whole.tell() % 4))
        shutil.copyfileobj(source, whole, 1 << 20)
    words = record.outputs["kernel-arguments"]
    arguments = " ".join(map(str, words)) if isinstance(words, list) else ""
    return [Kernel(_blob(context, parts["kernel"]), initramfs, arguments)], None


def _blob(context: BuildContext, item: Artefact) -> Path:
    return context.workspace.layout.blob_path(item.digest)


def kvm_boots(context: BuildContext, target: Target, folder: Path) -> bool:
    """Whether the kernel of a boot image boots under KVM here."""
    record = context.record(target)
    if record is None:
        return False
    repo = context.workspace.repo()
    tree = Tree.load(repo, str(record.outputs["base-commit"]))
    modules = tree.folder(_MODULES) or Tree()
    for inner in modules.dirs.values():
        checksum = inner.files.get("vmlinuz")
        if checksum:
            folder.mkdir(parents=True, exist_ok=True)
            kernel = folder / "vmlinuz"
            with repo.open_content(checksum) as source, open(kernel, "wb") as dest:
                shutil.copyfileobj(source, dest)
            return kvm_works(kernel, folder)
    return False
