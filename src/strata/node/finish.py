"""Finish: say that the overlay is done, then let the machine go on to multi-user.target.

Success is recorded first: switching the target ends units of the old one, this one among them
perhaps, and that must not read as failure (requirement R6.10).
"""

from __future__ import annotations

from strata.core.errors import StrataError
from strata.core.events import Reporter
from strata.core.process import require_root, run
from strata.node import host
from strata.node.host import State
from strata.node.phases import FINISH, agent_lock, phase

TARGET = "multi-user.target"


def finish(reporter: Reporter) -> State:
    """Record success and switch to multi-user.target without waiting for it."""
    require_root("switching the target")
    with agent_lock(reporter):
        state = State.load()
        if state.phase not in host.ALREADY:
            raise nothing_overlaid()
        with phase(FINISH, reporter):
            if state.phase != host.BOOTED_NODE:
                state = state.at(host.FINISHED)
                state.save()
            run(["systemctl", "--no-block", "isolate", TARGET])
    return state


def nothing_overlaid() -> StrataError:
    """What a finish says before an overlay."""
    return StrataError("the node image is not overlaid", hint="run strata-node overlay first")
