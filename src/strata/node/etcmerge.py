"""The /etc merge: three ways, per path, on content, type, mode, owner and extended attributes.

Terms. *base*: the booted image's defaults (`/usr/etc`); *mine*: the machine's `/etc`; *theirs*: the
new image's defaults. Where mine is as base, theirs is taken; where theirs is as base, mine stays;
where both changed it is a *conflict*, and the policy decides: `mine` stays, `theirs` is taken, and
with `fail` the whole merge is refused. Deletions count as changes on both sides.

Whatever the policy, these stay as they are and are told: mount points with all below them, special
files (sockets, devices, pipes), what is immutable (chattr +i, +a), and folders with files of this
machine in them. The image's own special files are never made.

`plan` is pure and takes time linear in the number of paths, but for folders that go; what it
decides is carried out by `strata.node.etcapply`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from strata.core.errors import StrataError
from strata.core.text import shortened, shown

FILE, LINK, FOLDER, SPECIAL = "file", "link", "folder", "special"
MINE, THEIRS, FAIL = "mine", "theirs", "fail"


@dataclass(frozen=True)
class Entry:
    """What is at a path. content: sha256 of a file's bytes, or a link's target. fixed: the file
    system lets nobody change it; that is no difference of two entries."""

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    content: str = ""
    fixed: bool = field(default=False, compare=False)


INSTALL, REMOVE = "install", "remove"


@dataclass(frozen=True)
class Action:
    """One change of the machine's /etc: take theirs, or remove. over: what mine had done there,
    in words; empty when nothing."""

    path: str
    kind: str
    over: str = ""


@dataclass(frozen=True)
class Kept:
    """A path where theirs changed and mine stays. reason: in words. conflict: both changed; else
    the path cannot be changed here, whatever is in it."""

    path: str
    reason: str
    conflict: bool


@dataclass(frozen=True)
class Plan:
    """What a merge does. actions: in the order to carry out; kept: what stays against theirs."""

    actions: tuple[Action, ...]
    kept: tuple[Kept, ...]

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """The paths that both sides changed, sorted, and what was done about each, in words."""
        found = [(item.path, f"{item.reason}; it stays") for item in self.kept if item.conflict]
        found += [
            (item.path, f"{item.over}; the image's wins") for item in self.actions if item.over
        ]
        return iter(sorted(found))

    def lines(self) -> list[str]:
        """For people."""
        done = [
            f"{item.kind:8} /etc/{shown(item.path)}{f' ({item.over})' if item.over else ''}"
            for item in self.actions
        ]
        return done + [f"keep     /etc/{shown(item.path)} ({item.reason})" for item in self.kept]

    def to_json(self) -> dict[str, object]:
        """As `overlay --dry-run --json` shows it: docs/node.md. Names that are not UTF-8 are
        escaped."""
        return {
            "changed": [
                {"path": shown(item.path), "action": item.kind, "over": item.over}
                for item in self.actions
            ],
            "kept": [
                {"path": shown(item.path), "reason": item.reason, "conflict": item.conflict}
                for item in self.kept
            ],
        }


Tree = Mapping[str, Entry]


def plan(base: Tree, mine: Tree, theirs: Tree, *, policy: str = MINE) -> Plan:
    """Decide a merge. Paths are relative, with `/`; a parent is in its tree when a child is.

    Installing goes from parents to children, removing from children to parents and first.
    Raises StrataError when the policy is FAIL and there are conflicts.
    """
    decided: dict[str, Action] = {}
    kept: dict[str, Kept] = {}
    for path in sorted(base.keys() | mine.keys() | theirs.keys()):
        before, here, new = base.get(path), mine.get(path), theirs.get(path)
        if new in (before, here):
            continue
        stuck = _cannot_change(path, mine, new)
        over = "" if here == before else _difference(here)
        if stuck:
            kept[path] = Kept(path, stuck, conflict=False)
        elif over and policy != THEIRS:
            kept[path] = Kept(path, over, conflict=True)
        else:
            decided[path] = Action(path, REMOVE if new is None else INSTALL, over)
    _keep_folders_in_use(decided, kept, mine, theirs)
    _drop_children_without_folder(decided, kept, mine, theirs)
    removals = [action for action in decided.values() if action.kind == REMOVE]
    installs = [action for action in decided.values() if action.kind == INSTALL]
    done = Plan(
        (
            *sorted(removals, key=lambda action: action.path, reverse=True),
            *sorted(installs, key=lambda action: action.path),
        ),
        tuple(kept[path] for path in sorted(kept)),
    )
    if policy == FAIL:
        _refuse_conflicts(done)
    return done


def _refuse_conflicts(done: Plan) -> None:
    found = [f"/etc/{shown(path)}" for path, _ in done.conflicts()]
    if found:
        raise StrataError(
            f"this machine and the node image both changed {len(found)} "
            f"path{'s' if len(found) > 1 else ''} of /etc: {shortened(found)}",
            hint='undo the changes here, or write "etc": "mine" or "theirs" in node.json',
            context={"conflicts": found},
        )


def _difference(here: Entry | None) -> str:
    return "it was deleted here" if here is None else "it was changed here"


def _cannot_change(path: str, mine: Tree, new: Entry | None) -> str:
    """Why a path cannot be changed, in words; empty when it can."""
    here = mine.get(path)
    if here is not None and here.kind == SPECIAL:
        return "it is a mount point or a special file here"
    if here is not None and here.fixed:
        return "it is immutable here"
    if new is not None and new.kind == SPECIAL:
        return "it is a special file in the image"
    above = path.rpartition("/")[0]
    if above in mine and mine[above].fixed:
        return f"/etc/{above} is immutable here"
    while above:
        if above in mine and mine[above].kind == SPECIAL:
            return f"/etc/{above} is a mount point or a special file here"
        above = above.rpartition("/")[0]
    return ""


def _keep_folders_in_use(
    decided: dict[str, Action], kept: dict[str, Kept], mine: Tree, theirs: Tree
) -> None:
    """A folder that would go, or become a file, stays while something of mine stays in it."""
    for path in sorted(decided, reverse=True):
        here, new = mine.get(path), theirs.get(path)
        if here is None or here.kind != FOLDER or (new is not None and new.kind == FOLDER):
            continue
        inside = [name for name in mine if name.startswith(path + "/")]
        if any(decided.get(name, Action(name, INSTALL)).kind != REMOVE for name in inside):
            conflict = new is not None or bool(decided[path].over)
            del decided[path]
            kept[path] = Kept(path, "files of this machine are in it", conflict)


def _drop_children_without_folder(
    decided: dict[str, Action], kept: dict[str, Kept], mine: Tree, theirs: Tree
) -> None:
    """What would go into a folder that is no folder after the merge is left out."""
    folders = {""}
    for path in sorted(mine.keys() | theirs.keys()):
        parent = path.rpartition("/")[0]
        action = decided.get(path)
        if parent not in folders:
            if action is not None and action.kind == INSTALL:
                del decided[path]
                conflict = parent not in kept or kept[parent].conflict
                kept[path] = Kept(path, f"there is no folder /etc/{parent} here", conflict)
            continue
        if action is None:
            after = mine.get(path)
        else:
            after = theirs.get(path) if action.kind == INSTALL else None
        if after is not None and after.kind == FOLDER:
            folders.add(path)
