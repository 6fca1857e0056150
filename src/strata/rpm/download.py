"""Fetching a repository's files: bounded in size and time, tried again where that can help.

A server that breaks off, answers with a failure of its own (5xx) or sends next to nothing is asked
again, ATTEMPTS times in all, with a doubled wait between; one that says no (404) is not.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from typing import BinaryIO

from strata.core.network import require_network

ATTEMPTS = 4
FIRST_WAIT_S = 0.5
TIMEOUT_S = 30.0
# As librepo has it: slower than this over TIMEOUT_S counts as nothing at all.
LEAST_BYTES_PER_S = 1000
_CHUNK_BYTES = 1 << 18
# What a server may mean for the moment only, beside its own failures.
_PASSING = (408, 425, 429)


class FetchError(Exception):
    """The other side did not give it; the text says why, as the end of a sentence."""


class _PassingError(FetchError):
    """A failure that may be gone at the next attempt."""


def fetch(url: str, max_bytes: int) -> bytes:
    """Read a file:, http: or https: address whole. Raises FetchError, OfflineError."""
    out = io.BytesIO()
    download(url, out, max_bytes=max_bytes)
    if out.tell() > max_bytes:
        raise FetchError(f"it is larger than {max_bytes} bytes")
    return out.getvalue()


def download(url: str, out: BinaryIO, *, max_bytes: int, size_bytes: int = 0) -> None:
    """Write what an address holds to the start of a file.

    max_bytes: at most one byte more than that is written; it shows that there is more. size_bytes:
    how much there should be where a server does not say, 0 when unknown.
    Raises FetchError, OfflineError; an error of writing `out` goes through.
    """
    if not url.startswith(("file:", "http:", "https:")):
        raise FetchError("it is neither a file: nor an http: address")
    if not url.startswith("file:"):
        require_network(url)
    for attempt in range(ATTEMPTS):
        out.seek(0)
        out.truncate()
        try:
            _attempt(url, out, max_bytes, size_bytes)
        except _PassingError as error:
            if attempt == ATTEMPTS - 1:
                raise FetchError(f"{error} ({ATTEMPTS} attempts)") from error
            time.sleep(FIRST_WAIT_S * 2**attempt)
        else:
            return


def _attempt(url: str, out: BinaryIO, max_bytes: int, size_bytes: int) -> None:
    with _open(url) as stream:
        length = stream.headers.get("Content-Length", "")
        announced = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else size_bytes
        received, window, since = 0, 0, time.monotonic()
        while received <= max_bytes:
            chunk = _read(stream, min(_CHUNK_BYTES, max_bytes + 1 - received))
            if not chunk:
                break
            out.write(chunk)
            received += len(chunk)
            window += len(chunk)
            if time.monotonic() - since > TIMEOUT_S:
                if window < LEAST_BYTES_PER_S * TIMEOUT_S:
                    raise _PassingError(f"less than {LEAST_BYTES_PER_S} bytes a second arrive")
                window, since = 0, time.monotonic()
    if received < min(announced, max_bytes):
        raise _PassingError(f"the server broke off after {received} of {announced} bytes")


def _open(url: str) -> http.client.HTTPResponse:
    try:
        stream: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310 -- checked above
            url, timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        kind = _PassingError if error.code >= 500 or error.code in _PASSING else FetchError
        raise kind(f"the server says {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _failure(error.reason) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failure(error) from error
    return stream


def _read(stream: http.client.HTTPResponse, size: int) -> bytes:
    """Some bytes, as they come: waiting for a whole chunk would hide how slowly they do."""
    try:
        return stream.read1(size)
    except (OSError, http.client.HTTPException) as error:
        raise _failure(error) from error


def _failure(reason: object) -> FetchError:
    if isinstance(reason, TimeoutError):
        return _PassingError(f"nothing arrived for {TIMEOUT_S:g} s")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return FetchError(f"its certificate is not trusted: {reason.verify_message}")
    if isinstance(reason, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return _PassingError("the server broke off")
    if isinstance(reason, http.client.HTTPException):
        return _PassingError(f"this is no HTTP: {reason}")
    text = getattr(reason, "strerror", None) or str(reason)
    if isinstance(reason, ConnectionError | socket.gaierror | ssl.SSLError):
        return _PassingError(text)
    return FetchError(text)
