"""Pull: bring the node image into the machine's repository and check it out beside it.

The system repository is used (`/ostree/repo`): what the booted deployment has is not fetched, and
the checkout costs no space, being hard links. What an overlay that was killed left is taken back
first; other mounts made here are this process's own and are not needed later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from strata.container.importer import import_image
from strata.container.importplan import plan_import
from strata.container.labels import VERSION
from strata.core.errors import TransportError
from strata.core.events import Reporter
from strata.core.files import remove_tree
from strata.core.process import require_root
from strata.node import host, live, mounts, undo
from strata.node.host import State
from strata.node.phases import CHECKOUT, PULL, agent_lock, phase, tell_interruption
from strata.node.telling import Telling
from strata.node.wanted import Wanted
from strata.oci.source import open_source
from strata.ostree.checkout import checkout
from strata.ostree.tree import Tree

# Upstream tries every 10 s, for ever; the first tries come sooner.
FIRST_RETRY_S, RETRY_S = 1.0, 10.0


def pull(
    wanted: Wanted,
    *,
    retry_for_s: float | None,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
    telling: Telling | None = None,
) -> State:
    """Pull the image that is wanted and check it out; returns the machine's new state.

    retry_for_s: how long to try again when the registry fails, after 1, 2, 4, 8, then every 10 s;
    None: for ever. telling: says on the console what is wrong.
    Raises NotRootError, StrataError, TransportError, DigestError, ArchitectureError,
    SignatureError, NoSpaceError.
    """
    require_root("pulling the node image")
    host.require_booted()
    mounts.join_machine()
    with agent_lock(reporter):
        state = State.load()
        if state.phase in (host.OVERLAID, host.FINISHED):
            reporter.note(f"the node image {state.manifest_digest} is on this machine already")
            return state
        undo.preload()
        tell_interruption(reporter)
        undo.recover(reporter)
        if host.is_live():
            live.prepare(host.available_memory_bytes())
        mounts.private_namespace()
        if not host.is_live() and mounts.is_read_only(str(host.REPO)):
            mounts.make_writable(str(host.SYSROOT))
        started = time.monotonic()
        deadline = None if retry_for_s is None else started + retry_for_s
        telling = telling or Telling(lambda event: None, say=lambda text: False)
        pause_s = FIRST_RETRY_S
        # Only now: a process with threads can enter no mount namespace.
        with telling.watched(str(wanted)):
            while True:
                try:
                    state = _pull_once(wanted, reporter)
                    break
                except TransportError as error:
                    if deadline is not None and time.monotonic() + pause_s > deadline:
                        raise
                    reporter.warn(f"{error.message}; trying again in {pause_s:g} s")
                    telling.trouble(f"{error.message}; it is tried again until it works")
                    sleep(pause_s)
                    pause_s = min(2 * pause_s, RETRY_S)
        state = state.at(
            host.PULLED,
            pull_seconds=round(time.monotonic() - started, 2),
            pull_peak_bytes=host.peak_memory_bytes(),
        )
        state.save()
        return state


def _pull_once(wanted: Wanted, reporter: Reporter) -> State:
    repo = host.open_repo()
    with ExitStack() as stack:
        stack.enter_context(phase(PULL, reporter))
        signed = wanted.image(architecture=host.architecture(), reporter=reporter)
        reference = signed.image
        source = stack.enter_context(
            open_source(reference, architecture=host.architecture(), signature=signed.signature)
        )
        reporter.note(f"the target node image is {reference}, {source.manifest_digest}")
        without = ""
        if host.is_live():
            without = live.MODULES
            layers = plan_import(source, repo, reference=reference)
            live.require_room(sum(layer.fetched_bytes for layer in layers))
        result = import_image(source, repo, reference=reference, without=without, reporter=reporter)
        version = source.config.labels.get(VERSION, "")
        size = sum(layer.size_bytes for layer in source.manifest.layers)
    with phase(CHECKOUT, reporter) as step:
        if host.is_live():
            live.check_out(repo, result.merge_commit, step)
        else:
            remove_tree(host.CHECKOUT)
            checkout(repo, Tree.load(repo, result.merge_commit), str(host.CHECKOUT), link=True)
            step.detail(str(host.CHECKOUT))
    return State(
        image=str(reference),
        manifest_digest=str(result.manifest_digest),
        merge_commit=result.merge_commit,
        base_commit=result.base_commit,
        version=version,
        fetched_bytes=result.fetched_bytes,
        image_bytes=size,
    )
