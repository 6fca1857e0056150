"""Compare two resolved treefiles: what one has that the other has not, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strata.treefile.treefile import Flattened


@dataclass(frozen=True)
class FieldDiff:
    """A field that differs. added, removed: items of a list or keys of a mapping; a script is its
    text. changed: keys, or the empty key for a single value, with the value before and after.
    reordered: the same items in another order, where order counts."""

    field: str
    added: tuple[object, ...] = ()
    removed: tuple[object, ...] = ()
    changed: tuple[tuple[str, object, object], ...] = ()
    reordered: bool = False

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "field": self.field,
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": [{"key": key, "old": old, "new": new} for key, old, new in self.changed],
            "reordered": self.reordered,
        }


# Of these the order decides what the tree is.
_ORDERED = ("postprocess", "ostree-layers", "ostree-override-layers", "repos", "initramfs-args")


def compare(old: Flattened, new: Flattened) -> tuple[FieldDiff, ...]:
    """The fields that differ, packages first, then by name."""
    keys = sorted({*old.fields, *new.fields}, key=lambda key: (key != "packages", key))
    diffs = (_field(key, old.fields.get(key), new.fields.get(key)) for key in keys)
    return tuple(diff for diff in diffs if diff is not None)


def _field(key: str, old: object, new: object) -> FieldDiff | None:
    if old == new:
        return None
    if isinstance(old, list) or isinstance(new, list):
        before = old if isinstance(old, list) else []
        after = new if isinstance(new, list) else []
        added, removed = _without(after, before), _without(before, after)
        if not added and not removed:
            return FieldDiff(key, reordered=True) if key in _ORDERED else None
        if key == "postprocess":
            return _scripts(added, removed)
        return FieldDiff(key, tuple(added), tuple(removed))
    if isinstance(old, dict) or isinstance(new, dict):
        return _mapping(
            key, old if isinstance(old, dict) else {}, new if isinstance(new, dict) else {}
        )
    return FieldDiff(key, changed=(("", old, new),))


def _mapping(key: str, old: Mapping[str, object], new: Mapping[str, object]) -> FieldDiff:
    return FieldDiff(
        key,
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(old.keys() - new.keys())),
        tuple((k, old[k], new[k]) for k in sorted(old.keys() & new.keys()) if old[k] != new[k]),
    )


def _without(items: list[object], others: list[object]) -> list[object]:
    """Items that the others do not have, as often as they have them less."""
    left = list(others)
    missing = []
    for item in items:
        if item in left:
            left.remove(item)
        else:
            missing.append(item)
    return missing


def _scripts(added: list[object], removed: list[object]) -> FieldDiff:
    """Scripts that begin alike are one that changed."""
    new = [str(script) for script in added]
    old, changed = [], []
    for script in map(str, removed):
        same = next((each for each in new if script_title(each) == script_title(script)), None)
        if same is None:
            old.append(script)
        else:
            new.remove(same)
            changed.append((script_title(script), script, same))
    return FieldDiff("postprocess", tuple(new), tuple(old), tuple(changed))


def script_title(script: str) -> str:
    """A script in one line: its first comment or command."""
    lines = [line.strip() for line in script.splitlines()]
    wanted = (line for line in lines if line and not line.startswith(("#!", "set -")))
    return next(wanted, "").lstrip("# ")[:72]
