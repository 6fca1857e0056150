"""Taking an overlay back: /usr is the booted one again, and /etc is what it was.

What there is to take back is read from the machine itself, from its mounts and the backup of /etc,
and not remembered by the process that did it. So the same function serves an overlay that failed,
one that was interrupted, and one whose process was killed outright and which the next run finds.
It may itself be killed at any point, and is then run again.
"""

from __future__ import annotations

import codecs
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from strata.core.events import Reporter
from strata.core.files import mounts_under
from strata.core.process import run
from strata.node import etcapply, host, journal, mounts, restarts
from strata.node.config import NodeConfig
from strata.node.host import State


def preload() -> None:
    """Have in memory what is used after /usr changes under our feet: modules and codecs."""
    for name in ("utf-8", "ascii", "latin-1", "unicode_escape"):
        codecs.lookup(name)
    run(["true"])  # the whole way of starting a process, once
    traceback.format_exc()


def is_overlaid() -> bool:
    """Whether what is at /usr is the checkout's."""
    try:
        return os.path.samefile(host.USR, host.checkout_path() / "usr")
    except FileNotFoundError:
        return False


def take_back(config: NodeConfig | None = None) -> bool:
    """Undo whatever an overlay has done so far; returns whether there was anything to undo.

    Services that run from the node image's files are restarted by the same rules as before.

    The caller holds the agent's lock, and has preloaded what it needs. Raises StrataError when a
    mount does not go away.
    """
    overlaid, unmounted = is_overlaid(), False
    while is_overlaid():
        mounts.unmount(host.USR)
    # Looked up anew each time: unmounting /usr may take others along, by propagation.
    while points := mounts_under(host.checkout_path()):
        mounts.unmount(points[0])
        unmounted = True
    changed = etcapply.undo(host.ETC, host.BACKUP)
    if overlaid:
        # The units and rules are the booted ones again.
        run(["systemctl", "daemon-reload"], check=False)
        if host.UDEV.exists():
            run(["udevadm", "control", "--reload"], check=False)
        services = restarts.changed_files(host.USR, host.USR)
        restarts.carry_out(restarts.plan(services, config or NodeConfig()), _try)
    return overlaid or unmounted or changed


def _try(argv: list[str]) -> None:
    run(argv, check=False)


def undo(reporter: Reporter, config: NodeConfig | None = None) -> State:
    """Take an overlay back that went through; the pulled image stays, to be overlaid again.

    The caller holds the agent's lock. Raises StrataError.
    """
    state = State.load()
    preload()
    with undisturbed():
        found = take_back(config)
        if state.phase in (host.OVERLAID, host.FINISHED):
            state = state.at(
                host.PULLED, etc_changed=0, etc_kept=(), kernel_note="", restarted=(), left=()
            )
            state.save()
            journal.write("undo", journal.UNDONE)
    if found:
        reporter.note("/usr is the booted one again, and /etc is as it was before the overlay")
        reporter.warn("other services that were started from the node image run on until they end")
    else:
        reporter.note("nothing is overlaid: there is nothing to undo")
    return state


def recover(reporter: Reporter) -> None:
    """Take back an overlay that was killed, and say so. Call it with phase `pulled` or before."""
    with undisturbed():
        found = take_back()
    if found:
        reporter.warn("an earlier overlay was ended half-way; /usr and /etc are as before it")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
