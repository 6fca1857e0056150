"""The labels and annotations of an encapsulated image, and the commit metadata they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from strata.core.errors import UsageError
from strata.ostree.gvariant import Variant
from strata.ostree.objects import Commit

COMMIT = "ostree.commit"
FINAL_DIFFID = "ostree.final-diffid"
BOOTABLE = "ostree.bootable"
LINUX = "ostree.linux"
BOOTC = "containers.bootc"
VERSION = "org.opencontainers.image.version"
COMPONENTS = "ostree.components"
# Ours: a digest of what is in a chunk, so that the next build knows what changed.
CONTENT = "strata.content"
INPUT_HASH = "rpmostree.inputhash"
COMMAND = "ostree.container-cmd"
# Ours: the target an image was built for, so that its lock and record are found.
TARGET = "strata.target"
METALAYER = "io.openshift.metalayer"
# Ours: what a derived layer is for, as people say it.
LAYER_TITLE = "org.opencontainers.image.title"


def commit_metadata(*, version: str, kernel: str) -> dict[str, Variant]:
    """The metadata of a bootable commit."""
    return {
        "version": Variant.text(version),
        BOOTABLE: Variant.flag(True),
        LINUX: Variant.text(kernel),
    }


def image_labels(
    checksum: str,
    commit: Commit,
    final_diffid: str,
    extra: Mapping[str, str],
    *,
    copy: Sequence[str] = (),
    copy_if_there: Sequence[str] = (),
) -> dict[str, str]:
    """Labels (and the same annotations) of the image that encapsulates a commit.

    extra: labels given by the builder; they win. copy: keys of the commit's metadata that become
    labels, missing ones an error; copy_if_there: the same, missing ones not.
    Raises UsageError, ObjectError when a key's value is not text.
    Source: ostree-ext's container encapsulate.
    """
    labels = {COMMIT: checksum, FINAL_DIFFID: final_diffid}
    metadata = commit.metadata
    if BOOTABLE in metadata:
        labels[BOOTABLE] = "true" if metadata[BOOTABLE].as_flag() else "false"
        labels[BOOTC] = "1"
    if LINUX in metadata:
        labels[LINUX] = metadata[LINUX].as_text()
    if "version" in metadata:
        labels[VERSION] = metadata["version"].as_text()
    for key in (*copy, *copy_if_there, INPUT_HASH):
        if key in metadata:
            labels[key] = metadata[key].as_text()
        elif key in copy:
            raise UsageError(
                f"the commit's metadata has no {key}",
                hint=f"it has: {', '.join(sorted(metadata)) or 'none'}",
            )
    labels.update(extra)
    return labels
