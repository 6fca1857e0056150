"""Live images: an OSTree sysroot in a squashfs, booted from a CD, a stick or the network.

The root is read-only; the CoreOS layer's dracut module mounts it and puts `/etc` and `/var` into
memory. The ISO boots under BIOS and UEFI, and from a stick as it does from a CD.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.bootimage import cpio, grub
from strata.bootimage.embed import AREA_BYTES, HEADER_OFFSET, Area
from strata.bootimage.sysroot import Deployment
from strata.core.errors import ToolFailedError
from strata.core.process import run

ROOT_NAME = "root.squashfs"
# Not 0: libostree takes a sysroot whose time is 0 for one that it has loaded before.
_TIME = "1"
_KERNEL, _INITRD = "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"
_AREA, _ROOT = "images/ignition.img", f"images/{ROOT_NAME}"
_ESP, _ELTORITO, _CONFIG = "images/efiboot.img", "boot/grub/eltorito.img", "boot/grub/grub.cfg"
_ESP_BYTES = 8 << 20
_LBA = re.compile(r"File data lba:\s*\d+\s*,\s*(\d+)\s*,\s*\d+\s*,\s*(\d+)")
_GRUB_CONFIG = """\
set timeout=1
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
menuentry "{title}" {{
  linux /{kernel} {kargs}
  initrd /{initrd} /{area}
}}
"""


@dataclass(frozen=True)
class LiveParts:
    """What every live image consists of. kargs: those that lead to the deployment, and more."""

    kernel: Path
    initramfs: Path
    root: Path
    kargs: tuple[str, ...]


def make_parts(
    deployment: Deployment, scratch: Path, *, kargs: Sequence[str], threads: int
) -> LiveParts:
    """Write the root of a live image. Raises ToolFailedError, MachineError."""
    root = scratch / ROOT_NAME
    write_squashfs(deployment.sysroot, root, threads)
    return LiveParts(
        deployment.boot_file("vmlinuz"),
        deployment.boot_file("initramfs"),
        root,
        (*kargs, f"ostree={deployment.argument}", "ignition.firstboot"),
    )


def write_squashfs(source: Path, image: Path, threads: int) -> None:
    """mksquashfs numbers files as the host lists them, and what its threads find equal differs from
    run to run: so it gets a sorted archive, and an OSTree sysroot has equal files as links anyway.
    """
    listing = ("--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*")
    times = ("--format=pax", "--pax-option=delete=atime,delete=ctime", f"--mtime=@{_TIME}")
    packing = ("-comp", "zstd", "-Xcompression-level", "9", "-b", "256K", "-no-duplicates")
    same = ("-all-time", _TIME, "-mkfs-time", _TIME, "-root-mode", "0755")
    pipe = (
        ("tar", *listing, *times, "-C", str(source), "-cf", "-", "."),
        (
            *("mksquashfs", "-", str(image), "-tar", "-noappend", "-quiet", "-no-progress"),
            *(*packing, *same, "-processors", str(threads)),
        ),
    )
    command = " | ".join(map(shlex.join, pipe))
    run(["bash", "-o", "pipefail", "-c", command], env={"LC_ALL": "C"})


def label_of(stream: str) -> str:
    """A live ISO's volume id: at most 32 characters that need no escapes anywhere."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{stream}-live")[-32:]


def write_iso(
    parts: LiveParts, iso: Path, *, label: str, title: str, epoch: int, scratch: Path
) -> None:
    """Write an ISO. title: in its menu. epoch: the time of its files.

    Raises ToolFailedError, ToolMissingError.
    """
    tree = scratch / "iso"
    for name in ("images/pxeboot", "boot/grub"):
        (tree / name).mkdir(parents=True)
    for source, name in (
        (parts.kernel, _KERNEL),
        (parts.initramfs, _INITRD),
        (parts.root, _ROOT),
    ):
        shutil.copyfile(source, tree / name)
    (tree / _AREA).write_bytes(bytes(AREA_BYTES))
    kargs = " ".join((*parts.kargs, f"coreos.liveiso={label}"))
    config = _GRUB_CONFIG.format(
        title=re.sub(r'["$\\]', "", title), kernel=_KERNEL, initrd=_INITRD, area=_AREA, kargs=kargs
    )
    (tree / _CONFIG).write_text(config)
    early = grub.early_config(label, f"/{_CONFIG}")
    eltorito = grub.make_image(grub.ELTORITO, early, scratch / "eltorito.img", disk=False)
    (tree / _ELTORITO).write_bytes(eltorito)
    grub.make_image(grub.EFI, early, scratch / "grub-live.efi", disk=False)
    grub.write_esp(
        tree / _ESP, scratch / "grub-live.efi", size_bytes=_ESP_BYTES, volume_id=epoch & 0xFFFFFFFF
    )
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files, "."):
            os.utime(Path(folder) / name, (epoch, epoch))
    _xorriso(tree, iso, label, epoch)
    with open(iso, "r+b") as stream:
        stream.seek(HEADER_OFFSET)
        stream.write(_area_of(iso).header())
    shutil.rmtree(tree)


def _xorriso(tree: Path, iso: Path, label: str, epoch: int) -> None:
    run(
        [
            *("xorriso", "-as", "mkisofs", "-quiet", "-o", str(iso), "-V", label, "-r", "-J"),
            *("-joliet-long", "-iso-level", "3", "-b", _ELTORITO, "-no-emul-boot"),
            *("-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"),
            *("--grub2-mbr", str(grub.FOLDER / grub.BIOS / "boot_hybrid.img")),
            *("--efi-boot", _ESP, "-efi-boot-part", "--efi-boot-image"),
            *("--protective-msdos-label", str(tree)),
        ],
        env={"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"},
    )


def _area_of(iso: Path) -> Area:
    """Where xorriso has put the file that is the area."""
    done = run(["xorriso", "-indev", str(iso), "-find", f"/{_AREA}", "-exec", "report_lba", "--"])
    found = _LBA.search(done.stdout)
    if not found or int(found[2]) != AREA_BYTES:
        raise ToolFailedError(
            f"xorriso does not say where {_AREA} is", context={"output": done.stdout}
        )
    return Area(int(found[1]) * 2048, AREA_BYTES)


def write_rootfs(parts: LiveParts, dest: Path) -> None:
    """The root as a further initramfs, for machines that boot over the network."""
    cpio.write_one(parts.root, ROOT_NAME, dest)
