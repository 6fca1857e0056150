"""Driver: passes connections on to a port of loopback, well or badly, or as a proxy for CONNECT.

Use: `relay.py PORT TO_PORT MODE_FILE`. The file says how, and is read for each piece: `well`;
`slow N`, bytes a second of all connections together; `cut N`, end every connection after N bytes of
answers; `stop N`, pass N bytes of answers in all, then end every connection; `connect`, be a proxy.
Says each request's first line.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

PIECE = 1 << 14
_turn = threading.Lock()
_passed = [0]  # bytes of answers, of all connections


class Relay:
    """One connection."""

    def __init__(self, client: socket.socket, port: int, mode: Path) -> None:
        self.client, self.port, self.mode_file = client, port, mode

    def mode(self) -> tuple[str, int]:
        """How pieces go on at this moment."""
        word, _, number = self.mode_file.read_text().strip().partition(" ")
        return word, int(number or 0)

    def serve(self) -> None:
        """Pass on until either side ends; nothing, when the registry is not there."""
        with (
            suppress(ConnectionRefusedError),
            self.client,
            socket.create_connection(("127.0.0.1", self.port)) as server,
        ):
            if self.mode()[0] == "connect":
                self._say(self._head())
                self.client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=self._answers, args=(server,), daemon=True)
            back.start()
            with suppress(OSError):
                while data := self.client.recv(PIECE):
                    if data.startswith((b"GET ", b"HEAD ")):
                        self._say(data)
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
            back.join()

    def _answers(self, server: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := server.recv(PIECE):
                word, number = self.mode()
                with _turn:
                    if word == "slow":
                        time.sleep(len(data) / number)
                    left = number - {"cut": passed, "stop": _passed[0]}.get(word, number - PIECE)
                    data = data[: max(0, left)]
                    _passed[0] += len(data)
                if not data:
                    break
                self.client.sendall(data)
                passed += len(data)
        with suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and (data := self.client.recv(PIECE)):
            head += data
        return head

    def _say(self, request: bytes) -> None:
        sys.stdout.write(request.split(b"\r\n")[0].decode() + "\n")
        sys.stdout.flush()


def main() -> None:
    """Serve until killed."""
    port, to_port, mode = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with socket.create_server(("127.0.0.1", port)) as listening:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            relay = Relay(listening.accept()[0], to_port, mode)
            threading.Thread(target=relay.serve, daemon=True).start()


if __name__ == "__main__":
    main()
