"""Finish: say that the overlay is done, then let the machine go on to multi-user.target.

Success is recorded first: switching the target ends units of the old one, this one among them
perhaps, and that must not read as failure (requirement R6.10).
"""

from __future__ import annotations

from pathlib import Path

from strata.core.errors import StrataError
from strata.core.events import Reporter
from strata.core.files import atomic_write
from strata.core.process import require_root, run
from strata.node import host
from strata.node.config import NodeConfig
from strata.node.host import State
from strata.node.phases import FINISH, agent_lock, phase

TARGET = "multi-user.target"
RUNTIME_UNITS = Path("/run/systemd/system")


def finish(reporter: Reporter, config: NodeConfig | None = None) -> State:
    """Record success and switch to multi-user.target without waiting for it; running units that
    the configuration keeps go on (requirement R6.11)."""
    require_root("switching the target")
    with agent_lock(reporter):
        state = State.load()
        if state.phase not in host.ALREADY:
            raise nothing_overlaid()
        with phase(FINISH, reporter):
            if state.phase != host.BOOTED_NODE:
                state = state.at(host.FINISHED)
                state.save()
            keep_through_isolate(config or NodeConfig())
            run(["systemctl", "--no-block", "isolate", TARGET])
    return state


def keep_through_isolate(config: NodeConfig) -> None:
    """Have systemd leave running units alone, that are in no target it goes to."""
    if not config.keep:
        return
    argv = ["systemctl", "list-units", "--state=active,activating", "--plain", "--no-legend"]
    units = [line.split(None, 1)[0] for line in run(argv).stdout.splitlines() if line.strip()]
    kept = [unit for unit in units if config.keeps(unit)]
    for unit in kept:
        path = RUNTIME_UNITS / f"{unit}.d/50-strata-keep.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, b"[Unit]\nIgnoreOnIsolate=yes\n")
    if kept:
        run(["systemctl", "daemon-reload"])


def nothing_overlaid() -> StrataError:
    """What a finish says before an overlay."""
    return StrataError("the node image is not overlaid", hint="run strata-node overlay first")
