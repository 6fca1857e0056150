"""The difference of two trees as a folder that overlayfs lays over the first to show the second.

A live system's root cannot be linked from, and its memory is dear: only files that differ are in
the folder, with the folders above them. What the new tree lacks is whited out (a device 0:0). A
folder of the new tree that meets a folder of the old one merges with it; its metadata are the upper
one's, so a folder whose metadata differ is made though it may be empty. Opaque folders are not
needed.

`plan` is pure; `build` makes the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field

from strata.core.errors import ObjectError
from strata.ostree.checkout import copy
from strata.ostree.objects import Checksum, DirMeta
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree


@dataclass
class Delta:
    """What the folder holds; paths are relative. folders: parents first."""

    folders: list[tuple[str, DirMeta]] = field(default_factory=list)
    files: list[tuple[str, Checksum]] = field(default_factory=list)
    whiteouts: list[str] = field(default_factory=list)

    @property
    def inodes(self) -> int:
        """How many names it makes."""
        return len(self.folders) + len(self.files) + len(self.whiteouts)


def plan(old: Tree, new: Tree, kept: Collection[str] = ()) -> Delta:
    """The delta from old to new. kept: paths that stay as they are in old, with all in them.

    The top folder is always there.
    """
    delta = Delta()
    _compare(old, new, "", kept, delta)
    if not delta.folders:
        delta.folders.append(("", new.meta))
    return delta


def _compare(old: Tree | None, new: Tree, path: str, kept: Collection[str], delta: Delta) -> None:
    """Add what differs in a folder; old: None when there is no folder of that name below."""
    at = len(delta.folders)
    before = delta.inodes
    old_files = old.files if old else {}
    old_dirs = old.dirs if old else {}
    for name, checksum in new.files.items():
        where = f"{path}/{name}" if path else name
        if old_files.get(name) != checksum and where not in kept:
            delta.files.append((where, checksum))
    for name in [*old_files, *old_dirs]:
        where = f"{path}/{name}" if path else name
        if name not in new.files and name not in new.dirs and where not in kept:
            delta.whiteouts.append(where)
    for name, inner in new.dirs.items():
        where = f"{path}/{name}" if path else name
        if where not in kept:
            _compare(old_dirs.get(name), inner, where, kept, delta)
    if old is None or old.meta != new.meta or delta.inodes != before:
        delta.folders.insert(at, (path, new.meta))


def build(repo: Repo, delta: Delta, dest: str) -> int:
    """Make the folder, which must not exist; returns the bytes that were copied, not linked.

    repo: of mode bare; its own objects become hard links when they are on the same file system;
    those of its parent are copied. Raises ObjectError, OSError.
    """
    copied = 0
    for path, _ in delta.folders:
        os.mkdir(f"{dest}/{path}" if path else dest, 0o700)
    for path, checksum in delta.files:
        source, target = repo.object_path(checksum, "file"), f"{dest}/{path}"
        try:
            if repo.owns(checksum, "file"):
                os.link(source, target, follow_symlinks=False)
            else:
                copy(source, target)
                copied += os.lstat(target).st_size
        except FileNotFoundError:
            raise ObjectError(f"the content object {checksum} is missing") from None
    for path in delta.whiteouts:
        os.mknod(f"{dest}/{path}", stat.S_IFCHR, os.makedev(0, 0))
    for path, meta in reversed(delta.folders):
        _set_metadata(f"{dest}/{path}" if path else dest, meta)
    return copied


def _set_metadata(path: str, meta: DirMeta) -> None:
    os.chown(path, meta.uid, meta.gid)
    os.chmod(path, meta.mode & 0o7777)
    for name, value in meta.xattrs:
        os.setxattr(path, name, value)
    os.utime(path, (0, 0))
