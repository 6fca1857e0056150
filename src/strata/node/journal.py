"""What the agent began and what it ended: one JSON object a line, in a file under /run.

A line is written before a phase and after it. A phase that began, has no end, and whose process is
gone was interrupted; what is to be done about it the next run reads from the machine itself (see
`undo`), and the journal is who can say what happened. A last line that was torn is no line.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from strata.core.files import canonical_json
from strata.node import host

BEGIN, DONE, FAILED, UNDONE = "begin", "done", "failed", "undone"


@dataclass(frozen=True)
class Entry:
    """One line. started: the process's start in clock ticks, which with its id names it; time_s:
    seconds since 1970 by this machine's clock, whatever that is worth; detail: in words."""

    phase: str
    event: str
    pid: int
    started: int
    time_s: float
    detail: str = ""


def write(phase: str, event: str, detail: str = "") -> None:
    """Append a line about this process, durably."""
    me = os.getpid()
    entry = Entry(phase, event, me, _started(me), round(time.time(), 3), detail)
    host.JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(host.JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # The line break comes first: after a torn line, this one is whole all the same.
        os.write(fd, b"\n" + canonical_json(asdict(entry)) + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)


def read() -> list[Entry]:
    """All lines, the oldest first; those that are none are left out."""
    try:
        data = host.JOURNAL.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in data.splitlines():
        try:
            found.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def running() -> Entry | None:
    """The phase that a living process is in, or None."""
    last = _last_begun()
    return last if last and _lives(last) else None


def interrupted() -> Entry | None:
    """The phase that was ended half-way and has not been gone through since, or None."""
    last = _last_begun()
    return None if last is None or _lives(last) else last


def _last_begun() -> Entry | None:
    entries = read()
    return entries[-1] if entries and entries[-1].event == BEGIN else None


def _lives(entry: Entry) -> bool:
    return entry.started != 0 and _started(entry.pid) == entry.started


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])
