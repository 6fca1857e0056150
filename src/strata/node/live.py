"""A live system: the node image's difference to the booted one, in memory, and nothing twice.

A repository on a tmpfs has the medium's as its parent, so an import stores only objects that the
booted deployment does not have; the files of /usr/lib/modules are not stored at all, since the
booted kernel's stay. What differs becomes a folder of hard links (`delta`), which overlayfs lays
over the booted /usr.
"""

from __future__ import annotations

import os

from strata.core.errors import NoSpaceError, ObjectError
from strata.core.events import Step
from strata.core.files import mount_points, remove_tree
from strata.node import delta, host, mounts
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

# For the agent (at most 100 MiB), skopeo, and the services that start afterwards.
RESERVE_BYTES = 256 << 20
# System files compress to about a half; never less is needed than their compressed size.
UNPACKED_PER_FETCHED = 2
MODULES = "usr/lib/modules"


def prepare(available_bytes: int) -> Repo:
    """The repository in memory, made with its tmpfs when it is not there. Raises NoSpaceError."""
    size = available_bytes - RESERVE_BYTES
    if str(host.LIVE) not in mount_points(str(host.LIVE)):
        if size <= 0:
            raise _too_little(0, available_bytes)
        host.LIVE.mkdir(parents=True, exist_ok=True)
        mounts.tmpfs(str(host.LIVE), size_bytes=size, inodes=(size >> 12) + (1 << 16))
    return Repo.init(host.LIVE / "repo", parent=host.REPO)


def require_room(fetched_bytes: int) -> None:
    """Refuse an image whose layers cannot fit, before they are fetched. Raises NoSpaceError."""
    status = os.statvfs(host.LIVE)
    free = status.f_bavail * status.f_frsize
    needed = UNPACKED_PER_FETCHED * fetched_bytes
    if needed > free:
        raise _too_little(needed, free)


def _too_little(needed: int, free: int) -> NoSpaceError:
    return NoSpaceError(
        f"the node image needs about {needed / 1e6:.0f} MB of memory beyond the booted system, "
        f"and {free / 1e6:.0f} MB are there",
        hint=f"give this machine more memory ({RESERVE_BYTES >> 20} MiB are kept free)",
        context={"needed_bytes": needed, "free_bytes": free},
    )


def check_out(repo: Repo, merge_commit: str, step: Step) -> None:
    """Make the folder of what differs between the booted /usr and the node image's."""
    old = Tree.load(repo, host.booted_commit()).folder("usr")
    new = Tree.load(repo, merge_commit).folder("usr")
    if old is None or new is None:
        raise ObjectError("the booted commit or the node image's has no /usr")
    wanted = delta.plan(old, new, {MODULES.partition("/")[2]})
    upper = host.LIVE / "delta"
    remove_tree(upper)
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
