"""What a treefile says of a tree's shape: /tmp, /opt and /usr/local, the machine-id, devices,
executables, where the kernel is. `normalise` and the base build call it.

Source: rpm-ostree's composepost.rs, rpmostree-postprocess.cxx and rpmostree-kernel.cxx.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from strata.core import rooted
from strata.core.errors import TreeError
from strata.core.files import remove_tree
from strata.treefile.layout import STATE_OVERLAY, VAR, Layout

MACHINE_ID = "etc/machine-id"
OSTREE_BOOT = "usr/lib/ostree-boot"
# libostree's name in a commit for a whiteout that containers' storage has in a tree.
WHITEOUT_PREFIX = ".ostree-wh."
_OPT, _USR_LOCAL = "opt", "usr/local"
_REQUIRED = "usr/lib/systemd/system/local-fs.target.requires"
_STATE_UNITS = (
    "ostree-state-overlay@usr-lib-opt.service",
    "ostree-state-overlay@usr-local.service",
)


def settle_opt(root: Path, layout: Layout) -> frozenset[str]:
    """Make /opt and /usr/local what they are to be; returns those that stay as they are then.

    The others become links into /var.
    """
    if layout.opt_usrlocal == VAR:
        return frozenset()
    for name in (_OPT, _USR_LOCAL):
        place = rooted.resolve(root, name, follow_last=False)
        if place.is_symlink():
            place.unlink()  # of the layer below, into /var
        place.mkdir(parents=True, exist_ok=True)
    if layout.opt_usrlocal == STATE_OVERLAY:
        _overlay_opt(root)
    return frozenset((_OPT, _USR_LOCAL))


def _overlay_opt(root: Path) -> None:
    """/opt's content is in /usr/lib/opt, and a machine's changes of both are laid over it."""
    inside = rooted.resolve(root, "usr/lib/opt")
    shutil.copytree(root / _OPT, inside, symlinks=True, dirs_exist_ok=True)
    remove_tree(root / _OPT)
    (root / _OPT).symlink_to("usr/lib/opt")
    wants = rooted.resolve(root, _REQUIRED)
    wants.mkdir(parents=True, exist_ok=True)
    for unit in _STATE_UNITS:
        link = wants / unit
        link.unlink(missing_ok=True)
        link.symlink_to(f"../{unit}")


def settle_tmp(root: Path, layout: Layout) -> None:
    """/tmp is an empty folder, or a link to the machine's /sysroot/tmp."""
    remove_tree(root / "tmp")
    if layout.tmp_is_dir:
        open_tmp(root)
    else:
        (root / "tmp").symlink_to("sysroot/tmp")


def open_tmp(root: Path) -> None:
    """Have an empty folder /tmp, also where the layer below has a link."""
    if (root / "tmp").is_symlink():
        (root / "tmp").unlink()
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def settle_machine_id(root: Path, layout: Layout) -> None:
    """An empty /etc/machine-id, or none. What a tool wrote there is of no machine."""
    rooted.remove(root, MACHINE_ID)
    if layout.machine_id:
        rooted.write_text(root, MACHINE_ID, "")


def settle_files(root: Path, layout: Layout) -> int:
    """Take the write permission from executables, and devices out, as the treefile has it.

    A whiteout of overlayfs becomes a file of libostree's name for it. Returns how many devices are
    gone. Raises TreeError when there is one and `ignore-devices` is false.
    """
    gone = 0
    for path, status in _files(root):
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG and layout.readonly_executables and status.st_mode & 0o111:
            path.chmod(stat.S_IMODE(status.st_mode) & ~0o222)
        elif kind == stat.S_IFCHR and status.st_rdev == 0:
            path.unlink()
            quoted = path.with_name(WHITEOUT_PREFIX + path.name)
            quoted.touch()
            quoted.chmod(stat.S_IMODE(status.st_mode))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            if not layout.ignore_devices:
                raise TreeError(
                    f"the tree has a device, /{path.relative_to(root)}, which no commit can hold",
                    hint="take it out in a postprocess script, or leave ignore-devices out",
                )
            path.unlink()
            gone += 1
    return gone


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, subdirs, files in os.walk(root):
        subdirs.sort()
        for name in sorted(files):
            path = Path(folder, name)
            yield path, path.lstat()


def settle_boot(root: Path, kernel: str, layout: Layout) -> None:
    """With `boot-location: new` the kernel and its initramfs are in /usr/lib/ostree-boot, too.

    Their names carry the sha256 over both, as versions of libostree before 2016 look for them. What
    a layer below has there goes: it was of its initramfs.
    """
    folder = rooted.resolve(root, OSTREE_BOOT)
    for old in folder.glob("*") if folder.is_dir() else ():
        if old.name.startswith(("vmlinuz-", "initramfs-")):
            old.unlink()
    if not layout.ostree_boot:
        return
    modules = rooted.resolve(root, f"usr/lib/modules/{kernel}")
    names = {"vmlinuz": f"vmlinuz-{kernel}", "initramfs.img": f"initramfs-{kernel}.img"}
    there = [name for name in names if (modules / name).is_file()]
    total = hashlib.sha256()
    for name in there:
        total.update((modules / name).read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    for name in there:
        os.link(modules / name, folder / f"{names[name]}-{total.hexdigest()}")
