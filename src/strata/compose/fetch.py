"""Bringing an image from anywhere into the store, and naming it there by digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from strata.compose.workspace import Workspace
from strata.core.events import Reporter
from strata.oci.indexes import choose_manifest
from strata.oci.layout import Layout
from strata.oci.reference import ImageReference
from strata.oci.skopeo import copy
from strata.oci.source import open_source


def fetch_to_store(
    workspace: Workspace, reference: ImageReference, *, arch: str, reporter: Reporter
) -> ImageReference:
    """Have an image whole in the store; returns its reference there, by manifest digest.

    An image of the store itself is only resolved. Raises ImageError, ArchitectureError,
    TransportError, DigestError.
    """
    layout = workspace.layout
    store = workspace.store
    if reference.transport == "oci" and Path(reference.name).resolve() == store.resolve():
        found = choose_manifest(layout, layout.resolve(reference.tag, reference.digest), arch)
        return ImageReference("oci", str(store), "", found.digest)
    with reporter.step(f"fetch {reference}") as step:
        # Opened first: a wrong name, digest or architecture is told before anything is copied.
        with open_source(reference, architecture=arch) as source:
            digest = source.manifest_digest
        tag = f"fetched/{hashlib.sha256(str(reference.at(digest)).encode()).hexdigest()[:16]}"
        if tag not in layout.tags():
            # Only a registry gives an image by the digest it was opened with.
            pinned = reference.at(digest) if reference.transport == "docker" else reference
            with workspace.scratch("fetch") as scratch:
                # Blobs go to the store's own folder, where those it has are not fetched again;
                # the tag is set by us: skopeo would write index.json without our lock.
                shared = ("--dest-shared-blob-dir", str(store / "blobs"))
                copy(str(pinned), f"oci:{scratch}:image", *shared)
                layout.tag(tag, Layout.open(scratch).resolve("image"))
        found = choose_manifest(layout, layout.resolve(tag), arch)
        step.detail(str(found.digest))
    return ImageReference("oci", str(store), "", found.digest)
