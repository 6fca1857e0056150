"""A target as a virtual machine: a boot image, or its stream's disk that overlays a node image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.bootimage.ignition import Config
from strata.compose.context import BuildContext
from strata.core.events import Reporter
from strata.machine.guest import guest, kvm_boots, make_key
from strata.machine.nodeguest import node_config, write_store_disk
from strata.machine.qemu import KVM, TCG, Hardware, QemuMachine
from strata.machine.session import stored_images
from strata.node.units import MARKER
from strata.oci.reference import ImageReference
from strata.treefile.target import Target

USERS = ("root", "core")


@dataclass(frozen=True)
class VirtualRun:
    """What is booted. image: a boot image of the store; node: what it overlays, None for nothing.

    ignition: a config of the first boot; ssh: the users get a key of ours, too.
    """

    image: Target
    node: Target | None
    ignition: bytes | None
    ssh: bool
    memory_mib: int
    firmware: str

    @property
    def has_ssh(self) -> bool:
        """Whether ssh leads into it; the overlay is looked at that way."""
        return self.ssh or self.node is not None


def virtual_machine(
    context: BuildContext, wanted: VirtualRun, folder: Path, reporter: Reporter, *, terminal: bool
) -> QemuMachine:
    """The machine, off. folder: there and empty, for its files. terminal: its console is ours.

    Raises UsageError, MachineError, ImageError, ToolFailedError.
    """
    config, disks = Config(), list[Path]()
    if wanted.node:
        reference = ImageReference("oci", str(context.workspace.store), str(wanted.node))
        images = stored_images(
            context.workspace, reference, None, arch=context.arch, reporter=reporter
        )
        config = node_config(images, context.project.marker or MARKER)
        if images.node:
            disks.append(write_store_disk(context.workspace, images.node, folder / "node.squashfs"))
    key = make_key(folder) if wanted.has_ssh else None
    if key:
        users: Sequence[tuple[str, Sequence[str]]] = [(name, [key.public]) for name in USERS]
        config = replace(config, users=users, groups=["sudo"])
    if wanted.ignition:
        config = replace(config, merge=[*config.merge, wanted.ignition])
    with reporter.step("see whether KVM boots") as step:
        accelerator = KVM if kvm_boots(context, wanted.image, folder / "probe") else TCG
        step.detail("yes" if accelerator == KVM else "no: the processor is emulated, slowly")
    return guest(
        context,
        wanted.image,
        folder / "machine",
        Hardware(wanted.memory_mib, accelerator=accelerator, firmware=wanted.firmware),
        ignition=config.to_bytes() if config != Config() else None,
        key=key,
        data=disks,
        on_terminal=terminal and key is None,
    )
