"""What an import finds in the repository, and what it would fetch: one row a layer.

A layer that was read before is not fetched: by its digest, or by its diff-id under another digest;
of a base whose commit is complete (as on a machine deployed from it) only the commit layer is,
which says that the image has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from strata.container import labels
from strata.container.stored import (
    CHUNK,
    COMMIT,
    ReadLayers,
    find_stored,
    layer_kinds,
)
from strata.oci.digest import Digest
from strata.oci.model import ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource
from strata.ostree.objects import Checksum, parse_checksum
from strata.ostree.repo import Repo


@dataclass(frozen=True)
class LayerImport:
    """One layer of an import. kind: commit, chunk or derived; fetched_bytes: 0 when reused."""

    digest: Digest
    kind: str
    commit: str
    fetched_bytes: int

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "digest": str(self.digest),
            "kind": self.kind,
            "commit": self.commit,
            "fetched_bytes": self.fetched_bytes,
        }


@dataclass(frozen=True)
class ImportResult:
    """What an import left: the base's commit (empty when the image encapsulates none), the merge
    commit, and what each layer cost."""

    base_commit: Checksum
    merge_commit: Checksum
    manifest_digest: Digest
    layers: tuple[LayerImport, ...]

    @property
    def fetched_bytes(self) -> int:
        """Bytes of layers that were fetched."""
        return sum(layer.fetched_bytes for layer in self.layers)


def plan_import(
    source: ImageSource, repo: Repo, *, reference: ImageReference
) -> tuple[LayerImport, ...]:
    """What an import would fetch; nothing is written. Commits are those that are there, or empty.

    Raises ImageError, ObjectError.
    """
    there = stored_result(source, repo, reference)
    if there is not None:
        return there.layers
    return _there(repo, source.manifest, source.config, encapsulated(source.config))


def _there(
    repo: Repo, manifest: Manifest, config: ImageConfig, base: str
) -> tuple[LayerImport, ...]:
    """An image's layers as far as they are there: the others have no commit, and are to be fetched.

    base: the commit it encapsulates, whose chunks need no reading once it is complete.
    """
    read = ReadLayers(repo)
    complete = bool(base) and repo.is_complete(base)
    layers = []
    rows = zip(layer_kinds(manifest, config), manifest.layers, config.diff_ids)
    for kind, layer, diff_id in rows:
        found = [
            commit for commit in read.of(kind, layer.digest, diff_id) if repo.is_complete(commit)
        ]
        commit = found[0] if found else base if kind == CHUNK and complete else ""
        layers.append(LayerImport(layer.digest, kind, commit, 0 if commit else layer.size_bytes))
    return tuple(layers)


def encapsulated(config: ImageConfig) -> str:
    """The checksum an image says it encapsulates; empty when it names none. Raises ObjectError."""
    label = config.labels.get(labels.COMMIT, "")
    return parse_checksum(label) if label else ""


def stored_result(
    source: ImageSource, repo: Repo, reference: ImageReference
) -> ImportResult | None:
    """What importing an image again gives, when all of it is there; nothing is fetched."""
    stored = find_stored(repo, reference)
    if stored is None or stored.manifest_digest != str(source.manifest_digest):
        return None
    if stored.config is None:
        return None  # another tool's, which says less than ours
    layers = _there(repo, source.manifest, source.config, encapsulated(source.config))
    if any(not layer.commit for layer in layers):
        return None
    encapsulates = bool(layers) and layers[0].kind == COMMIT
    base = Checksum(layers[0].commit if encapsulates else "")
    return ImportResult(base, stored.commit, source.manifest_digest, layers)
