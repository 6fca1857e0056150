"""A layer's tar, for looking at: gzip by zlib-ng, which takes two thirds of zlib's time.

The agent's own reader (`oci.compression`) is the standard library's; looking is not the agent's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from zlib_ng import zlib_ng

from strata.oci.compression import Inflater, decompress
from strata.oci.model import Descriptor
from strata.oci.source import ImageSource
from strata.oci.tar import TarReader

_GZIP = 31  # a window of 32 KiB and gzip's header
# The library's stub does not say that its error is an exception.
_INFLATER = Inflater(
    lambda: zlib_ng.decompressobj(wbits=_GZIP), cast("type[Exception]", zlib_ng.error)
)


@contextmanager
def open_tar(source: ImageSource, layer: Descriptor) -> Iterator[TarReader]:
    """A layer's entries. Raises ImageError, DigestError, TransportError at the latest at the end of
    the block."""
    with source.open_layer(layer) as stream:
        yield TarReader(decompress(stream, layer.media_type, _INFLATER))
