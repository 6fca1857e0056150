"""Preflight: what a pull will bring, what this machine has for it, and a refusal with numbers.

Before a layer is fetched only compressed sizes are known; system files compress to about a half, so
that twice the bytes to fetch are asked for. What the checkout needs is counted exactly, from the
merge commit, before it is made. Objects that are there already cost nothing in either.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from strata.container.importplan import plan_import
from strata.container.labels import VERSION
from strata.container.stored import MANIFEST_DIGEST
from strata.core.errors import NoSpaceError, StrataError
from strata.node import host
from strata.node.units.order import read_units, require_order
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

UNPACKED_PER_FETCHED = 2
# The agent (at most 100 MiB) and skopeo, while layers are read.
WORKING_BYTES = 160 << 20
FOLDER_BYTES = 4096


@dataclass(frozen=True)
class Preflight:
    """What a pull will do here. Sizes in bytes; free_bytes: where the image goes; live: that is in
    memory; is_booted: this machine booted the image, and there is nothing to do."""

    image: ImageReference
    manifest_digest: str
    node_version: str
    booted_version: str
    running_kernel: str
    live: bool
    is_booted: bool
    layers: int
    layers_to_fetch: int
    fetched_bytes: int
    image_bytes: int
    needed_bytes: int
    free_bytes: int
    free_inodes: int
    memory_bytes: int

    def require_room(self) -> None:
        """Raise NoSpaceError when the image cannot fit, or cannot be read here."""
        if self.needed_bytes > self.free_bytes:
            what = "memory beyond the booted system" if self.live else f"disk below {host.REPO}"
            raise too_little(self.needed_bytes, self.free_bytes, what, in_memory=self.live)
        working = 0 if self.live else WORKING_BYTES  # a live system keeps more of it free anyway
        if self.memory_bytes < working:
            raise too_little(working, self.memory_bytes, "memory to work in", in_memory=True)

    def lines(self) -> list[str]:
        """For people (requirement R6.28)."""
        if self.is_booted:
            return ["this machine booted this node image: there is nothing to do"]
        return [
            f"currently on CoreOS version {self.booted_version or 'unknown'}",
            f"the target node image is {self.image}, {self.manifest_digest}",
            f"this is {'a live system' if self.live else 'a system on disk'}, kernel "
            f"{self.running_kernel}; {self.summary()}",
        ]

    def to_json(self) -> dict[str, object]:
        """As `pull --dry-run --json` shows it."""
        return {**asdict(self), "image": str(self.image)}

    def summary(self) -> str:
        """In a line."""
        return (
            f"{self.layers_to_fetch} of {self.layers} layers to fetch, "
            f"{self.fetched_bytes / 1e6:.1f} of {self.image_bytes / 1e6:.1f} MB; "
            f"about {self.needed_bytes / 1e6:.0f} MB needed, {self.free_bytes / 1e6:.0f} MB free "
            f"in {'memory' if self.live else str(host.REPO)}"
        )


def look(
    source: ImageSource, repo: Repo, reference: ImageReference, *, free: tuple[int, int]
) -> Preflight:
    """What pulling an image into a repository would do. free: bytes and names that can be had.

    Raises ImageError, ObjectError, DefinitionError when the machine's units wait for each other.
    """
    require_order(read_units(host.ROOT))
    layers = plan_import(source, repo, reference=reference)
    fetched = sum(layer.fetched_bytes for layer in layers)
    return Preflight(
        image=reference,
        manifest_digest=str(source.manifest_digest),
        node_version=source.config.labels.get(VERSION, ""),
        booted_version=booted_version(),
        running_kernel=host.running_kernel(),
        live=host.is_live(),
        is_booted=booted_image() == str(source.manifest_digest),
        layers=len(layers),
        layers_to_fetch=sum(layer.fetched_bytes > 0 for layer in layers),
        fetched_bytes=fetched,
        image_bytes=sum(layer.size_bytes for layer in source.manifest.layers),
        needed_bytes=UNPACKED_PER_FETCHED * fetched,
        free_bytes=free[0],
        free_inodes=free[1],
        memory_bytes=host.available_memory_bytes(),
    )


def free_in(path: Path) -> tuple[int, int]:
    """Bytes and names that can still be made below a path."""
    status = os.statvfs(path)
    names = status.f_favail if status.f_files else 1 << 62  # some file systems have no limit
    return status.f_bavail * status.f_frsize, names


def require_checkout_room(tree: Tree, path: Path) -> None:
    """Refuse a checkout by hard links whose folders do not fit. Raises NoSpaceError."""
    folders = count_folders(tree)
    free_bytes, free_names = free_in(path)
    if folders > free_names:
        raise NoSpaceError(
            f"the checkout needs {folders} inodes, and {free_names} are free in {path}",
            hint="remove files there",
            context={"needed_inodes": folders, "free_inodes": free_names},
        )
    if folders * FOLDER_BYTES > free_bytes:
        raise too_little(folders * FOLDER_BYTES, free_bytes, f"disk below {path}")


def count_folders(tree: Tree) -> int:
    """How many folders a tree has, its top among them."""
    return 1 + sum(count_folders(inner) for inner in tree.dirs.values())


def too_little(needed: int, free: int, what: str, *, in_memory: bool = False) -> NoSpaceError:
    """The refusal, with its numbers."""
    return NoSpaceError(
        f"the node image needs about {needed / 1e6:.0f} MB of {what}, and "
        f"{free / 1e6:.0f} MB are there",
        hint="give this machine more memory" if in_memory else "remove what is not needed there",
        context={"needed_bytes": needed, "free_bytes": free},
    )


def booted_version() -> str:
    """The booted system's version as its os-release says it, without bootc (requirement R6.24);
    empty when it says none."""
    try:
        text = Path(host.USR, "lib/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    return next(
        (found[key].strip("\"'") for key in ("OSTREE_VERSION", "VERSION") if key in found), ""
    )


def booted_image() -> str:
    """The manifest digest of the image that the booted deployment is; empty when it is of none, or
    when which deployment is booted cannot be told."""
    try:
        metadata = Repo.open(host.REPO).commit(host.booted_commit()).metadata
    except StrataError:
        return ""
    return metadata[MANIFEST_DIGEST].as_text() if MANIFEST_DIGEST in metadata else ""
