"""Images stored in a repository: what their merge commits say, and which layers they need.

Each stored image has a ref `ostree/container/image/…` to its merge commit, whose metadata holds the
manifest and the configuration; each layer has a ref `ostree/container/blob/…`. What is deployed
keeps its layers as well. Source: ostree-ext's container/store.rs.
"""

from __future__ import annotations

from dataclasses import dataclass

from strata.container import labels
from strata.container.refs import BASE_IMAGE, BLOB, IMAGE, READ, blob_ref, image_ref, parse_read_ref
from strata.core.errors import ImageError, ObjectError, StrataError
from strata.oci.digest import Digest
from strata.oci.model import ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.ostree.objects import Checksum, Commit
from strata.ostree.repo import Repo

COMMIT, CHUNK, DERIVED = "commit", "chunk", "derived"
MANIFEST_DIGEST = "ostree.manifest-digest"
MANIFEST = "ostree.manifest"
IMAGE_CONFIG = "ostree.container.image-config"
_DEPLOYED = ("ostree/0/", "ostree/1/", "rpmostree/base/", BASE_IMAGE)


@dataclass(frozen=True)
class StoredImage:
    """A stored image. config: None where another tool stored none."""

    ref: str
    commit: Checksum
    manifest_digest: str
    manifest: Manifest
    config: ImageConfig | None

    @staticmethod
    def of_commit(ref: str, checksum: Checksum, commit: Commit) -> StoredImage | None:
        """What a merge commit says of its image; None when it is none. Raises ImageError."""
        metadata = commit.metadata
        if MANIFEST not in metadata:
            return None
        manifest = Manifest.parse(metadata[MANIFEST].as_text().encode())
        config = None
        if IMAGE_CONFIG in metadata:
            text = metadata[IMAGE_CONFIG].as_text()
            config = None if text == "null" else ImageConfig.parse(text.encode())
        digest = metadata[MANIFEST_DIGEST].as_text() if MANIFEST_DIGEST in metadata else ""
        return StoredImage(ref, checksum, digest, manifest, config)


def base_layer_count(manifest: Manifest, config: ImageConfig) -> int:
    """How many layers are the base's, the commit layer included; 0 when the image encapsulates no
    commit. Raises ImageError."""
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(
            f"the image has {len(manifest.layers)} layers and {len(config.diff_ids)} diff-ids"
        )
    final = config.labels.get(labels.FINAL_DIFFID)
    if final is None:
        return 0
    digest = Digest.parse(final)
    if digest not in config.diff_ids:
        raise ImageError(f"the image's {labels.FINAL_DIFFID} is not one of its layers")
    return config.diff_ids.index(digest) + 1


def layer_kinds(manifest: Manifest, config: ImageConfig) -> list[str]:
    """What each layer is, from the lowest: COMMIT, CHUNK or DERIVED. Raises ImageError."""
    base = base_layer_count(manifest, config)
    chunks = [CHUNK] * (base - 1)
    return [*([COMMIT, *chunks] if base else ()), *[DERIVED] * (len(manifest.layers) - base)]


def find_stored(repo: Repo, reference: ImageReference) -> StoredImage | None:
    """The image stored under a reference, or None when there is none that can be read."""
    ref = image_ref(reference)
    checksum = repo.resolve(ref)
    if checksum is None or not repo.is_complete(checksum):
        return None
    try:
        return StoredImage.of_commit(ref, checksum, repo.commit(checksum))
    except StrataError:
        return None


class ReadLayers:
    """The layers that were read into a repository, by us: only what they are known to hold
    counts. Of another tool's layers nobody knows the diff-id, nor which folders an entry described.
    """

    def __init__(self, repo: Repo) -> None:
        self._exact: dict[tuple[str, Digest, Digest], Checksum] = {}
        self._same: dict[tuple[str, Digest], list[Checksum]] = {}
        for name, commit in repo.refs(READ).items():
            parsed = parse_read_ref(name)
            if parsed is not None:
                kind, _, diff_id = parsed
                self._exact[parsed] = commit
                self._same.setdefault((kind, diff_id), []).append(commit)

    def exact(self, kind: str, digest: Digest, diff_id: Digest) -> Checksum | None:
        """What came of this very layer."""
        return self._exact.get((kind, digest, diff_id))

    def of(self, kind: str, digest: Digest, diff_id: Digest) -> list[Checksum]:
        """What came of this very layer; or, of chunks and derived layers, of others with the same
        tar, however compressed."""
        exact = self.exact(kind, digest, diff_id)
        if exact is not None:
            return [exact]
        return [] if kind == COMMIT else self._same.get((kind, diff_id), [])


def forget_unneeded(repo: Repo, *, wait: bool = False) -> list[str]:
    """Remove the refs of layers that no stored or deployed image has; returns them.

    Their objects go with the next prune. When an image's manifest cannot be read, nothing is
    removed: its layers could be any. Nor is it while another process writes, whose image is not
    there yet; wait: for it to finish. Raises ObjectError when it does not.
    """
    try:
        with repo.locked(exclusive=True, **({} if wait else {"timeout_s": 0.0})):
            return _forget_unneeded(repo)
    except ObjectError:
        if wait:
            raise
        return []


def _forget_unneeded(repo: Repo) -> list[str]:
    digests: set[Digest] = set()
    diff_ids: set[Digest] = set()
    for prefix in (IMAGE, *_DEPLOYED):
        for ref, checksum in repo.refs(prefix).items():
            if not repo.has(checksum, "commit"):
                continue
            try:
                image = StoredImage.of_commit(ref, checksum, repo.commit(checksum))
            except StrataError:
                return []
            if image is not None:
                digests |= {layer.digest for layer in image.manifest.layers}
                diff_ids |= set(image.config.diff_ids) if image.config else set()
    blobs = {blob_ref(digest) for digest in digests}
    gone = [ref for ref in repo.refs(BLOB) if ref not in blobs]
    for ref in repo.refs(READ):
        parsed = parse_read_ref(ref)
        if parsed and parsed[1] not in digests and parsed[2] not in diff_ids:
            gone.append(ref)
    for ref in gone:
        repo.delete_ref(ref)
    return gone
