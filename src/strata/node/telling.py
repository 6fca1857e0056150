"""Saying how far the agent is, wherever somebody may look: the console, systemd, a file.

Events go on to the ordinary renderer. Beside it, the running step stands in `systemctl status` (by
sd_notify(3), where the unit has NotifyAccess=), in a file that `strata-node status` reads, and each
10 s in the log. What goes wrong is said on the console too, within 30 s also when nothing is
said at all: a registry that accepts a connection and is silent is trouble as well.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from strata.core.events import Event, Noted, Progress, Sink, StepBegin, StepEnd, Warned
from strata.core.text import shown
from strata.node import host

CONSOLES = ("/dev/console", "/dev/kmsg")
QUIET_S = 30.0
AGAIN_S = 60.0
PULSE_S = 10.0
_NOW_S = 1.0


def notify(text: str) -> bool:
    """Tell systemd (`STATUS=…`, `READY=1`…); returns whether anybody listens. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    where = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto(text.encode("utf-8", "replace"), where)
    except OSError:
        return False
    return True


def console(text: str) -> bool:
    """Say a line where a person at the machine sees it; returns whether that worked."""
    line = f"strata-node: {shown(text)}\n".encode("utf-8", "replace")
    for path in CONSOLES:
        data = b"<3>" + line if path.endswith("kmsg") else line.replace(b"\n", b"\r\n")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            os.write(fd, data)
            return True
        except OSError:
            continue
        finally:
            os.close(fd)
    return False


class Telling:
    """A sink that hands events on, and says meanwhile how far things are. See the module."""

    def __init__(
        self,
        sink: Sink,
        *,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], bool] = console,
    ) -> None:
        self._sink, self._clock, self._say = sink, clock, say
        self._titles: dict[int, str] = {}
        self._status = ""
        self._told_at = self._pulsed_at = self._heard_at = clock()
        self._trouble: tuple[str, float] = ("", 0.0)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._sink(event)
        now = self._clock()
        if isinstance(event, StepBegin):
            self._titles[event.id] = event.title
            self._pulsed_at = self._heard_at = now
            self._tell(event.title, now)
        elif isinstance(event, StepEnd):
            self._titles.pop(event.id, None)
            if self._titles:
                self._tell(list(self._titles.values())[-1], now)
        elif isinstance(event, Progress):
            self._heard_at = now
            if now - self._told_at >= _NOW_S:
                self._tell(f"{self._titles.get(event.id, '')}: {_how_far(event)}", now)
            if now - self._pulsed_at >= PULSE_S:
                self._pulsed_at = now
                self._sink(Noted(f"  {self._status}"))
        elif isinstance(event, Warned):
            self._tell(event.message, now)

    def _tell(self, text: str, now: float) -> None:
        self._status, self._told_at = text, now
        notify(f"STATUS={shown(text)}")
        try:
            host.NOW.parent.mkdir(parents=True, exist_ok=True)
            fresh = f"{host.NOW}.new"
            with open(fresh, "w", encoding="utf-8", errors="replace") as stream:
                stream.write(shown(text) + "\n")
            os.replace(fresh, host.NOW)
        except OSError:
            pass  # what cannot be said does not stop what is done

    def trouble(self, text: str) -> None:
        """Say on the console what is wrong: at once when it is new, then every minute."""
        now = self._clock()
        before, when = self._trouble
        if text != before or now - when >= AGAIN_S:
            self._trouble = (text, now)
            self._say(text)

    def look_for_silence(self, what: str) -> None:
        """Say so when nothing has moved for 30 s. what: what is waited for."""
        quiet = self._clock() - self._heard_at
        if quiet >= QUIET_S:
            self.trouble(f"nothing has come for 30 s from {what}; still waiting")

    @contextmanager
    def watched(self, what: str, every_s: float = 5.0) -> Iterator[None]:
        """Look for silence, from a thread, for the length of the block."""
        over = threading.Event()
        self._heard_at = self._clock()

        def watch() -> None:
            while not over.wait(every_s):
                self.look_for_silence(what)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _how_far(event: Progress) -> str:
    if event.unit != "bytes":
        return f"{event.done} of {event.total} {event.unit}" if event.total else f"{event.done}"
    done = f"{event.done / 1e6:.1f}"
    return f"{done} of {event.total / 1e6:.1f} MB" if event.total else f"{done} MB"
