"""A shell in the sandbox of a postprocess script that failed, on a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import leftovers, make_store
from tinydist import TARGET, tiny_definitions

pytestmark = pytest.mark.tools

SCRIPT = """\
echo half > /usr/lib/half
echo "no such luck" >&2
test -e /usr/lib/luck
"""


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self.main, there = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            command,
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
            # The terminal becomes the session's own, as a login's is.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(there)

    def until(self, text: str, timeout_s: float = 120) -> None:
        """Read until a text comes that was not there before."""
        start, end = len(self.seen), time.monotonic() + timeout_s
        while text not in self.seen[start:]:
            ready, _, _ = select.select([self.main], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} did not come:\n{self.seen[-3000:]}"
            try:
                data = os.read(self.main, 65536)
            except OSError:  # the other side is closed
                data = b""
            assert data, f"{text!r} did not come before the end:\n{self.seen[-3000:]}"
            self.seen += data.decode("utf-8", "replace")

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self.main, f"{line}\n".encode())

    def wait(self) -> int:
        """Read to the end; returns the status."""
        try:
            while data := os.read(self.main, 65536):
                self.seen += data.decode("utf-8", "replace")
        except OSError:
            pass
        os.close(self.main)
        return self.process.wait(timeout=60)


def test_r1_11_a_failed_script_can_be_looked_into_where_it_failed(
    tmp_path: Path, sample_repos: Path
) -> None:
    definitions = tiny_definitions(tmp_path / "definitions", SCRIPT)
    store = make_store(tmp_path / "store", sample_repos)
    strata = str(Path(sys.executable).with_name("strata"))
    command = [strata, "-C", str(definitions), "--store", str(store), "build", TARGET, "--shell"]
    terminal = Terminal(command)
    terminal.until("leave:         exit")
    told = terminal.seen
    assert "no such luck" in told
    # The tree as it was left, the script, and the sandbox it ran in.
    terminal.type("echo got=$(cat /usr/lib/half) net=$(wc -l < /proc/net/route) at=$PWD")
    terminal.until("got=half net=1 at=/")
    terminal.type("bash -x /run/postprocess; echo status=$?")
    terminal.until("status=1")
    terminal.type("touch /usr/lib/luck; bash /run/postprocess; echo status=$?")
    terminal.until("status=0")
    terminal.type("exit 0")
    assert terminal.wait() == 3, terminal.seen
    assert "strata: the postprocess script at bootc.yaml:" in terminal.seen
    # A shell mends nothing: what comes out of a build comes out of its definitions.
    assert list((store / "work").iterdir()) == []
    assert not (store / f"records/{TARGET}.json").exists()
    assert leftovers(store) == []
