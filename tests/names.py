"""Driver: a name server on the loopback that gives every name the address in a file; while there is
no file, it knows no name.

Use: `names.py FILE`. Source: RFC 1035.
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

A, NO_NAME = 1, 3
_HEADER = struct.Struct(">HHHHHH")
_FLAGS = 0x8180  # an answer; recursion was wanted, and is there


def answer(query: bytes, address: bytes) -> bytes:
    """To one question; address: of four bytes, or none."""
    number = _HEADER.unpack_from(query)[0]
    end = query.index(b"\0", _HEADER.size) + 5
    question = query[_HEADER.size : end]
    if not address:
        return _HEADER.pack(number, _FLAGS | NO_NAME, 1, 0, 0, 0) + question
    kind = struct.unpack_from(">H", question, len(question) - 4)[0]
    if kind != A:
        return _HEADER.pack(number, _FLAGS, 1, 0, 0, 0) + question
    record = struct.pack(">HHHIH", 0xC00C, A, 1, 60, len(address)) + address
    return _HEADER.pack(number, _FLAGS, 1, 1, 0, 0) + question + record


def main() -> None:
    """Serve until killed."""
    file = Path(sys.argv[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        while True:
            query, client = server.recvfrom(512)
            address = socket.inet_aton(file.read_text()) if file.exists() else b""
            server.sendto(answer(query, address), client)


if __name__ == "__main__":
    main()
