"""Pull: bring the node image into the machine's repository and check it out beside it.

The system repository is used (`/ostree/repo`): what the booted deployment has is not fetched, and
the checkout costs no space, being hard links. What an overlay that was killed left is taken back
first; other mounts made here are this process's own and are not needed later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from strata.container.importer import import_image
from strata.container.labels import VERSION
from strata.core.errors import TransportError
from strata.core.events import Reporter
from strata.core.files import locked, remove_tree
from strata.core.process import require_root
from strata.node import host, mounts, undo
from strata.node.host import State
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.checkout import checkout
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

RETRY_SECONDS = 10.0


def pull(
    reference: ImageReference,
    *,
    retry_for_s: float | None,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
) -> State:
    """Pull an image and check it out; returns the machine's new state.

    retry_for_s: how long to try again, every 10 s, when the registry fails; None: for ever.
    Raises NotRootError, StrataError, TransportError, DigestError, ArchitectureError, NoSpaceError.
    """
    require_root("pulling the node image")
    host.require_booted()
    mounts.join_machine()
    with locked(host.LOCK, "the node agent", wait=False):
        state = State.load()
        if state.phase in (host.OVERLAID, host.FINISHED):
            reporter.note(f"the node image {state.manifest_digest} is on this machine already")
            return state
        undo.preload()
        undo.recover(reporter)
        mounts.private_namespace()
        if mounts.is_read_only(str(host.REPO)):
            mounts.make_writable(str(host.SYSROOT))
        started = time.monotonic()
        deadline = None if retry_for_s is None else started + retry_for_s
        while True:
            try:
                state = _pull_once(reference, reporter)
                break
            except TransportError as error:
                if deadline is not None and time.monotonic() + RETRY_SECONDS > deadline:
                    raise
                reporter.warn(f"{error.message}; trying again in {RETRY_SECONDS:g} s")
                sleep(RETRY_SECONDS)
        state = state.at(
            host.PULLED,
            pull_seconds=round(time.monotonic() - started, 2),
            pull_peak_bytes=host.peak_memory_bytes(),
        )
        state.save()
        return state


def _pull_once(reference: ImageReference, reporter: Reporter) -> State:
    repo = Repo.open(host.REPO)
    with open_source(reference, architecture=host.architecture()) as source:
        reporter.note(f"the target node image is {reference}, {source.manifest_digest}")
        result = import_image(source, repo, reference=reference, reporter=reporter)
        version = source.config.labels.get(VERSION, "")
        size = sum(layer.size_bytes for layer in source.manifest.layers)
    with reporter.step("check out the node image") as step:
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
