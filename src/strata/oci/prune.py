"""Removing blobs of a layout that no tag reaches."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from strata.core.files import locked
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import INDEXES, MANIFESTS, Descriptor, Index, Manifest

# A blob that is being written, or was and has no tag yet, is young.
GRACE_S = 3600.0


@dataclass(frozen=True)
class PrunedBlobs:
    """What a prune of a layout did; sizes in bytes."""

    removed: int
    kept: int
    freed_bytes: int


def reachable(layout: Layout) -> set[Digest]:
    """The blobs that the layout's tags reach. Raises ImageError, DigestError."""
    found: set[Digest] = set()
    queue: list[Descriptor] = list(layout.entries())
    while queue:
        item = queue.pop()
        if item.digest in found or not layout.has(item.digest):
            continue  # an index may name architectures that are not here
        found.add(item.digest)
        if item.media_type in INDEXES:
            queue += Index.parse(layout.read(item)).manifests
        elif item.media_type in MANIFESTS:
            manifest = Manifest.parse(layout.read(item))
            found.add(manifest.config.digest)
            found |= {layer.digest for layer in manifest.layers}
    return found


def prune(layout: Layout, *, grace_s: float = GRACE_S, dry_run: bool = False) -> PrunedBlobs:
    """Remove what no tag reaches and is older than `grace_s`. Raises ImageError."""
    with locked(layout.path / ".index.lock", f"the layout {layout.path}"):
        keep = {digest.hex for digest in reachable(layout)}
        removed = kept = freed = 0
        now = time.time()
        with os.scandir(layout.path / "blobs" / "sha256") as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if entry.name in keep or now - status.st_mtime < grace_s:
                    kept += 1
                    continue
                removed += 1
                freed += status.st_size
                if not dry_run:
                    os.unlink(entry.path)
    return PrunedBlobs(removed, kept, freed)
