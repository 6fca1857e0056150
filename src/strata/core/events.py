"""Events, not prints: what happens is told as typed values, and a renderer shows them.

Three renderers exist: plain lines and JSON lines here, live progress for people in `cli`.
stdout is for results; events go to stderr.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TextIO, Union

from strata.core.text import shown


@dataclass(frozen=True)
class StepBegin:
    """A step starts. parent: the id of the step it is part of, 0 for none."""

    id: int
    parent: int
    title: str


@dataclass(frozen=True)
class StepEnd:
    """A step ends, well or not. detail: what came out of it, in a few words."""

    id: int
    title: str
    seconds: float
    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a step is. total: 0 when unknown. unit: "bytes" or a plural noun."""

    id: int
    done: int
    total: int
    unit: str = "bytes"


@dataclass(frozen=True)
class Warned:
    """Something a person should know, though the work goes on."""

    message: str


@dataclass(frozen=True)
class Noted:
    """A line of information."""

    message: str


Event = Union[StepBegin, StepEnd, Progress, Warned, Noted]
Sink = Callable[[Event], None]


@dataclass
class Step:
    """A running step, handed to the code inside `Reporter.step`."""

    id: int
    reporter: Reporter
    title: str
    summary: str = ""
    size_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    def progress(self, done: int, total: int = 0, unit: str = "bytes") -> None:
        """Tell how far the step is."""
        if unit == "bytes":
            self.size_bytes = max(self.size_bytes, done)
        self.reporter.emit(Progress(self.id, done, total, unit))

    def detail(self, text: str) -> None:
        """Set what the step's end line says."""
        self.summary = text


@dataclass(frozen=True)
class Timing:
    """A finished step, kept for the build record. size_bytes: what its progress counted in bytes,
    0 when it counted none."""

    title: str
    seconds: float
    size_bytes: int


class Reporter:
    """Turns the work's structure into events; one per command. Safe to use from threads."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._last_id = 0
        self._local = threading.local()
        self.timings: list[Timing] = []

    def emit(self, event: Event) -> None:
        """Hand one event to the renderer."""
        with self._lock:
            self._sink(event)

    def warn(self, message: str) -> None:
        """Tell a person something they should know."""
        self.emit(Warned(message))

    def note(self, message: str) -> None:
        """Give a line of information."""
        self.emit(Noted(message))

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A named, timed piece of work; nests. Ends with ok=False when an exception leaves it."""
        stack: list[int] = getattr(self._local, "stack", [])
        self._local.stack = stack
        with self._lock:
            self._last_id += 1
            step = Step(self._last_id, self, title)
        self.emit(StepBegin(step.id, stack[-1] if stack else 0, title))
        stack.append(step.id)
        ok = False
        try:
            yield step
            ok = True
        finally:
            stack.remove(step.id)
            seconds = time.monotonic() - step.started
            with self._lock:
                self.timings.append(Timing(title, seconds, step.size_bytes))
            self.emit(StepEnd(step.id, title, seconds, ok, step.summary))


def silent() -> Reporter:
    """A reporter nobody listens to."""
    return Reporter(lambda event: None)


def plain(stream: TextIO) -> Sink:
    """A renderer of plain lines, for logs: a step's begin, its end with seconds, warnings."""
    depth: dict[int, int] = {0: -1}

    def render(event: Event) -> None:
        if isinstance(event, StepBegin):
            depth[event.id] = depth.get(event.parent, -1) + 1
            stream.write(f"{'  ' * depth[event.id]}{event.title} …\n")
        elif isinstance(event, StepEnd):
            mark = "done" if event.ok else "FAILED"
            detail = f": {event.detail}" if event.detail else ""
            indent = "  " * depth.pop(event.id, 0)
            stream.write(f"{indent}{event.title} {mark} in {event.seconds:.1f} s{detail}\n")
        elif isinstance(event, Warned):
            stream.write(f"warning: {event.message}\n")
        elif isinstance(event, Noted):
            stream.write(f"{event.message}\n")
        stream.flush()

    return printable(render)


def printable(render: Sink) -> Sink:
    """A renderer for people, which gets events without what could speak to a terminal."""

    def safe(event: Event) -> None:
        if not isinstance(event, Progress):  # which has no text from outside, and comes often
            texts = {key: shown(of) for key, of in vars(event).items() if isinstance(of, str)}
            event = replace(event, **texts)  # type: ignore[arg-type]
        render(event)

    return safe


def json_lines(stream: TextIO) -> Sink:
    """A renderer of one JSON object a line, for programs; `event` names the type."""

    def render(event: Event) -> None:
        document = {"event": type(event).__name__, **asdict(event)}
        stream.write(json.dumps(document, sort_keys=True) + "\n")
        stream.flush()

    return render


def event_of(line: str) -> Event | None:
    """The reverse of `json_lines`: the event that a line tells, or None when it tells none."""
    try:
        document = json.loads(line)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    kinds: dict[object, Callable[..., Event]] = {
        kind.__name__: kind for kind in (StepBegin, StepEnd, Progress, Warned, Noted)
    }
    kind = kinds.get(document.pop("event", None))
    return kind(**document) if kind else None
