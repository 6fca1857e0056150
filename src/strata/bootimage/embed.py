"""An Ignition config inside a live image: written into an ISO's reserved area, or appended to the
initramfs of a PXE boot. The image boots with it, and nothing else of it changes.

The area is a file of the ISO that is loaded behind its initramfs: zeros, or a compressed cpio
archive with `config.ign`. Where it is stands at the end of the ISO's system area, as
coreos-installer has it, whose `iso ignition` commands read it too: eight bytes of magic, then
offset and length in bytes, little-endian.
Source: coreos-installer's src/live/iso.rs.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from strata.bootimage.cpio import archive, first_file
from strata.bootimage.ignition.resource import parse_config
from strata.core.errors import ImageError, UsageError

MAGIC = b"coreiso+"
HEADER_OFFSET = 32768 - 24
AREA_BYTES = 256 << 10
CONFIG_NAME = "config.ign"
_MAX_CONFIG_BYTES = 16 << 20
_HEADER = struct.Struct("<8sQQ")


@dataclass(frozen=True)
class Area:
    """Where an ISO has room for a config, in bytes."""

    offset: int
    length: int

    def header(self) -> bytes:
        """What says so in the system area."""
        return _HEADER.pack(MAGIC, self.offset, self.length)


def find_area(stream: BinaryIO) -> Area:
    """An ISO's area. Raises ImageError when it has none, or one that is not inside of it."""
    stream.seek(HEADER_OFFSET)
    data = stream.read(_HEADER.size)
    if len(data) == _HEADER.size and data.startswith(MAGIC):
        _, offset, length = _HEADER.unpack(data)
        size = stream.seek(0, os.SEEK_END)
        if HEADER_OFFSET + _HEADER.size <= offset and length > 0 and offset + length <= size:
            return Area(offset, length)
        raise ImageError("the ISO's area for an Ignition config is not inside of it")
    raise ImageError(
        "this is no live ISO with room for an Ignition config",
        hint="build one: strata build bootimage/STREAM:live-iso",
    )


def config_archive(config: bytes) -> bytes:
    """What is loaded behind an initramfs so that Ignition finds a config in it."""
    return gzip.compress(archive({CONFIG_NAME: config}, mode=0o600), 9, mtime=0)


def embedded(stream: BinaryIO) -> bytes | None:
    """The config in an ISO; None when there is none. Raises ImageError."""
    area = find_area(stream)
    stream.seek(area.offset)
    data = stream.read(area.length)
    if not data.strip(b"\0"):
        return None
    try:
        unpacked = zlib.decompressobj(31).decompress(data, _MAX_CONFIG_BYTES)
    except zlib.error as error:
        raise ImageError(f"the ISO's Ignition config cannot be read: {error}") from error
    found = first_file(unpacked, CONFIG_NAME)
    if found is None:
        raise ImageError(f"the ISO's area for an Ignition config holds no {CONFIG_NAME}")
    return found


def embed_in_iso(iso: Path, config: bytes | None, *, force: bool = False) -> None:
    """Write a config into an ISO, in place; None takes out the one that is there.

    Raises UsageError when it has one (without `force`) or the config is too large, DefinitionError
    when it is none, ImageError.
    """
    data = b""
    if config is not None:
        parse_config(config, "the config")
        data = config_archive(config)
    with open(iso, "r+b") as stream:
        area = find_area(stream)
        if len(data) > area.length:
            raise UsageError(
                f"the config has {len(data)} bytes compressed; the ISO has room for {area.length}",
                hint="let it merge the rest from a URL: ignition.config.merge",
            )
        stream.seek(area.offset)
        if config is not None and not force and stream.read(area.length).strip(b"\0"):
            raise UsageError(f"{iso} has an Ignition config", hint="--force replaces it")
        stream.seek(area.offset)
        stream.write(data.ljust(area.length, b"\0"))
        stream.flush()
        os.fsync(stream.fileno())


def append_to_initramfs(initramfs: Path, config: bytes) -> None:
    """Append a config to an initramfs, in place. The last one that is appended counts.

    Raises DefinitionError.
    """
    parse_config(config, "the config")
    with open(initramfs, "r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.write(bytes(-size % 4) + config_archive(config))
        stream.flush()
        os.fsync(stream.fileno())
