"""A live system: the node image's difference to the booted one, in memory, and nothing twice.

A repository on a tmpfs has the medium's as its parent, so an import stores only objects that the
booted deployment does not have; the files of /usr/lib/modules are not stored at all, since the
booted kernel's stay. What differs becomes a folder of hard links (`delta`), which overlayfs lays
over the booted /usr.
"""

from __future__ import annotations

from strata.core.errors import NoSpaceError, ObjectError
from strata.core.events import Step
from strata.core.files import mount_points, remove_tree
from strata.node import delta, host, mounts, preflight
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

# For the agent (at most 100 MiB), skopeo, and the services that start afterwards.
RESERVE_BYTES = 256 << 20
MODULES = "usr/lib/modules"


def prepare(available_bytes: int) -> Repo:
    """The repository in memory, made with its tmpfs when it is not there. Raises NoSpaceError."""
    size = available_bytes - RESERVE_BYTES
    if str(host.LIVE) not in mount_points(str(host.LIVE)):
        if size <= 0:
            raise preflight.too_little(
                RESERVE_BYTES, available_bytes, "memory beyond the booted system", in_memory=True
            )
        host.LIVE.mkdir(parents=True, exist_ok=True)
        mounts.tmpfs(str(host.LIVE), size_bytes=size, inodes=inodes_for(size))
    return Repo.init(host.LIVE / "repo", parent=host.REPO)


def inodes_for(size_bytes: int) -> int:
    """How many names a memory file system of a size gets: one for each page, and some more."""
    return (size_bytes >> 12) + (1 << 16)


def check_out(repo: Repo, merge_commit: str, step: Step) -> None:
    """Make the folder of what differs between the booted /usr and the node image's."""
    old = Tree.load(repo, host.booted_commit()).folder("usr")
    new = Tree.load(repo, merge_commit).folder("usr")
    if old is None or new is None:
        raise ObjectError("the booted commit or the node image's has no /usr")
    wanted = delta.plan(old, new, {MODULES.partition("/")[2]})
    upper = host.LIVE / "delta"
    remove_tree(upper)
    _, free_names = preflight.free_in(host.LIVE)
    if wanted.inodes > free_names:
        raise NoSpaceError(
            f"what differs has {wanted.inodes} names, and {free_names} inodes are free in memory",
            hint="give this machine more memory",
            context={"needed_inodes": wanted.inodes, "free_inodes": free_names},
        )
    copied = delta.build(repo, wanted, str(upper))
    step.detail(
        f"{len(wanted.files)} files differ, {len(wanted.whiteouts)} are gone; "
        f"{copied / 1e6:.1f} MB copied from the medium"
    )


def show() -> None:
    """Have the node image's tree below `host.checkout_path()`. Raises StrataError."""
    target = host.checkout_path() / "usr"
    target.mkdir(parents=True, exist_ok=True)
    mounts.lower_overlay(str(host.LIVE / "delta"), host.USR, str(target))
