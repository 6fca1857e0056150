"""The labels of a base image: what it is, which version, and what it was made from (R2.10).

A derived image inherits them: a node image keeps its base's version, also in the labels a release
payload reads (R2.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strata.container.labels import BOOTABLE, TARGET
from strata.core.record import Input, input_key

COMMAND = ("/sbin/init",)
STOP_SIGNAL = "SIGRTMIN+3"  # asks systemd to power off
# What makes a change of content; the other inputs may change bytes without meaning to.
CONTENT_KINDS = ("definition", "treefile", "overlay", "lock", "base")


@dataclass(frozen=True)
class Identity:
    """What the definitions call a system. name: e.g. rhcos, empty for none. stream: e.g. rhel-9.8.

    description: as people say it, empty for what os-release says. version_labels: whether a release
    payload is told the version of its machine-os.
    """

    name: str
    stream: str
    description: str = ""
    version_labels: bool = False


def input_hash(inputs: Sequence[Input]) -> str:
    """64 hex digits over the inputs that decide a layer's content."""
    content = [item for item in inputs if item.kind in CONTENT_KINDS]
    return input_key(content).removeprefix("sha256:")


def base_labels(
    identity: Identity, *, target: str, version: str, description: str, inputs: Sequence[Input]
) -> dict[str, str]:
    """The labels of a base image beside those that follow from its commit.

    description: where the identity has none.
    """
    said = identity.description or description
    labels = {
        BOOTABLE: "1",
        "com.coreos.inputhash": input_hash(inputs),
        "com.coreos.stream": identity.stream,
        "org.opencontainers.image.title": said,
        "org.opencontainers.image.description": said,
        TARGET: target,
    }
    if identity.name:
        labels["com.coreos.osname"] = identity.name
    if identity.version_labels:
        labels["io.openshift.build.versions"] = f"machine-os={version}"
        labels["io.openshift.build.version-display-names"] = f"machine-os={said}"
    return labels
