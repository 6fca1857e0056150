"""The bytes of a few small files of an image, found by digest in the layers that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from strata.core.errors import ImageError
from strata.inspect.entries import File
from strata.inspect.stream import open_tar
from strata.inspect.view import ImageView
from strata.oci.source import ImageSource
from strata.oci.tar import FILE

MAX_FILE_BYTES = 4 << 20
MAX_TOTAL_BYTES = 64 << 20


def read_contents(source: ImageSource, view: ImageView, files: Iterable[File]) -> dict[str, bytes]:
    """From the digest of each regular file to its bytes. The files' digests must have been read.

    Raises ImageError on a file larger than 4 MiB, or when all are larger than 64 MiB.
    """
    wanted: dict[int, dict[str, int]] = {}
    for file in files:
        if file.kind == "file":
            if file.size_bytes > MAX_FILE_BYTES:
                raise ImageError(f"a file of {file.size_bytes} bytes is too large to look into")
            wanted.setdefault(file.stored, {})[file.digest] = file.size_bytes
    if sum(size for of in wanted.values() for size in of.values()) > MAX_TOTAL_BYTES:
        raise ImageError(f"the files to look into are larger than {MAX_TOTAL_BYTES} bytes")
    found: dict[str, bytes] = {}
    for number, digests in wanted.items():
        layer = view.layers[number - 1].descriptor
        with open_tar(source, layer) as tar:
            for entry in tar:
                if entry.type != FILE or entry.size_bytes not in digests.values():
                    continue
                data = tar.read_all(MAX_FILE_BYTES)
                digest = hashlib.sha256(data).hexdigest()
                if digest in digests:
                    found[digest] = data
                if digests.keys() <= found.keys():
                    break
    return found
