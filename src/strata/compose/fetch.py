"""Bringing an image from anywhere into the store, and naming it there by digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from strata.compose.workspace import Workspace
from strata.core.errors import OfflineError
from strata.core.events import Reporter
from strata.core.network import HINT, offline
from strata.oci.indexes import choose_manifest
from strata.oci.layout import Layout
from strata.oci.reference import ImageReference
from strata.oci.skopeo import copy
from strata.oci.source import open_source
from strata.oci.transfer import named_by_tag


def fetch_to_store(
    workspace: Workspace, reference: ImageReference, *, arch: str, reporter: Reporter
) -> ImageReference:
    """Have an image whole in the store; returns its reference there, by manifest digest.

    An image of the store itself is only resolved; so is one that was fetched before and is named by
    digest, or offline.
    Raises ImageError, ArchitectureError, TransportError, DigestError, OfflineError.
    """
    layout = workspace.layout
    store = workspace.store
    reference = at_hand(workspace, reference, arch=arch)
    if reference.transport == "oci" and Path(reference.name).resolve() == store.resolve():
        found = choose_manifest(layout, layout.resolve(reference.tag, reference.digest), arch)
        return ImageReference("oci", str(store), "", found.digest)
    with reporter.step(f"fetch {reference}") as step:
        # Opened first: a wrong name, digest or architecture is told before anything is copied.
        with open_source(reference, architecture=arch) as source:
            digest = source.manifest_digest
        tag = _tag(str(reference.at(digest)))
        if tag not in layout.tags():
            # Only a registry gives an image by the digest it was opened with.
            pinned = reference.at(digest) if reference.transport == "docker" else reference
            with workspace.scratch("fetch") as scratch:
                # Blobs go to the store's own folder, where those it has are not fetched again;
                # the tag is set by us: skopeo would write index.json without our lock.
                shared = ("--dest-shared-blob-dir", str(store / "blobs"))
                source_folder, fetched = scratch / "from", scratch / "to"
                source_folder.mkdir()
                with named_by_tag(pinned, source_folder) as name:
                    copy(name, f"oci:{fetched}:image", *shared)
                layout.tag(tag, Layout.open(fetched).resolve("image"))
        if reference.transport == "docker" or reference.digest:
            layout.tag(known_tag(reference, arch), layout.resolve(tag))
        found = choose_manifest(layout, layout.resolve(tag), arch)
        step.detail(str(found.digest))
    return ImageReference("oci", str(store), "", found.digest)


def at_hand(workspace: Workspace, reference: ImageReference, *, arch: str) -> ImageReference:
    """The reference itself; one by digest that was fetched, as it is in the store; and offline, for
    a registry, the image it last meant, there.

    Raises OfflineError when it was never fetched.
    """
    far = offline() and reference.transport == "docker"
    if not far and reference.digest is None:
        return reference
    layout = workspace.layout
    tag = known_tag(reference, arch)
    if tag in layout.tags():
        found = choose_manifest(layout, layout.resolve(tag), arch)
        return ImageReference("oci", str(workspace.store), "", found.digest)
    if far:
        raise OfflineError(
            f"{reference} was never fetched into this store, and this is an offline run", hint=HINT
        )
    return reference


def known_tag(reference: ImageReference, arch: str) -> str:
    """The tag in a store of what a reference last meant, for an architecture: an index's image."""
    return _tag(f"{reference} for {arch}")


def _tag(name: str) -> str:
    return f"fetched/{hashlib.sha256(name.encode()).hexdigest()[:16]}"
