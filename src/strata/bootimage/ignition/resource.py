"""What an Ignition config carries: data URLs (RFC 2397), compressed or not, in and out."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from typing import Any
from urllib.parse import unquote_to_bytes

from strata.core.errors import DefinitionError

MAX_BYTES = 64 << 20
_COMPRESS_ABOVE_BYTES = 1024


def encode(data: bytes) -> dict[str, str]:
    """Bytes as a resource of the config; what is long is compressed."""
    if len(data) > _COMPRESS_ABOVE_BYTES:
        return {"source": _url(gzip.compress(data, 9, mtime=0)), "compression": "gzip"}
    return {"source": _url(data)}


def _url(data: bytes) -> str:
    return "data:;base64," + base64.b64encode(data).decode()


def decode(resource: object, where: str) -> bytes | None:
    """The bytes of a resource; None when they are elsewhere. where: named in the error.

    Raises DefinitionError when they cannot be read or are more than MAX_BYTES.
    """
    if not isinstance(resource, dict):
        raise DefinitionError(f"{where} is not an object")
    source = resource.get("source")
    if source is None:
        return b""
    if not isinstance(source, str):
        raise DefinitionError(f"{where}: source is not a text")
    head, comma, text = source.partition(",")
    if not head.startswith("data:"):
        return None
    if not comma:
        raise DefinitionError(f"{where}: the data URL has no data")
    data = unquote_to_bytes(text)
    try:
        if head.endswith(";base64"):
            data = base64.b64decode(data, validate=True)
        if resource.get("compression") == "gzip":
            return _gunzip(data, where)
    except (binascii.Error, zlib.error) as error:
        raise DefinitionError(f"{where} cannot be read: {error}") from error
    return data


def _gunzip(data: bytes, where: str) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    found = inflater.decompress(data, MAX_BYTES)
    if inflater.unconsumed_tail:
        raise DefinitionError(f"{where} is larger than {MAX_BYTES} bytes")
    if not inflater.eof:
        raise DefinitionError(f"{where} is cut off: its gzip stream does not end")
    return found


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object. where: named in the error. Raises DefinitionError."""
    if len(data) > MAX_BYTES:
        raise DefinitionError(f"{where} is larger than {MAX_BYTES} bytes")
    try:
        document = json.loads(data)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{where} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DefinitionError(f"{where} is not a JSON object")
    return document


def parse_config(data: bytes, where: str) -> dict[str, Any]:
    """An Ignition config of specification 3. Raises DefinitionError."""
    document = parse_json(data, where)
    ignition = document.get("ignition")
    version = ignition.get("version") if isinstance(ignition, dict) else None
    if not isinstance(version, str) or not version.startswith("3."):
        raise DefinitionError(
            f"{where} is not an Ignition config of specification 3: its version is {version!r}",
            hint="other specifications have other fields",
        )
    return document
