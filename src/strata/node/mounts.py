"""mount(2) and its kin, with errors that name what was tried."""

from __future__ import annotations

import ctypes
import os

from strata.core.errors import StrataError

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 1, 32, 4096, 16384
MS_SLAVE = 1 << 19
MNT_DETACH = 2
CLONE_NEWNS = 0x00020000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise StrataError(
            f"{doing} failed: {os.strerror(number)}",
            hint="the agent needs CAP_SYS_ADMIN in the machine's own mount namespace",
            context={"errno": number},
        )


def _mount(
    source: str | None, target: str, flags: int, doing: str, kind: str = "", options: str = ""
) -> None:
    words = [os.fsencode(text) if text else None for text in (source, target, kind, options)]
    _check(_libc.mount(words[0], words[1], words[2], flags, words[3]), doing)


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """Show a folder at another place too."""
    flags = MS_BIND | (MS_REC if recursive else 0)
    _mount(source, target, flags, f"binding {source} to {target}")


def tmpfs(target: str, *, size_bytes: int, inodes: int) -> None:
    """Mount a memory file system with these limits."""
    options = f"mode=0755,size={size_bytes},nr_inodes={inodes}"
    _mount("strata-node", target, 0, f"mounting a tmpfs at {target}", "tmpfs", options)


def lower_overlay(upper: str, lower: str, target: str) -> None:
    """Show one folder over another, read-only; paths may not hold a colon or a comma."""
    options = f"lowerdir={upper}:{lower}"
    doing = f"laying {upper} over {lower} at {target}"
    _mount("strata-node", target, MS_RDONLY, doing, "overlay", options)


def make_read_only(target: str) -> None:
    """Make one mount read-only; mounts below it keep their own flag."""
    _mount(
        None, target, MS_REMOUNT | MS_BIND | MS_RDONLY, f"making the mount at {target} read-only"
    )


def make_writable(target: str) -> None:
    """Make one mount writable again, as far as its file system is."""
    _mount(None, target, MS_REMOUNT | MS_BIND, f"making the mount at {target} writable")


def unmount(target: str) -> None:
    """Take a mount away; it goes for good when its last user is done."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmounting {target}")


def join_machine() -> None:
    """Work in PID 1's mounts, whatever unit or namespace this process was started in.

    A unit with MountFlags=slave sees the machine's mounts but cannot change them.
    """
    there = "/proc/1/ns/mnt"
    if os.path.samefile(there, "/proc/self/ns/mnt"):
        return
    namespace = os.open(there, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(namespace, CLONE_NEWNS), "joining the machine's mount namespace")
    finally:
        os.close(namespace)


def private_namespace() -> None:
    """Mounts of this process are its own from here on; the machine's still reach it."""
    _check(_libc.unshare(CLONE_NEWNS), "leaving the mount namespace")
    _mount(None, "/", MS_REC | MS_SLAVE, "making mounts private")


def is_read_only(path: str) -> bool:
    """Whether a path is on a read-only mount."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
