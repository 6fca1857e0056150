"""skopeo: its image proxy (single blobs over a pipe) and `skopeo copy`.

The proxy speaks JSON datagrams over a socket; pipes come as file descriptors. Rules (protocol
0.2.3): a pipe never ends by itself before FinishPipe is called, and FinishPipe blocks the socket
until the data is drained: so it is called from one thread while another reads; digest errors and
broken connections surface there. One call at a time per process; parallel blobs take one process
each. Registries, mirrors, credentials and signature policy are skopeo's configuration.
Source: skopeo-experimental-image-proxy(1), containers/skopeo cmd/skopeo/proxy.go.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from strata.core.errors import (
    ImageError,
    StrataError,
    TransportError,
)
from strata.core.network import require_network
from strata.core.process import Completed, end_group, environment, run
from strata.core.tools import find_tool
from strata.oci.digest import Digest
from strata.oci.failures import transport_error
from strata.oci.model import MAX_LAYERS, MAX_SIZE_BYTES, Descriptor

MAX_MESSAGE_BYTES = 32 << 10
MAX_DOCUMENT_BYTES = 16 << 20
TIMEOUT_S = 120.0
_F_SETPIPE_SZ = 1031


# From this version on the proxy says how a store of another tool holds its layers.
LAYER_INFO = (0, 2, 5)
_LAYER_INFO_PIPED = (0, 2, 7)
# From this version on it surely holds an image against the signature policy when it opens it;
# 0.2.6 was shipped with and without (containers/skopeo#2029).
ENFORCES_POLICY = (0, 2, 8)


@dataclass(frozen=True)
class Options:
    """What skopeo is told beside its own configuration.

    policy: the signature policy to enforce. architecture, variant: which image of an index.
    """

    policy: Path | None = None
    architecture: str = ""
    variant: str = ""

    def arguments(self) -> list[str]:
        """As skopeo's global options."""
        values = (
            ("--policy", str(self.policy or "")),
            ("--override-arch", self.architecture),
            ("--override-variant", self.variant),
        )
        return [word for option, value in values if value for word in (option, value)]


_DEFAULTS = Options()


