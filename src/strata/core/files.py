"""Durable and careful file work: temporary file, fsync, rename; locks; removal that never leaves
the tree it was given and never crosses into a mount.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from strata.core.errors import StrataError

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x00000010
_FS_APPEND_FL = 0x00000020


def atomic_write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file or nothing: temporary file in the same folder, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise
    fsync_dir(path.parent)


def fsync_dir(path: Path) -> None:
    """Make renames inside a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces: the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def json_digest(value: object) -> str:
    """`sha256:…` of a value's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def pretty_json(value: object) -> bytes:
    """JSON for people: sorted keys, two spaces, a final newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def locked(
    path: Path,
    what: str,
    *,
    wait: bool = True,
    waiting: Callable[[str], None] = lambda holder: None,
) -> Iterator[None]:
    """Hold an exclusive lock on a file (made if missing) for the length of the block.

    what: named in the error when `wait` is false and someone else holds it. waiting: called once
    before waiting for another process, with its id (empty when it is not known).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise StrataError(
                    f"another process is using {what}",
                    hint="wait for it to finish",
                    context={"lock": path},
                ) from None
            waiting(os.pread(fd, 32, 0).decode("ascii", "replace").strip())
            fcntl.flock(fd, fcntl.LOCK_EX)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(fd)


def set_immutable(path: Path, on: bool) -> None:
    """Set or clear ext4's immutable flag, as `chattr ±i` does; a no-op where it is unknown."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        flags = _inode_flags(fd)
        wanted = flags | _FS_IMMUTABLE_FL if on else flags & ~_FS_IMMUTABLE_FL
        if wanted != flags:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, wanted.to_bytes(8, "little"))
    except OSError:
        return  # tmpfs and overlayfs have no such flag
    finally:
        os.close(fd)


def is_fixed(fd: int) -> bool:
    """Whether an open file or folder is immutable or append-only (chattr +i, +a)."""
    try:
        return bool(_inode_flags(fd) & (_FS_IMMUTABLE_FL | _FS_APPEND_FL))
    except OSError:
        return False  # the file system has no such flags


def _inode_flags(fd: int) -> int:
    buffer = bytearray(8)
    fcntl.ioctl(fd, _FS_IOC_GETFLAGS, buffer)
    return int.from_bytes(buffer[:4], "little")


def mount_points(below: str = "/") -> list[str]:
    """Mount points at or below a path, in the order they were mounted (later ones may hide)."""
    top = below.rstrip("/")
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            point = line.split(" ")[4]
            for code, character in _MOUNTINFO_ESCAPES:
                point = point.replace(code, character)
            if point == (top or "/") or point.startswith(top + "/"):
                found.append(point)
    return found


# What the kernel escapes in mountinfo; the backslash last.
_MOUNTINFO_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def mounts_under(path: Path) -> list[str]:
    """Mount points at or below a path, the last mounted first: the order to unmount in."""
    return mount_points(os.path.realpath(path))[::-1]


def remove_tree(path: Path) -> None:
    """Remove a tree, deployments (immutable) included. Raises when something is mounted in it."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        path.unlink()
        return
    mounts = mounts_under(path)
    if mounts:
        raise StrataError(
            f"{path} cannot be removed: {mounts[0]} is mounted in it",
            hint=f"umount {mounts[0]}",
        )
    shutil.rmtree(path, onerror=_clear_immutable)


def _clear_immutable(
    remove: Callable[..., object], name: str, error: tuple[object, BaseException, object]
) -> None:
    """A deployment's root is immutable: its entries go once the flag is cleared."""
    if not isinstance(error[1], PermissionError):
        raise error[1]
    path = Path(name)
    set_immutable(path, False)
    set_immutable(path.parent, False)
    if remove in (os.rmdir, os.unlink):
        # rmtree works relative to an open folder; here the whole name is at hand.
        os.rmdir(path) if path.is_dir() and not path.is_symlink() else os.unlink(path)
    else:
        shutil.rmtree(path, onerror=_clear_immutable)


@contextmanager
def usual_umask() -> Iterator[None]:
    """Files and folders made in the block, also by children, have the modes people expect."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def scratch_dir(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder of one's own, removed at the end however the block ends."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=f"{prefix}.", dir=parent))
    try:
        yield path
    finally:
        remove_tree(path)


def sparse_copy(source: Path, dest: Path, offset: int) -> None:
    """Copy a file into another one, at an offset; its holes stay as they are there."""
    with open(source, "rb", buffering=0) as reader, open(dest, "r+b", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        at = 0
        while at < size:
            try:
                start = os.lseek(reader.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    return
                raise
            at = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            reader.seek(start)
            writer.seek(offset + start)
            while start < at:
                data = reader.read(min(1 << 20, at - start))
                writer.write(data)
                start += len(data)
