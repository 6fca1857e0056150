"""GRUB for images: boot sectors, EFI programs and their configuration, installed by writing bytes.

`grub-install` wants devices and mounts; here `grub-mkimage` makes the images and this module does
what grub-bios-setup would. Terms: boot.img is the first sector's program, core.img what it loads
from the BIOS boot partition. Source: GRUB's grub-core/boot/i386/pc and util/setup.c.
"""

from __future__ import annotations

import struct
from pathlib import Path

from strata.core.errors import ImageError, ToolMissingError
from strata.core.process import run

FOLDER = Path("/usr/lib/grub")
BIOS, ELTORITO, EFI = "i386-pc", "i386-pc-eltorito", "x86_64-efi"
SECTOR = 512
EFI_PROGRAM = "BOOTX64.EFI"
_MODULES = (
    *"normal linux search search_label serial terminal echo test configfile".split(),
    *"part_gpt part_msdos".split(),
)
_DISK_MODULES = ("ext2", "syslinuxcfg", "regexp")
_PLATFORM_MODULES = {
    BIOS: ("biosdisk", "linux16"),
    ELTORITO: ("biosdisk", "iso9660"),
    EFI: ("fat", "iso9660", "efi_gop", "all_video"),
}
# boot.img: where it keeps the core's first sector, and the jump that two NOPs disarm on disks.
_KERNEL_SECTOR, _DRIVE_CHECK, _TABLE = 0x5C, 0x66, 0x1B8
_BLOCK_LIST, _LOAD_SEGMENT = SECTOR - 12, 0x820

DISK_CONFIG = """\
set timeout=1
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
if [ -e ($root)/boot/ignition.firstboot ]; then
  set ignition_firstboot="ignition.firstboot"
fi
export ignition_firstboot
syslinux_configfile ($root)/boot/loader/syslinux.cfg
"""


def early_config(label: str, config: str) -> str:
    """What GRUB runs first: find the file system with a label, and read a file of it."""
    return f"search --no-floppy --label {label} --set=root\nconfigfile ($root){config}\n"


def make_image(platform: str, config: str, output: Path, *, disk: bool) -> bytes:
    """GRUB for a platform, with an early configuration; also written to `output`.

    disk: it reads ext4 and the loader's entries. Raises ToolMissingError, ToolFailedError.
    """
    folder = FOLDER / platform.replace("-eltorito", "")
    if not (folder / "normal.mod").is_file():
        package = "grub-efi-amd64-bin" if platform == EFI else "grub-pc-bin"
        raise ToolMissingError(f"GRUB for {platform} is missing", hint=f"apt install {package}")
    early = output.with_suffix(".cfg")
    early.write_text(config)
    modules = (*_MODULES, *(_DISK_MODULES if disk else ()), *_PLATFORM_MODULES[platform])
    run(
        [
            *("grub-mkimage", "-O", platform, "-p", "/boot/grub", "-c", str(early)),
            *("-d", str(folder), "-o", str(output), *modules),
        ]
    )
    return output.read_bytes()


def boot_sector(boot: bytes, sector: bytes, core_lba: int) -> bytes:
    """The disk's first sector: boot.img told where the core is, the partition table kept."""
    if len(boot) != SECTOR or len(sector) != SECTOR:
        raise ImageError("a boot sector has 512 bytes")
    patched = bytearray(boot)
    patched[_KERNEL_SECTOR : _KERNEL_SECTOR + 8] = struct.pack("<Q", core_lba)
    patched[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    patched[_TABLE:] = sector[_TABLE:]
    return bytes(patched)


def embedded_core(core: bytes, lba: int, room_bytes: int) -> bytes:
    """core.img told where its own further sectors are. Raises ImageError when it does not fit."""
    sectors = -(-len(core) // SECTOR)
    if sectors * SECTOR > room_bytes:
        raise ImageError(f"GRUB's core has {len(core)} bytes; there is room for {room_bytes}")
    patched = bytearray(core.ljust(sectors * SECTOR, b"\0"))
    blocks = struct.pack("<QHH", lba + 1, sectors - 1, _LOAD_SEGMENT)
    patched[_BLOCK_LIST : _BLOCK_LIST + 12] = blocks
    return bytes(patched)


def write_esp(image: Path, program: Path, *, size_bytes: int, volume_id: int) -> None:
    """A FAT file system whose only file is the EFI program, where firmware looks for it."""
    with open(image, "wb") as stream:
        stream.truncate(size_bytes)
    run(["mkfs.fat", "--invariant", "-i", f"{volume_id:08x}", "-n", "ESP", str(image)])
    env = {"SOURCE_DATE_EPOCH": "315532800", "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    run(["mmd", "-i", str(image), "::/EFI", "::/EFI/BOOT"], env=env)
    run(["mcopy", "-i", str(image), str(program), f"::/EFI/BOOT/{EFI_PROGRAM}"], env=env)
