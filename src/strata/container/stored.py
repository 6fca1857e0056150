"""Images stored in a repository: what their merge commits say, and which layers they need.

Each stored image has a ref `ostree/container/image/…` to its merge commit, whose metadata holds the
manifest and the configuration; each layer has a ref `ostree/container/blob/…`. What is deployed
keeps its layers as well. Source: ostree-ext's container/store.rs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from strata.container import labels
from strata.container.refs import BLOB, IMAGE, blob_ref, image_ref
from strata.core.errors import ImageError, StrataError
from strata.oci.digest import Digest
from strata.oci.model import ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.ostree.objects import Checksum, Commit
from strata.ostree.repo import Repo

MANIFEST_DIGEST = "ostree.manifest-digest"
MANIFEST = "ostree.manifest"
IMAGE_CONFIG = "ostree.container.image-config"
_DEPLOYED = ("ostree/0/", "ostree/1/", "rpmostree/base/", "ostree/container/baseimage/")


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


def stored_images(repo: Repo) -> Iterator[StoredImage]:
    """All stored images that can be read."""
    for ref, checksum in repo.refs(IMAGE).items():
        try:
            image = StoredImage.of_commit(ref, checksum, repo.commit(checksum))
        except StrataError:
            continue
        if image is not None:
            yield image


def derived_by_diff_id(repo: Repo) -> dict[Digest, Checksum]:
    """From the diff-id of each derived layer stored under any image to its commit."""
    known = {}
    for image in stored_images(repo):
        if image.config is None:
            continue
        try:
            count = base_layer_count(image.manifest, image.config)
        except ImageError:
            continue
        pairs = list(zip(image.manifest.layers, image.config.diff_ids))
        for layer, diff_id in pairs[count:]:
            commit = repo.resolve(blob_ref(layer.digest))
            if commit is not None:
                known[diff_id] = commit
    return known


def forget_unneeded(repo: Repo) -> list[str]:
    """Remove the refs of layers that no stored or deployed image has; returns them.

    Their objects go with the next prune. When an image's manifest cannot be read, nothing is
    removed: its layers could be any.
    """
    needed = set()
    for prefix in (IMAGE, *_DEPLOYED):
        for ref, checksum in repo.refs(prefix).items():
            if not repo.has(checksum, "commit"):
                continue
            try:
                image = StoredImage.of_commit(ref, checksum, repo.commit(checksum))
            except StrataError:
                return []
            if image is not None:
                needed |= {blob_ref(layer.digest) for layer in image.manifest.layers}
    gone = [ref for ref in repo.refs(BLOB) if ref not in needed]
    for ref in gone:
        repo.delete_ref(ref)
    return gone
