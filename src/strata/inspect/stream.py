"""A layer's tar, for looking at: gzip by zlib-ng, which takes two thirds of zlib's time.

The agent's own reader (`oci.compression`) is the standard library's; looking is not the agent's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from zlib_ng import zlib_ng

from strata.core.errors import ImageError
from strata.oci.compression import Readable, decompress
from strata.oci.model import Descriptor
from strata.oci.source import ImageSource
from strata.oci.tar import TarReader

_CHUNK = 1 << 18
_GZIP = 31  # a window of 32 KiB and gzip's header
# The library's stub does not say that its error is an exception.
_DAMAGE = cast("type[Exception]", zlib_ng.error)


@contextmanager
def open_tar(source: ImageSource, layer: Descriptor) -> Iterator[TarReader]:
    """A layer's entries. Raises ImageError, DigestError, TransportError at the latest at the end of
    the block."""
    with source.open_layer(layer) as stream:
        gzipped = layer.media_type.endswith(("+gzip", "tar.gzip"))
        yield TarReader(_Gzip(stream) if gzipped else decompress(stream, layer.media_type))


class _Gzip:
    """Reads one or more gzip members as one stream. Raises ImageError on damage."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._inflate = zlib_ng.decompressobj(wbits=_GZIP)
        self._pending = b""
        self._inside = False

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes (at least one unless at the end)."""
        limit = _CHUNK if size < 0 else size
        while True:
            if not self._pending:
                self._pending = self._source.read(_CHUNK)
                if not self._pending:
                    if self._inside:
                        raise ImageError("a gzip layer is cut off")
                    return b""
            try:
                out = self._inflate.decompress(self._pending, limit)
            except _DAMAGE as error:
                raise ImageError(f"a gzip layer is damaged: {error}") from error
            self._inside = not self._inflate.eof
            if self._inflate.eof:
                # Zeros after a member are padding; anything else is the next member.
                self._pending = self._inflate.unused_data.lstrip(b"\0")
                self._inflate = zlib_ng.decompressobj(wbits=_GZIP)
            else:
                self._pending = self._inflate.unconsumed_tail
            if out:
                return out
