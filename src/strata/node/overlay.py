"""Overlay: merge /etc, lay the node image's /usr over the running one, make the system see it.

Order: everything this process will need is imported first (afterwards the standard library on disk
may be another Python's); then /etc, the mounts, users and folders, systemd. When a step fails, what
was done is undone, and the error says so.

/usr/lib/modules stays the booted one's: the running kernel needs its modules.
"""

from __future__ import annotations

import codecs
import os
import time
import traceback

from strata.core.errors import StrataError
from strata.core.events import Reporter
from strata.core.files import locked, mount_points
from strata.core.process import Completed, require_root, run
from strata.node import etcapply, etcmerge, host, mounts
from strata.node.host import State

ETC = "/etc"
BOOTED_ETC = "/usr/etc"
MODULES = "usr/lib/modules"


def preload() -> None:
    """Have in memory what is used after /usr changes under our feet: modules and codecs."""
    for name in ("utf-8", "ascii", "latin-1", "unicode_escape"):
        codecs.lookup(name)
    run(["true"])  # the whole way of starting a process, once
    traceback.format_exc()


def overlay(reporter: Reporter) -> State:
    """Put the pulled node image on the running system; returns the machine's new state.

    Raises NotRootError, StrataError; the system is then as it was.
    """
    require_root("overlaying the node image")
    host.require_booted()
    with locked(host.LOCK, "the node agent", wait=False):
        state = State.load()
        if state.phase in (host.OVERLAID, host.FINISHED):
            reporter.note(f"the node image {state.manifest_digest} is overlaid already")
            return state
        if state.phase != host.PULLED or not host.CHECKOUT.is_dir():
            raise StrataError(
                "there is no pulled node image to overlay", hint="run strata-node pull first"
            )
        started = time.monotonic()
        preload()
        with reporter.step("merge /etc") as step:
            plan = _merge_etc()
            step.detail(f"{len(plan.actions)} changes, {len(plan.kept)} of this machine's kept")
        for kept in plan.kept:
            reporter.note(f"kept /etc/{kept.path}: {kept.reason}")
        try:
            with reporter.step("mount the node image over /usr"):
                _mount()
            try:
                _tell_the_system(reporter)
            except BaseException:
                mounts.unmount("/usr")
                raise
        except BaseException as error:
            etcapply.undo(ETC, host.BACKUP)
            if isinstance(error, StrataError):
                error.hint = f"/usr and /etc are as they were; {error.hint or 'run it again'}"
            raise
        state = state.at(
            host.OVERLAID,
            overlay_seconds=round(time.monotonic() - started, 2),
            overlay_peak_bytes=host.peak_memory_bytes(),
            etc_changed=len(plan.actions),
            etc_kept=tuple(kept.path for kept in plan.kept),
            kernel_note=kernel_note(),
        )
        state.save()
        if state.kernel_note:
            reporter.warn(state.kernel_note)
        return state


def _merge_etc() -> etcmerge.Plan:
    etcapply.undo(ETC, host.BACKUP)  # an overlay that was interrupted
    points = frozenset(point for point in mount_points(ETC) if point != ETC)
    theirs = str(host.CHECKOUT / "usr/etc")
    plan = etcmerge.plan(
        etcapply.read_tree(BOOTED_ETC),
        etcapply.read_tree(ETC, points),
        etcapply.read_tree(theirs),
    )
    try:
        etcapply.carry_out(plan, theirs, ETC, host.BACKUP)
    except StrataError:
        etcapply.undo(ETC, host.BACKUP)
        raise
    return plan


def _mount() -> None:
    checkout = str(host.CHECKOUT)
    target = f"{checkout}/{MODULES}"
    for point in reversed(mount_points(checkout)):
        mounts.unmount(point)  # an overlay that was interrupted
    mounts.bind(f"/{MODULES}", target)
    try:
        mounts.make_read_only(target)
        mounts.bind(f"{checkout}/usr", "/usr", recursive=True)
        try:
            # The flag of a recursive bind reaches only its top: each mount below gets its own.
            for point in ("/usr", f"/{MODULES}"):
                mounts.make_read_only(point)
        except BaseException:
            mounts.unmount("/usr")
            raise
    except BaseException:
        mounts.unmount(target)
        raise


def _tell_the_system(reporter: Reporter) -> None:
    """Users, folders, units: what an ordinary boot would have read from the new /usr."""
    for title, command in (
        ("make users", ["systemd-sysusers"]),
        ("make folders", ["systemd-tmpfiles", "--create", "--exclude-prefix=/dev"]),
        ("reload systemd", ["systemctl", "daemon-reload"]),
    ):
        with reporter.step(title):
            done = run(command, check=False)
            _accept(command, done)


def _accept(command: list[str], done: Completed) -> None:
    # systemd-tmpfiles exits 65 and 73 when single lines failed and the rest was done.
    if done.status == 0 or (command[0] == "systemd-tmpfiles" and done.status in (65, 73)):
        return
    raise StrataError(
        f"{command[0]} failed on the new /usr with status {done.status}",
        context={"output": done.stderr},
    )


def kernel_note() -> str:
    """What to say when the running kernel is not one the booted image has modules for."""
    running = host.running_kernel()
    # In a container the kernel is the host's, and so are its modules.
    if os.path.isdir(f"/{MODULES}/{running}") or os.path.exists("/run/systemd/container"):
        return ""
    return f"the running kernel {running} has no modules in /{MODULES}: it is not this image's"
