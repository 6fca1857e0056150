"""Archives as the kernel unpacks initramfs images: cpio, format newc.

Pure, but for `append_file`. Source: the kernel's Documentation/driver-api/early-userspace/
buffer-format.rst.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_MAGIC = b"070701"
_TRAILER = b"TRAILER!!!"
_REGULAR = 0o100000
_MAX_BYTES = 0xFFFFFFFF


def archive(files: dict[str, bytes], *, mode: int = 0o644) -> bytes:
    """An archive of small files at its top. Names are sorted; owners root, times 0."""
    parts = []
    for number, (name, data) in enumerate(sorted(files.items()), 1):
        parts.append(_header(name.encode(), len(data), number, _REGULAR | mode))
        parts.append(data + bytes(-len(data) % 4))
    return b"".join([*parts, trailer()])


def write_one(source: Path, name: str, dest: Path) -> None:
    """An archive of one large file. Raises ValueError above 4 GiB, where the format ends."""
    size = source.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{name} has {size} bytes, more than a cpio archive can hold")
    with open(source, "rb") as reader, open(dest, "wb") as writer:
        writer.write(_header(name.encode(), size, 1, _REGULAR | 0o644))
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.write(bytes(-size % 4) + trailer())


def first_file(data: bytes, name: str) -> bytes | None:
    """The content of a file at an archive's start; None when it is another, or no archive."""
    if len(data) < 110 or data[:6] != _MAGIC:
        return None
    try:
        size, length = (int(data[at : at + 8], 16) for at in (54, 94))
    except ValueError:
        return None
    start = 110 + length + (-(110 + length) % 4)
    if data[110 : 110 + length].rstrip(b"\0") != name.encode() or start + size > len(data):
        return None
    return data[start : start + size]


def trailer() -> bytes:
    """What ends an archive."""
    return _header(_TRAILER, 0, 0, 0)


def _header(name: bytes, size: int, inode: int, mode: int) -> bytes:
    fields = (inode, mode, 0, 0, 1 if mode else 0, 0, size, 0, 0, 0, 0, len(name) + 1, 0)
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    return head + bytes(-len(head) % 4)
