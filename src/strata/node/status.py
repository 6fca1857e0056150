"""How far the machine is, at any time and for anybody: `strata-node status`.

The JSON is one object with `version` 1: the fields of `host.State`, and beside them `running` (the
phase that a living process is in, or null) and `interrupted` (one that was ended half-way and not
gone through since, or null). docs/node.md lists them; fields may be added under the same version.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from strata.node import host, journal
from strata.node.host import State
from strata.node.journal import Entry
from strata.node.phases import PHASES

VERSION = 1


@dataclass(frozen=True)
class Status:
    """The state, and what the journal says beyond it. now: the running step, in words."""

    state: State
    running: Entry | None
    interrupted: Entry | None
    now: str

    @staticmethod
    def load() -> Status:
        """The machine's. Raises DefinitionError when the state is damaged."""
        state, running = State.load(), journal.running()
        interrupted = journal.interrupted()
        if interrupted is not None and _is_behind(interrupted.phase, state.phase):
            interrupted = None  # it was killed when all was done, before it could say so
        return Status(state, running, interrupted, _now() if running else "")

    def to_json(self) -> dict[str, object]:
        """As the documented object."""
        running = None if self.running is None else {**_shown(self.running), "now": self.now}
        return {
            "version": VERSION,
            **{key: value for key, value in asdict(self.state).items() if key != "version"},
            "node_version": self.state.version,
            "running": running,
            "interrupted": None if self.interrupted is None else _shown(self.interrupted),
        }

    def rows(self) -> list[tuple[str, str]]:
        """As a table for people: names and values."""
        state = self.state
        rows = [("phase", state.phase)]
        if self.running is not None:
            rows.append(("running", f"{self.running.phase} (pid {self.running.pid}): {self.now}"))
        if self.interrupted is not None:
            rows.append(("interrupted", f"{self.interrupted.phase}; run the command again"))
        if state.phase == host.NOTHING:
            return rows
        peak = max(state.pull_peak_bytes, state.overlay_peak_bytes)
        return [
            *rows,
            ("image", state.image),
            ("digest", state.manifest_digest),
            ("version", state.version),
            ("fetched", f"{state.fetched_bytes / 1e6:.1f} of {state.image_bytes / 1e6:.1f} MB"),
            ("pull", f"{state.pull_seconds:.1f} s"),
            ("overlay", f"{state.overlay_seconds:.1f} s"),
            ("peak memory", f"{peak / 1e6:.0f} MB"),
            ("/etc", f"{state.etc_changed} changes, {len(state.etc_kept)} kept"),
        ]


def _shown(entry: Entry) -> dict[str, object]:
    return {"phase": entry.phase, "pid": entry.pid, "since_s": entry.time_s}


def _now() -> str:
    try:
        return host.NOW.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _is_behind(phase: str, state: str) -> bool:
    """Whether a machine in this state has what the phase works for."""
    wanted = next((known.result for known in PHASES if known.name == phase), host.FINISHED)
    return host.ORDER.index(state) >= host.ORDER.index(wanted)