class Proxy:
    """One proxy process with one open image (none when its name is empty). A context manager.

    protocol: the version it speaks.
    """

    def __init__(self, reference: str, options: Options = _DEFAULTS) -> None:
        _require(reference)
        self.reference = reference
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        # A proxy ends with its socket: closing ours ends it, and so does our own death.
        self._process = subprocess.Popen(
            [find_tool("skopeo"), *options.arguments(), "experimental-image-proxy"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(TIMEOUT_S)
        try:
            self.protocol = _parse_version(self._call("Initialize")[0])
            self._image = int(self._call("OpenImage", reference)[0]) if reference else 0
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # also wakes a thread that waits for an answer
        except OSError:
            pass  # the proxy is gone
        self._socket.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            end_group(self._process)
        if self._process.stderr:
            self._process.stderr.close()

    def _call(self, method: str, *arguments: object) -> tuple[Any, int, int]:
        """One request; returns its value, a pipe's fd (or -1) and the pipe's id."""
        request = json.dumps({"method": method, "args": list(arguments)}).encode()
        fds = array.array("i")
        try:
            self._socket.send(request)
            data, ancillary, _, _ = self._socket.recvmsg(
                MAX_MESSAGE_BYTES, socket.CMSG_SPACE(4 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except (OSError, socket.timeout) as error:
            raise TransportError(
                f"skopeo did not answer about {self.reference}: {error}",
                hint="run it again; what arrived is kept",
            ) from error
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if not data:
            stderr = self._process.stderr.read() if self._process.stderr else b""
            raise transport_error(self.reference, stderr.decode("utf-8", "replace"))
        try:
            reply = json.loads(data)
            ok, value, pipe = reply["success"], reply["value"], int(reply["pipeid"])
        except (ValueError, KeyError, TypeError) as error:
            raise TransportError("skopeo answered something else than its protocol") from error
        for extra in fds[1:]:
            os.close(extra)
        if not ok:
            for fd in fds[:1]:
                os.close(fd)
            raise transport_error(self.reference, str(reply.get("error", "")))
        return value, (fds[0] if fds else -1), pipe

    def _document(self, method: str) -> tuple[Any, bytes]:
        """A call whose answer comes whole over a pipe."""
        value, fd, pipe = self._call(method, self._image)
        # The document's end shows only after FinishPipe; a thread drains while we call it.
        chunks: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(fd, chunks), daemon=True)
        reader.start()
        self._call("FinishPipe", pipe)
        reader.join(TIMEOUT_S)
        data = b"".join(chunks)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ImageError(f"{self.reference}: a document is larger than {MAX_DOCUMENT_BYTES}")
        return value, data

    def manifest(self) -> tuple[Digest, bytes]:
        """The manifest as OCI JSON, and the digest of the original."""
        value, data = self._document("GetManifest")
        return Digest.parse(str(value)), data

    def config(self) -> bytes:
        """The whole image configuration."""
        return self._document("GetFullConfig")[1]

    def layers(self) -> list[Descriptor]:
        """The layers as the image's store holds them, with the digests `blob` takes.

        Only where `protocol` is at least LAYER_INFO. Raises TransportError, ImageError.
        """
        if self.protocol >= _LAYER_INFO_PIPED:
            try:
                rows = json.loads(self._document("GetLayerInfoPiped")[1])
            except (ValueError, RecursionError) as error:
                raise TransportError("skopeo answered something else than its protocol") from error
        else:
            rows = self._call("GetLayerInfo", self._image)[0]
        return _parse_layers(rows)

    @contextmanager
    def blob(self, digest: Digest, size_bytes: int) -> Iterator[BlobPipe]:
        """A blob's bytes; its end is checked by skopeo when the block ends well.

        FinishPipe is called at once, from a thread: it answers when skopeo is done, well or not,
        and only then does the pipe end. Waiting for the announced size first would wait for ever
        on a registry that went away.
        """
        _, fd, pipe = self._call("GetBlob", self._image, str(digest), size_bytes)
        self._socket.settimeout(None)  # the pipe is watched instead
        answers: list[StrataError | None] = []

        def finish() -> None:
            try:
                self._call("FinishPipe", pipe)
            except StrataError as error:
                answers.append(error)
            else:
                answers.append(None)

        finisher = threading.Thread(target=finish, daemon=True)
        finisher.start()
        reader = BlobPipe(fd, size_bytes, self.reference)
        try:
            yield reader
            reader.drain()
        except TransportError:
            finisher.join(2.0)
            if answers and answers[0]:
                raise answers[0] from None  # skopeo knows why
            raise
        else:
            finisher.join(TIMEOUT_S)
            if not answers:
                raise TransportError(f"{self.reference}: skopeo did not finish a layer")
            if answers[0]:
                raise answers[0]
            self._socket.settimeout(TIMEOUT_S)
        finally:
            os.close(fd)


def _parse_version(value: object) -> tuple[int, ...]:
    match = re.match(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", str(value))
    if not match:
        raise TransportError(f"skopeo speaks version {value!r} of its protocol, which is none")
    return tuple(int(part) for part in match.groups())


def _parse_layers(rows: object) -> list[Descriptor]:
    if not isinstance(rows, list) or len(rows) > MAX_LAYERS:
        raise TransportError("skopeo answered something else than its protocol")
    layers = []
    for row in rows:
        try:
            digest, size, media_type = row["digest"], row["size"], row["media_type"]
        except (KeyError, TypeError) as error:
            raise TransportError("skopeo answered something else than its protocol") from error
        if not isinstance(size, int) or not 0 <= size <= MAX_SIZE_BYTES:
            raise TransportError(f"skopeo does not know the size of layer {digest}")
        layers.append(Descriptor(str(media_type), Digest.parse(str(digest)), size))
    return layers


class BlobPipe:
    """A blob's announced bytes; an end before the last of them is an error, and so is a stall."""

    def __init__(self, fd: int, size_bytes: int, reference: str) -> None:
        self._fd, self._left, self._reference = fd, size_bytes, reference
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        try:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, 1 << 20)
        except OSError:
            pass  # a smaller pipe is slower, no more

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty after the last announced one."""
        if not self._left:
            return b""
        if not self._poll.poll(TIMEOUT_S * 1000):
            raise self._error(f"the registry sent nothing for {TIMEOUT_S:g} s")
        limit = min(self._left, 1 << 20 if size < 0 else size)
        data = os.read(self._fd, limit)
        if not data:
            raise self._error("the registry broke off in the middle of a layer")
        self._left -= len(data)
        return data

    def _error(self, what: str) -> TransportError:
        return TransportError(
            f"{self._reference}: {what}", hint="run it again; whole layers are kept"
        )

    def drain(self) -> None:
        """Read what is left."""
        while self.read(1 << 20):
            pass


def _drain(fd: int, chunks: list[bytes]) -> None:
    total = 0
    try:
        while total <= MAX_DOCUMENT_BYTES:
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                break
            chunks.append(chunk)
            total += len(chunk)
    finally:
        os.close(fd)


def _require(reference: str) -> None:
    """Keep skopeo off registries in an offline run. Raises OfflineError."""
    if reference.startswith("docker:"):
        require_network(
            reference,
            hint="run it without --offline; `strata image copy` keeps an image in a layout",
        )


def protocol() -> tuple[int, ...]:
    """The version of this machine's proxy. Raises ToolMissingError, TransportError."""
    with Proxy("") as proxy:
        return proxy.protocol


def copy(source: str, destination: str, *arguments: str, options: Options = _DEFAULTS) -> Completed:
    """`skopeo copy` between two references.

    Raises TransportError, DigestError, SignatureError, OfflineError.
    """
    _require(source)
    _require(destination)
    return run(
        ["skopeo", *options.arguments(), "copy", "--quiet", *arguments, source, destination],
        error=lambda output: transport_error(source, output),
    )


def inspect_raw(reference: str) -> bytes:
    """The manifest or index a reference names, as the registry has it."""
    _require(reference)
    done = run(
        ["skopeo", "inspect", "--raw", reference],
        error=lambda output: transport_error(reference, output),
    )
    return done.stdout.encode()
