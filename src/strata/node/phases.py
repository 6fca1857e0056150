"""The phases as values: what each does, which command goes through it, and what it leaves.

Each phase is written to the journal before and after, and can be gone through again after any
interruption: up to the checkout what is there is taken on, from the merge on what was done is taken
back first (`undo`). docs/node.md tells them to people.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from strata.core.errors import StrataError
from strata.core.events import Reporter, Step
from strata.core.files import locked
from strata.node import host, journal


@dataclass(frozen=True)
class Phase:
    """One phase. command: of the agent, that goes through it; does: in words; result: the state
    that the machine has when the command's last phase is through."""

    name: str
    command: str
    does: str
    result: str


PREFLIGHT = Phase("preflight", "pull", "look whether this machine can take it", host.PULLED)
PULL = Phase("pull", "pull", "bring the node image here", host.PULLED)
CHECKOUT = Phase("checkout", "pull", "check out the node image", host.PULLED)
MERGE = Phase("merge", "overlay", "merge /etc", host.OVERLAID)
MOUNT = Phase("mount", "overlay", "mount the node image over /usr", host.OVERLAID)
RECONCILE = Phase("reconcile", "overlay", "make the system see it", host.OVERLAID)
FINISH = Phase("finish", "finish", "switch to multi-user.target", host.FINISHED)
PHASES = (PREFLIGHT, PULL, CHECKOUT, MERGE, MOUNT, RECONCILE, FINISH)


@contextmanager
def agent_lock(reporter: Reporter) -> Iterator[None]:
    """Be the only agent that changes this machine; another one is waited for, and named."""

    def waiting(holder: str) -> None:
        reporter.note(f"waiting for pid {holder or 'unknown'}, which is changing this machine")

    with locked(host.LOCK, "the node agent", waiting=waiting):
        yield


@contextmanager
def phase(phase: Phase, reporter: Reporter) -> Iterator[Step]:
    """Go through a phase: its step is shown, its begin and end are journaled."""
    journal.write(phase.name, journal.BEGIN)
    try:
        with reporter.step(phase.does) as step:
            yield step
    except BaseException as error:
        told = error.message if isinstance(error, StrataError) else type(error).__name__
        try:
            journal.write(phase.name, journal.FAILED, told)
        except OSError:
            pass  # a full disk: the error itself says so
        raise
    journal.write(phase.name, journal.DONE)


def tell_interruption(reporter: Reporter) -> None:
    """Say which phase of an earlier run was ended half-way, when one was."""
    found = journal.interrupted()
    if found is not None:
        reporter.note(f"an earlier run (process {found.pid}) was ended in its phase {found.phase}")
