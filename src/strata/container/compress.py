"""Compressing layers: gzip by zlib-ng, or zstd. The compressor only decides bytes, never identity.

The same tar gives the same blob with the same version of the compressor; what two builds are
compared by are diff-ids (docs/adr/0004).
"""

from __future__ import annotations

import ctypes
import struct
import zlib
from typing import Protocol

from zlib_ng import zlib_ng

from strata.core.errors import UsageError
from strata.core.streams import Writable
from strata.oci.compression import ZstdBuffer, libzstd
from strata.oci.model import LAYER, LAYER_GZIP, LAYER_ZSTD

# No name, no time, no operating system: the same bytes give the same bytes (RFC 1952).
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_ZSTD_LEVEL = 3
_ZSTD_OUT = 1 << 17


class Compressor(Protocol):
    """Takes a tar's bytes, writes compressed ones to its sink."""

    def write(self, data: bytes, /) -> object:
        """Compress bytes."""

    def finish(self) -> None:
        """Write what is left."""


class Gzip:
    """One gzip member with fixed header fields. level: 1 to 9, of zlib-ng."""

    def __init__(self, sink: Writable, level: int) -> None:
        self._write = sink.write
        self._deflate = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -zlib_ng.MAX_WBITS, 9)
        self._crc, self._size = 0, 0
        self._write(_GZIP_HEADER)

    def write(self, data: bytes, /) -> None:
        """Compress bytes."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._write(self._deflate.compress(data))

    def finish(self) -> None:
        """Write what is left and the trailer."""
        self._write(self._deflate.flush())
        self._write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))


class Plain:
    """No compression."""

    def __init__(self, sink: Writable) -> None:
        self.write = sink.write

    def finish(self) -> None:
        """Nothing is left."""


class Zstd:
    """One zstd frame, by libzstd."""

    def __init__(self, sink: Writable, level: int = _ZSTD_LEVEL) -> None:
        self._write = sink.write
        self._lib = _libzstd()
        self._stream = self._lib.ZSTD_createCCtx()
        self._check(self._lib.ZSTD_CCtx_setParameter(self._stream, 100, level))  # level
        self._check(self._lib.ZSTD_CCtx_setParameter(self._stream, 201, 1))  # checksum
        self._out = ctypes.create_string_buffer(_ZSTD_OUT)

    def __del__(self) -> None:
        stream, self._stream = getattr(self, "_stream", None), None
        if stream:
            self._lib.ZSTD_freeCCtx(stream)

    def write(self, data: bytes, /) -> None:
        """Compress bytes."""
        self._push(data, 0)

    def finish(self) -> None:
        """Write what is left and end the frame."""
        self._push(b"", 2)

    def _push(self, data: bytes, mode: int) -> None:
        holder = ctypes.create_string_buffer(data, len(data) or 1)
        source = ZstdBuffer(ctypes.addressof(holder), len(data), 0)
        while True:
            target = ZstdBuffer(ctypes.addressof(self._out), _ZSTD_OUT, 0)
            left = self._check(
                self._lib.ZSTD_compressStream2(
                    self._stream, ctypes.byref(target), ctypes.byref(source), mode
                )
            )
            if target.pos:
                self._write(ctypes.string_at(self._out, target.pos))
            if source.pos == source.size and (mode == 0 or left == 0):
                return

    def _check(self, status: int) -> int:
        if self._lib.ZSTD_isError(status):
            raise UsageError(f"libzstd: {self._lib.ZSTD_getErrorName(status).decode()}")
        return status


def _libzstd() -> ctypes.CDLL:
    lib = libzstd()
    lib.ZSTD_createCCtx.restype = ctypes.c_void_p
    lib.ZSTD_freeCCtx.argtypes = [ctypes.c_void_p]
    lib.ZSTD_CCtx_setParameter.restype = ctypes.c_size_t
    lib.ZSTD_CCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    buffer = ctypes.POINTER(ZstdBuffer)
    lib.ZSTD_compressStream2.restype = ctypes.c_size_t
    lib.ZSTD_compressStream2.argtypes = [ctypes.c_void_p, buffer, buffer, ctypes.c_int]
    return lib


_GZIP_LEVELS = {"gzip": 6, "gzip-fast": 3}
COMPRESSIONS = (*_GZIP_LEVELS, "zstd", "none")


def compressor(name: str, sink: Writable) -> tuple[Compressor, str]:
    """A compressor by name (one of COMPRESSIONS) and the media type of its layers.

    Raises UsageError, ToolMissingError.
    """
    if name in _GZIP_LEVELS:
        return Gzip(sink, _GZIP_LEVELS[name]), LAYER_GZIP
    if name == "zstd":
        return Zstd(sink), LAYER_ZSTD
    if name == "none":
        return Plain(sink), LAYER
    raise UsageError(f"there is no compression {name}", hint=f"known: {', '.join(COMPRESSIONS)}")
