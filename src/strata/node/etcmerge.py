"""The /etc merge: three ways, per path, on content, type, mode, owner and extended attributes.

Terms. *base*: the booted image's defaults (`/usr/etc`); *mine*: the machine's `/etc`; *theirs*: the
new image's defaults. Where mine is as base, theirs is taken; where theirs is as base, mine stays;
where both changed, mine stays and is reported. Deletions count as changes on both sides. Mount
points and special files (sockets, devices, pipes) are not touched.

`plan` is pure; what it decides is carried out by `strata.node.etcapply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FILE, LINK, FOLDER, SPECIAL = "file", "link", "folder", "special"


@dataclass(frozen=True)
class Entry:
    """What is at a path. content: sha256 of a file's bytes, or a link's target."""

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    content: str = ""


INSTALL, REMOVE = "install", "remove"


@dataclass(frozen=True)
class Action:
    """One change of the machine's /etc: take theirs, or remove."""

    path: str
    kind: str


@dataclass(frozen=True)
class Kept:
    """A path where theirs changed and mine stays. reason: in words."""

    path: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a merge does. actions: in the order to carry out; kept: what stays against theirs."""

    actions: tuple[Action, ...]
    kept: tuple[Kept, ...]


Tree = Mapping[str, Entry]


def plan(base: Tree, mine: Tree, theirs: Tree) -> Plan:
    """Decide a merge. Paths are relative, with `/`; a parent is in its tree when a child is.

    Installing goes from parents to children, removing from children to parents and first.
    """
    decided: dict[str, Action] = {}
    kept: list[Kept] = []
    paths = sorted(base.keys() | mine.keys() | theirs.keys())
    for path in paths:
        before, here, new = base.get(path), mine.get(path), theirs.get(path)
        if new in (before, here):
            continue
        if here is not None and here.kind == SPECIAL:
            kept.append(Kept(path, "it is a mount point or a special file here"))
        elif here != before:
            kept.append(Kept(path, _difference(here)))
        elif new is None:
            decided[path] = Action(path, REMOVE)
        else:
            decided[path] = Action(path, INSTALL)
    _keep_folders_in_use(decided, kept, mine, theirs)
    _drop_children_without_folder(decided, kept, mine, theirs)
    removals = [action for action in decided.values() if action.kind == REMOVE]
    installs = [action for action in decided.values() if action.kind == INSTALL]
    return Plan(
        (
            *sorted(removals, key=lambda action: action.path, reverse=True),
            *sorted(installs, key=lambda action: action.path),
        ),
        tuple(sorted(kept, key=lambda item: item.path)),
    )


def _difference(here: Entry | None) -> str:
    return "it was deleted here" if here is None else "it was changed here"


def _keep_folders_in_use(
    decided: dict[str, Action], kept: list[Kept], mine: Tree, theirs: Tree
) -> None:
    """A folder that would go, or become a file, stays while something of mine stays in it."""
    for path in sorted(decided, reverse=True):
        here, new = mine.get(path), theirs.get(path)
        if here is None or here.kind != FOLDER or (new is not None and new.kind == FOLDER):
            continue
        inside = [name for name in mine if name.startswith(path + "/")]
        if any(decided.get(name, Action(name, INSTALL)).kind != REMOVE for name in inside):
            del decided[path]
            kept.append(Kept(path, "files of this machine are in it"))


def _drop_children_without_folder(
    decided: dict[str, Action], kept: list[Kept], mine: Tree, theirs: Tree
) -> None:
    """What would go into a folder that is no folder after the merge is left out."""
    folders = {""}
    for path in sorted(mine.keys() | theirs.keys()):
        parent = path.rpartition("/")[0]
        action = decided.get(path)
        if parent not in folders:
            if action is not None and action.kind == INSTALL:
                del decided[path]
                kept.append(Kept(path, f"there is no folder /etc/{parent} here"))
            continue
        if action is None:
            after = mine.get(path)
        else:
            after = theirs.get(path) if action.kind == INSTALL else None
        if after is not None and after.kind == FOLDER:
            folders.add(path)
