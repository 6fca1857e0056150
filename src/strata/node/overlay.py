"""Overlay: merge /etc, lay the node image's /usr over the running one, make the system see it.

Order: everything this process will need is imported first (afterwards the standard library on disk
may be another Python's); then /etc, the mounts, users and folders, systemd. When a step fails or is
interrupted, `strata.node.undo` takes back what was done, and the error says so; when the process is
killed, the next run does.

/usr/lib/modules stays the booted one's: the running kernel needs its modules.
"""

from __future__ import annotations

import os
import shlex
import time

from strata.core.errors import StrataError
from strata.core.events import Reporter
from strata.core.process import os_error, require_root, run
from strata.core.text import shown
from strata.node import host, live, merge, mounts, reconcile, undo
from strata.node.config import RESTART, NodeConfig
from strata.node.host import State
from strata.node.phases import MERGE, MOUNT, RECONCILE, agent_lock, phase, tell_interruption

MODULES = "lib/modules"


def overlay(reporter: Reporter, config: NodeConfig | None = None) -> State:
    """Put the pulled node image on the running system; returns the machine's new state.

    Raises NotRootError, StrataError; the system is then as it was.
    """
    require_root("overlaying the node image")
    config = config or NodeConfig()
    host.require_booted()
    mounts.join_machine()
    with agent_lock(reporter):
        state = State.load()
        if state.phase in host.ALREADY:
            reporter.note(f"the node image {state.manifest_digest} is on this machine already")
            return state
        if state.phase != host.PULLED or not is_pulled():
            raise nothing_pulled()
        undo.preload()
        tell_interruption(reporter)
        undo.recover(reporter)
        try:
            done = _overlay(state, config, reporter)
        except BaseException as error:
            with undo.undisturbed():
                undo.take_back(config)
                if State.load() != state:
                    state.save()
            if isinstance(error, OSError):
                raise _undone(os_error(error, "overlaying the node image")) from error
            if isinstance(error, StrataError):
                _undone(error)
            raise
        if done.kernel_note:
            reporter.warn(done.kernel_note)
        return done


def nothing_pulled() -> StrataError:
    """What an overlay says before a pull."""
    return StrataError(
        "there is no pulled node image to overlay", hint="run strata-node pull first"
    )


def is_pulled() -> bool:
    """Whether the tree that a pull makes is there."""
    return (host.LIVE / "delta" if host.is_live() else host.CHECKOUT).is_dir()


def _undone(error: StrataError) -> StrataError:
    error.hint = f"/usr and /etc are as they were; {error.hint or 'run it again'}"
    return error


def _overlay(state: State, config: NodeConfig, reporter: Reporter) -> State:
    """Everything that `take_back` undoes, and the state that says it is done."""
    started = time.monotonic()
    with phase(MERGE, reporter) as step:
        if host.is_live():
            live.show()
        plan = merge.plan_now(config.etc)
        merge.carry_out(plan)
        step.detail(merge.summary(plan))
    merge.report(plan, reporter)
    with phase(MOUNT, reporter):
        _mount()
    with phase(RECONCILE, reporter):
        services = reconcile.tell_the_system(run, config, reporter)
        probe(config, reporter)
    done = state.at(
        host.OVERLAID,
        overlay_seconds=round(time.monotonic() - started, 2),
        overlay_peak_bytes=host.peak_memory_bytes(),
        etc_changed=len(plan.actions),
        etc_kept=tuple(shown(kept.path) for kept in plan.kept),
        kernel_note=kernel_note(),
        restarted=tuple(item.unit for item in services if item.action == RESTART),
        left=tuple(item.unit for item in services if item.action != RESTART),
    )
    with undo.undisturbed():
        done.save()
    return done


def _mount() -> None:
    checkout = str(host.checkout_path())
    if host.is_live():  # the booted modules show through
        mounts.bind(f"{checkout}/usr", host.USR)
        mounts.make_read_only(host.USR)
        return
    modules = f"{host.USR}/{MODULES}"
    target = f"{checkout}/usr/{MODULES}"
    mounts.bind(modules, target)
    mounts.make_read_only(target)
    mounts.bind(f"{checkout}/usr", host.USR, recursive=True)
    # The flag of a recursive bind reaches only its top: each mount below gets its own.
    for point in (host.USR, modules):
        mounts.make_read_only(point)


def probe(config: NodeConfig, reporter: Reporter) -> None:
    """Ask the configuration's command whether the machine is healthy. Raises StrataError."""
    if not config.probe:
        return
    with reporter.step("ask whether the machine is healthy"):
        try:
            run(config.probe, timeout_s=config.probe_timeout_s)
        except StrataError as error:
            raise StrataError(
                f"the machine is not healthy with the node image: {error.message}",
                hint=f"see what {shlex.join(config.probe)} says, then run it again",
                context=error.context,
            ) from error


def kernel_note() -> str:
    """What to say when the running kernel is not one the booted image has modules for."""
    running = host.running_kernel()
    # In a container the kernel is the host's, and so are its modules.
    modules = f"{host.USR}/{MODULES}"
    if os.path.isdir(f"{modules}/{running}") or os.path.exists("/run/systemd/container"):
        return ""
    return f"the running kernel {running} has no modules in {modules}: it is not this image's"
