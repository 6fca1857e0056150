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
from strata.core.errors import TransportError
from strata.core.events import Reporter
from strata.core.files import remove_tree
from strata.core.process import require_root
from strata.node import host, live, mounts, preflight, undo
from strata.node.host import State
from strata.node.phases import CHECKOUT, PREFLIGHT, PULL, agent_lock, phase, tell_interruption
from strata.node.preflight import Preflight
from strata.node.telling import Telling
from strata.node.wanted import Wanted
from strata.oci.reference import SignedReference
from strata.oci.source import ImageSource, open_source
from strata.ostree.checkout import checkout
from strata.ostree.repo import Repo
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
        if state.phase in host.ALREADY:
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
            state.phase,
            pull_seconds=round(time.monotonic() - started, 2),
            pull_peak_bytes=host.peak_memory_bytes(),
        )
        state.save()
        return state


def _pull_once(wanted: Wanted, reporter: Reporter) -> State:
    repo = host.open_repo()
    with ExitStack() as stack:
        with phase(PREFLIGHT, reporter) as step:
            source, signed, found = _preflight(wanted, repo, stack, reporter)
            step.detail(found.summary())
        state = State(
            image=str(found.image),
            origin=str(signed),
            manifest_digest=found.manifest_digest,
            version=found.node_version,
            image_bytes=found.image_bytes,
        )
        if found.is_booted:
            return state.at(host.BOOTED_NODE)
        stack.enter_context(phase(PULL, reporter))
        without = live.MODULES if host.is_live() else ""
        result = import_image(
            source, repo, reference=found.image, without=without, reporter=reporter
        )
    with phase(CHECKOUT, reporter) as step:
        if host.is_live():
            live.check_out(repo, result.merge_commit, step)
        else:
            remove_tree(host.CHECKOUT)
            tree = Tree.load(repo, result.merge_commit)
            preflight.require_checkout_room(tree, host.CHECKOUT.parent)
            checkout(repo, tree, str(host.CHECKOUT), link=True)
            step.detail(str(host.CHECKOUT))
    return state.at(
        host.PULLED,
        merge_commit=result.merge_commit,
        base_commit=result.base_commit,
        fetched_bytes=result.fetched_bytes,
    )


def _preflight(
    wanted: Wanted, repo: Repo, stack: ExitStack, reporter: Reporter
) -> tuple[ImageSource, SignedReference, Preflight]:
    """Find the image, and refuse it when it cannot go on this machine."""
    signed = wanted.image(architecture=host.architecture(), reporter=reporter)
    source = stack.enter_context(
        open_source(signed.image, architecture=host.architecture(), signature=signed.signature)
    )
    free = preflight.free_in(host.LIVE if host.is_live() else host.REPO)
    found = preflight.look(source, repo, signed.image, free=free)
    for line in found.lines():
        reporter.note(line)
    if not found.is_booted:
        found.require_room()
    return source, signed, found
