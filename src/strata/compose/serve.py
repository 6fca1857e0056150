"""Serving an extensions image as the RPM repository it holds, over HTTP (requirement R4.8).

Nothing is unpacked. The image's layers are tars that are not compressed: they are read once, which
checks them against their digests and finds where each file begins, and a file is then sent from
there. A request is looked up among the names that were found, and reaches nothing else.
"""

from __future__ import annotations

import html
import os
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from strata.core.errors import ImageError, UsageError
from strata.oci.checked import Checked
from strata.oci.layout import Layout
from strata.oci.model import LAYER, Manifest
from strata.oci.tar import FILE, TarReader

TIMEOUT_S = 60.0
_CHUNK = 1 << 18


@dataclass(frozen=True)
class StoredFile:
    """A file within a layer that is open: descriptor, where its bytes begin, and how many."""

    fd: int
    offset: int
    size_bytes: int

    def chunks(self) -> Iterator[bytes]:
        """Its bytes. Raises ImageError when the layer became shorter."""
        at, end = self.offset, self.offset + self.size_bytes
        while at < end:
            data = os.pread(self.fd, min(_CHUNK, end - at), at)
            if not data:
                raise ImageError("a layer became shorter while it was served")
            at += len(data)
            yield data

    def read(self) -> bytes:
        """All of its bytes."""
        return b"".join(self.chunks())


@contextmanager
def open_files(layout: Layout, manifest: Manifest) -> Iterator[Mapping[str, StoredFile]]:
    """The files of an image by their path, readable within the block.

    Raises ImageError on a layer that is compressed or malformed, DigestError on a damaged one.
    """
    found: dict[str, StoredFile] = {}
    with ExitStack() as stack:
        for layer in manifest.layers:
            if layer.media_type != LAYER:
                raise ImageError(
                    f"layer {layer.digest} is compressed, and files are served as they lie there",
                    hint="build the extensions again",
                )
            blob = stack.enter_context(layout.open_blob(layer.digest))
            with Checked(blob, layer, str(layout.path)).reading() as stream:
                tar = TarReader(stream)
                for entry in tar:
                    if entry.type == FILE:
                        path = entry.path.decode("utf-8", "surrogateescape")
                        at = tar.consumed_bytes
                        found[path] = StoredFile(blob.fileno(), at, entry.size_bytes)
        yield found


class RepositoryServer(ThreadingHTTPServer):
    """Serves files by the names given, and nothing else. `url` says where."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, StoredFile], address: str, port: int) -> None:
        """files: by their path below the served root. port: 0 for any that is free.

        Raises UsageError when it cannot listen there.
        """
        self.files = files
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            super().__init__((address, port), _Handler)
        except (OSError, OverflowError) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            raise UsageError(
                f"cannot listen on {address} port {port}: {why}",
                hint="--port 0 takes a port that is free",
            ) from error

    def server_bind(self) -> None:
        """Bind, without asking a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def url(self) -> str:
        """Where the repository is, as a baseurl."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server: RepositoryServer

    def do_GET(self) -> None:
        """Send a file, or the names in a folder."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without the bytes."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0], errors="surrogateescape")[1:]
        file = self.server.files.get(path)
        if file is not None:
            self._head("application/octet-stream", file.size_bytes)
            for data in file.chunks() if body else ():
                self.wfile.write(data)
            return
        folder = path.rstrip("/") + "/" if path.rstrip("/") else ""
        names = sorted(name for name in self.server.files if name.startswith(folder))
        if not names:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        page = _listing(names).encode()
        self._head("text/html; charset=utf-8", len(page))
        if body:
            self.wfile.write(page)

    def _head(self, content_type: str, size: int) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def version_string(self) -> str:
        """What serves."""
        return "strata"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Requests are not told."""


def _listing(names: list[str]) -> str:
    rows = []
    for name in names:
        link = urllib.parse.quote(f"/{name}", errors="surrogateescape")
        shown = html.escape(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        rows.append(f'<li><a href="{link}">{shown}</a></li>')
    return "<!DOCTYPE html>\n<ul>\n" + "\n".join(rows) + "\n</ul>\n"
