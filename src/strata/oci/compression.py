"""Compressed layers, read as streams: gzip, zstd, plain. Written are they in `container`.

gzip: any number of members, as some tools write. zstd: through the machine's libzstd, which systemd
needs anyway; Python has none below 3.14.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strata.core.errors import ImageError, ToolMissingError
from strata.core.streams import Readable
from strata.oci import model

# What a layer may expand to: so much, and this many times its compressed size.
FREE_BYTES = 256 << 20
MAX_RATIO = 200
_CHUNK = 1 << 18
# The largest window a zstd frame may ask for, of which each layer that is read has one: 32 MiB are
# what zstd's level 20 uses.
MAX_WINDOW_LOG = 25
_ZSTD_D_WINDOW_LOG_MAX = 100  # ZSTD_dParameter


@dataclass(frozen=True)
class Inflater:
    """What inflates a gzip member. make: a new one, as zlib.decompressobj is; error: its own."""

    make: Callable[[], Any]
    error: type[Exception]


ZLIB = Inflater(lambda: zlib.decompressobj(wbits=31), zlib.error)


class GzipReader:
    """Reads one or more gzip members as one stream. Raises ImageError on damage."""

    def __init__(self, source: Readable, inflater: Inflater = ZLIB) -> None:
        self._source, self._inflater = source, inflater
        self._inflate = inflater.make()
        self._pending = b""
        self._at_end = False
        self._fresh = True  # nothing of the member has been read
        self._between = False  # and there was one before it

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes (at least one unless at the end)."""
        limit = _CHUNK if size < 0 else size
        while not self._at_end:
            if self._between:
                # Zeros after a member are padding; anything else is the next member.
                self._pending = self._pending.lstrip(b"\0")
            if not self._pending:
                self._pending = self._source.read(_CHUNK)
                if self._pending:
                    continue
                self._at_end = True
                if not self._fresh:
                    raise ImageError("a gzip layer is cut off")
                break
            try:
                out: bytes = self._inflate.decompress(self._pending, limit)
            except self._inflater.error as error:
                raise ImageError(f"a gzip layer is damaged: {error}") from error
            self._fresh = self._between = self._inflate.eof
            if self._inflate.eof:
                self._pending = self._inflate.unused_data
                self._inflate = self._inflater.make()
            else:
                self._pending = self._inflate.unconsumed_tail
            if out:
                return out
        return b""


class ZstdBuffer(ctypes.Structure):
    """libzstd's ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("pos", ctypes.c_size_t),
    ]


def libzstd() -> ctypes.CDLL:
    """libzstd, with what reading needs described. Raises ToolMissingError."""
    try:
        lib = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise ToolMissingError(
            "libzstd.so.1 is not on this machine, and the image has zstd layers",
            hint="apt install libzstd1   (or: dnf install libzstd)",
        ) from error
    lib.ZSTD_createDStream.restype = ctypes.c_void_p
    lib.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    lib.ZSTD_decompressStream.restype = ctypes.c_size_t
    lib.ZSTD_decompressStream.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ZstdBuffer),
        ctypes.POINTER(ZstdBuffer),
    ]
    lib.ZSTD_DCtx_setParameter.restype = ctypes.c_size_t
    lib.ZSTD_DCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    lib.ZSTD_isError.argtypes = [ctypes.c_size_t]
    lib.ZSTD_getErrorName.restype = ctypes.c_char_p
    lib.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
    return lib


class ZstdReader:
    """Reads zstd frames (skippable ones too, as zstd:chunked ends with) as one stream."""

    def __init__(self, source: Readable) -> None:
        self._lib = libzstd()
        self._source = source
        self._stream = self._lib.ZSTD_createDStream()
        if not self._stream:
            raise MemoryError("libzstd has no memory for a stream")
        self._lib.ZSTD_DCtx_setParameter(self._stream, _ZSTD_D_WINDOW_LOG_MAX, MAX_WINDOW_LOG)
        self._in = b""
        self._position = 0
        self._between_frames = True
        self._out = ctypes.create_string_buffer(_CHUNK)

    def __del__(self) -> None:
        stream, self._stream = getattr(self, "_stream", None), None
        if stream:
            self._lib.ZSTD_freeDStream(stream)

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes (at least one unless at the end)."""
        limit = _CHUNK if size < 0 else min(size, _CHUNK)
        while True:
            if self._position == len(self._in):
                self._in, self._position = self._source.read(_CHUNK), 0
                if not self._in and self._between_frames:
                    return b""
            at_end = not self._in
            source = ctypes.create_string_buffer(self._in, len(self._in) or 1)
            reading = ZstdBuffer(ctypes.addressof(source), len(self._in), self._position)
            writing = ZstdBuffer(ctypes.addressof(self._out), limit, 0)
            status = self._lib.ZSTD_decompressStream(
                self._stream, ctypes.byref(writing), ctypes.byref(reading)
            )
            if self._lib.ZSTD_isError(status):
                name = self._lib.ZSTD_getErrorName(status).decode()
                if "memory" in name:
                    raise ImageError(
                        f"a zstd layer needs a window of more than {1 << MAX_WINDOW_LOG >> 20} MiB",
                        hint="compress it at a level below 21, without --long",
                    )
                raise ImageError(f"a zstd layer is damaged: {name}")
            self._position = reading.pos
            self._between_frames = status == 0
            if writing.pos:
                return self._out.raw[: writing.pos]
            if at_end:
                raise ImageError("a zstd layer is cut off")


class _CountedIn:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.size_bytes += len(data)
        return data


class _Bounded:
    """A decompressed stream that is no bomb: real files do not shrink so far."""

    def __init__(self, source: Readable, reader: Callable[[Readable], Readable]) -> None:
        self._source = _CountedIn(source)
        self._stream = reader(self._source)
        self._size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._size_bytes += len(data)
        if self._size_bytes > FREE_BYTES + MAX_RATIO * self._source.size_bytes:
            raise ImageError(f"a layer expands to more than {MAX_RATIO} times its size")
        return data


_PLAIN = (
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)


def decompress(source: Readable, media_type: str, inflater: Inflater = ZLIB) -> Readable:
    """A layer's tar stream, by its media type. Raises ImageError on an unknown one."""
    if media_type.endswith(("+gzip", ".tar.gzip", "tar.gzip")):
        return _Bounded(source, lambda counted: GzipReader(counted, inflater))
    if media_type.endswith("+zstd"):
        return _Bounded(source, ZstdReader)
    if media_type in (model.LAYER, *_PLAIN):
        return source
    raise ImageError(f"layers of type {media_type!r} are not read")
