"""What the agent says of itself: its journal, its status, its lock, its words to the console."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strata.core.errors import StrataError
from strata.core.events import Noted, Progress, Reporter, StepBegin, Warned, silent
from strata.node import host, journal
from strata.node.phases import CHECKOUT, MERGE, agent_lock, phase, tell_interruption
from strata.node.status import Status
from strata.node.telling import Telling, console, notify

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE", "LOCK", "JOURNAL", "NOW"):
        monkeypatch.setattr(host, name, tmp_path / name.lower())
    return tmp_path


def in_a_process(code: str) -> subprocess.Popen[str]:
    """Python in a process of its own, with the same folder under /run."""
    paths = [
        f"host.{n} = Path({str(getattr(host, n))!r})" for n in ("STATE", "LOCK", "JOURNAL", "NOW")
    ]
    head = "import os, time\nfrom pathlib import Path\nfrom strata.node import host, journal\n"
    text = head + "\n".join(paths) + "\n" + code
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


def test_a_phase_is_journaled_before_and_after() -> None:
    with phase(CHECKOUT, silent()):
        running = journal.running()
        assert running is not None
        assert (running.phase, running.event, running.pid) == ("checkout", "begin", os.getpid())
    assert [entry.event for entry in journal.read()] == ["begin", "done"]
    assert journal.running() is None
    assert journal.interrupted() is None


def test_a_phase_that_fails_says_why() -> None:
    with pytest.raises(StrataError), phase(CHECKOUT, silent()):
        raise StrataError("the disk is full")
    last = journal.read()[-1]
    assert (last.event, last.detail) == ("failed", "the disk is full")


def test_a_killed_phase_is_found_and_told(run_folder: Path) -> None:
    child = in_a_process("journal.write('merge', journal.BEGIN)\nos.kill(os.getpid(), 9)")
    assert child.wait() == -9
    found = journal.interrupted()
    assert found is not None
    assert (found.phase, found.pid) == ("merge", child.pid)
    assert journal.running() is None
    said: list[object] = []
    tell_interruption(Reporter(said.append))
    assert said == [Noted(f"an earlier run (process {child.pid}) was ended in its phase merge")]
    host.State(phase=host.PULLED).save()
    assert Status.load().interrupted == found
    # All was done when it was killed: there is nothing to go through again.
    host.State(phase=host.OVERLAID).save()
    assert Status.load().interrupted is None
    with phase(MERGE, silent()):
        pass
    assert journal.interrupted() is None


def test_a_torn_line_is_no_line_and_spoils_none() -> None:
    journal.write("merge", journal.BEGIN)
    with open(host.JOURNAL, "ab") as stream:
        stream.write(b'{"phase": "mou')
    journal.write("merge", journal.DONE)
    assert [entry.event for entry in journal.read()] == ["begin", "done"]


def test_another_agent_is_waited_for_and_named() -> None:
    code = "from strata.node.phases import agent_lock\nfrom strata.core.events import silent\n"
    code += "with agent_lock(silent()):\n    print('mine', flush=True)\n    time.sleep(1)"
    other = in_a_process(code)
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    said: list[object] = []
    started = time.monotonic()
    with agent_lock(Reporter(said.append)):
        assert time.monotonic() - started > 0.3
        assert other.wait() == 0
    assert said == [Noted(f"waiting for pid {other.pid}, which is changing this machine")]


def test_the_status_is_versioned_and_says_what_runs() -> None:
    host.State(image="docker://x/y", version="4.19").at(host.PULLED).save()
    telling = Telling(lambda event: None)
    with phase(MERGE, Reporter(telling)):
        document = json.loads(json.dumps(Status.load().to_json()))
        rows = dict(Status.load().rows())
    assert document["version"] == 1
    assert document["node_version"] == "4.19"
    assert document["phase"] == "pulled"
    assert document["interrupted"] is None
    assert document["running"]["phase"] == "merge"
    assert document["running"]["now"] == "merge /etc"
    assert rows["running"] == f"merge (pid {os.getpid()}): merge /etc"
    assert Status.load().to_json()["running"] is None


# --- telling -------------------------------------------------------------------------------------


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notify("STATUS=x")
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(path)
        inbox.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        Telling(lambda event: None)(StepBegin(1, 0, "merge\n/etc"))
        assert inbox.recv(4096) == b"STATUS=merge\\x0a/etc"
    assert not notify("STATUS=x")  # nobody listens any more


def test_systemd_is_told_over_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"strata-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind("\0" + name)
        inbox.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("STATUS=there")
        assert inbox.recv(4096) == b"STATUS=there"


def test_a_long_step_shows_in_the_log_every_ten_seconds() -> None:
    clock = Clock()
    said: list[object] = []
    telling = Telling(said.append, clock=clock)
    telling(StepBegin(1, 0, "bring it"))
    for _ in range(25):
        clock.now += 1
        telling(Progress(1, int(clock.now * 1e6), 200_000_000))
    notes = [event.message for event in said if isinstance(event, Noted)]
    assert notes == ["  bring it: 110.0 of 200.0 MB", "  bring it: 120.0 of 200.0 MB"]


def test_trouble_is_said_on_the_console_at_once_and_every_minute() -> None:
    clock, said = Clock(), []

    def say(text: str) -> bool:
        said.append((clock.now, text))
        return True

    telling = Telling(lambda event: None, clock=clock, say=say)
    for _ in range(13):
        telling.trouble("the registry cannot be reached")
        clock.now += 10
    assert [when for when, _ in said] == [100.0, 160.0, 220.0]


def test_silence_is_trouble_within_a_minute() -> None:
    clock = Clock()
    said: list[str] = []

    def say(text: str) -> bool:
        said.append(text)
        return True

    telling = Telling(lambda event: None, clock=clock, say=say)
    telling(StepBegin(1, 0, "bring it"))
    clock.now += 29
    telling.look_for_silence("docker://x/y")
    assert said == []
    clock.now += 1
    telling.look_for_silence("docker://x/y")
    assert said == ["nothing has come for 30 s from docker://x/y; still waiting"]
    telling(Progress(1, 5, 0))
    clock.now += 10
    telling.look_for_silence("docker://x/y")
    assert len(said) == 1


def test_the_console_gets_a_line_that_cannot_speak_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "console"
    target.touch()
    monkeypatch.setattr("strata.node.telling.CONSOLES", (str(tmp_path / "no/way"), str(target)))
    assert console("bad \x1b[2J name")
    assert target.read_bytes() == b"strata-node: bad \\x1b[2J name\r\n"


def test_a_warning_is_the_status_too() -> None:
    telling = Telling(lambda event: None)
    telling(Warned("the registry is away"))
    assert host.NOW.read_text() == "the registry is away\n"
