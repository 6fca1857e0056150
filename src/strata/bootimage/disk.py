"""A disk that boots under BIOS and UEFI: GPT with GRUB, an ESP and the root, written as bytes.

The root is ext4 with one deployment; `/boot` is a folder of it. It is as large as its content lets;
on a first boot it grows over the disk.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from strata.bootimage import grub
from strata.bootimage.ext4 import MIB, size_for, write_ext4
from strata.bootimage.sysroot import ROOT_LABEL, Deployment
from strata.core.errors import DefinitionError
from strata.core.files import sparse_copy
from strata.core.process import run

BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT_X86_64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
FIRSTBOOT = "ignition.firstboot"
_ALIGN = MIB // grub.SECTOR
_BIOS_SECTORS = _ALIGN
_ESP_SECTORS = 64 * _ALIGN
_ROOT_START = _ALIGN + _BIOS_SECTORS + _ESP_SECTORS


@dataclass(frozen=True)
class Identities:
    """The UUIDs of a disk, made from what is on it: the same content, the same bytes."""

    namespace: uuid.UUID

    @staticmethod
    def of(content: str) -> Identities:
        """From the digest of the base image and the format."""
        return Identities(uuid.uuid5(uuid.NAMESPACE_OID, content))

    def named(self, name: str) -> uuid.UUID:
        """One of them."""
        return uuid.uuid5(self.namespace, name)


def write_disk(
    deployment: Deployment,
    disk: Path,
    *,
    identities: Identities,
    size_bytes: int,
    scratch: Path,
) -> None:
    """Write a raw disk, sparse. size_bytes: of the disk; 0 for as small as it can be.

    Raises DefinitionError when the content is larger, ToolFailedError, ToolMissingError, TreeError.
    """
    boot = deployment.sysroot / "boot"
    (boot / "grub").mkdir()
    (boot / "grub/grub.cfg").write_text(grub.DISK_CONFIG)
    (boot / FIRSTBOOT).touch()
    root_bytes = size_for(deployment.sysroot)
    least = root_bytes + (_ROOT_START + _ALIGN) * grub.SECTOR
    if size_bytes and size_bytes < least:
        raise DefinitionError(
            f"the disk is {size_bytes / 1e9:.1f} GB, its content needs {least / 1e9:.1f} GB",
            hint="raise `size` in the stream's image.yaml",
        )
    with open(disk, "wb") as stream:
        stream.truncate(size_bytes or least)
    _partition(disk, identities, (size_bytes or least) // grub.SECTOR - _ALIGN - _ROOT_START)
    _install_grub(disk, identities, scratch)
    root = scratch / "root.ext4"
    write_ext4(
        deployment.sysroot,
        root,
        size_bytes=root_bytes,
        label=ROOT_LABEL,
        identity=identities.named("root file system"),
        immutable=deployment.root,
        scratch=scratch,
    )
    sparse_copy(root, disk, _ROOT_START * grub.SECTOR)
    root.unlink()


def _partition(disk: Path, identities: Identities, root_sectors: int) -> None:
    rows = (
        ("bios", _ALIGN, _BIOS_SECTORS, BIOS_BOOT),
        ("esp", _ALIGN + _BIOS_SECTORS, _ESP_SECTORS, EFI_SYSTEM),
        (ROOT_LABEL, _ROOT_START, root_sectors, ROOT_X86_64),
    )
    script = ["label: gpt", f"label-id: {identities.named('disk')}", "unit: sectors"]
    script += [
        f"start={start}, size={size}, type={kind}, uuid={identities.named(name)}, name={name}"
        for name, start, size, kind in rows
    ]
    command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", str(disk)]
    run(command, stdin="\n".join(script) + "\n")


def _install_grub(disk: Path, identities: Identities, scratch: Path) -> None:
    early = grub.early_config(ROOT_LABEL, "/boot/grub/grub.cfg")
    core = grub.make_image(grub.BIOS, early, scratch / "core.img", disk=True)
    grub.make_image(grub.EFI, early, scratch / "grub.efi", disk=True)
    esp = scratch / "esp.img"
    volume = identities.named("esp file system").int & 0xFFFFFFFF
    size = _ESP_SECTORS * grub.SECTOR
    grub.write_esp(esp, scratch / "grub.efi", size_bytes=size, volume_id=volume)
    sparse_copy(esp, disk, (_ALIGN + _BIOS_SECTORS) * grub.SECTOR)
    boot = (grub.FOLDER / grub.BIOS / "boot.img").read_bytes()
    with open(disk, "r+b") as stream:
        sector = stream.read(grub.SECTOR)
        stream.seek(0)
        stream.write(grub.boot_sector(boot, sector, _ALIGN))
        stream.seek(_ALIGN * grub.SECTOR)
        stream.write(grub.embedded_core(core, _ALIGN, _BIOS_SECTORS * grub.SECTOR))
