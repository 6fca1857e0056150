"""Users and groups of a tree: who they are, and whether they are who they have to be.

`check-passwd` and `check-groups` hold the tree's users against a list, or against the last build,
so that ids stay what machines in the field have. Source: rpm-ostree's docs/treefile.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import definition_error

# From the treefile's list to its file in /etc, how many ids a line has, and who may be missing.
CHECKS = {
    "check-passwd": ("passwd", 2, "ignore-removed-users"),
    "check-groups": ("group", 1, "ignore-removed-groups"),
}
PREVIOUS = "previous"
_ID = re.compile("[0-9]{1,10}")
Ids = Mapping[str, tuple[int, ...]]


def check_users(root: Path, treefile: Flattened, folder: Path, before: Mapping[str, str]) -> None:
    """Hold /etc/passwd and /etc/group against `check-passwd` and `check-groups`.

    Who is in the list must be in the tree with the same ids, unless `ignore-removed-users` (or
    -groups) names it or `*`; who is new is nobody's concern. before: the texts of `passwd` and
    `group` of the last build: the list of type `previous`, and where the treefile has no list, what
    may go but not change. Raises DefinitionError naming all that differ.
    """
    for key, (name, count, ignored) in CHECKS.items():
        try:
            found = parse_ids(rooted.read_text(root, f"etc/{name}"), count)
        except FileNotFoundError:
            found = {}
        forgiven = {*treefile.texts(ignored), *(() if key in treefile.fields else "*")}
        wrong = []
        for who, ids in sorted(_wanted(treefile, key, folder, before.get(name, "")).items()):
            if who not in found:
                if who not in forgiven and "*" not in forgiven:
                    wrong.append(f"{who} is missing")
            elif found[who][: len(ids)] != ids:
                wrong.append(f"{who} is {_show(found[who])}, not {_show(ids)}")
        if wrong:
            raise _differs(treefile, key, wrong)


def _differs(treefile: Flattened, key: str, wrong: Sequence[str]) -> DefinitionError:
    name, _, ignored = CHECKS[key]
    asks, hint = f"{key} asks for", f"change the list, or name who may go in {ignored}"
    if _kind(treefile, key) == PREVIOUS:
        asks = "it was in the last build"
        hint = (
            f"keep the ids with preserve-passwd: true; or accept the new ones, once, with {key}: "
        )
        hint += "{ type: none }"
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    found = "; ".join(wrong[:5]) + more
    error = definition_error(
        treefile.places.get(key), f"/etc/{name} is not what {asks}: {found}", hint, key=key
    )
    error.context["output"] = "\n".join(wrong)
    return error


def _kind(treefile: Flattened, key: str) -> object:
    return treefile.mapping(key).get("type", PREVIOUS)


def _wanted(treefile: Flattened, key: str, folder: Path, before: str) -> Ids:
    _, count, _ = CHECKS[key]
    for item in treefile.files:
        if item.field == key:
            return parse_ids((folder / item.path).read_text(encoding="utf-8"), count)
    if _kind(treefile, key) == PREVIOUS:
        return parse_ids(before, count)
    entries = treefile.mapping(key).get("entries")
    ids: dict[str, tuple[int, ...]] = {}
    for who, number in entries.items() if isinstance(entries, dict) else ():
        one = tuple(number) if isinstance(number, list) else (number,)
        # One number for a user is the group's too.
        ids[who] = one * 2 if count == 2 and len(one) == 1 else one
    return ids


def parse_ids(text: str, count: int) -> dict[str, tuple[int, ...]]:
    """Names and ids of a passwd (count 2) or group (count 1) file; other lines are passed over."""
    found = {}
    for line in text.splitlines():
        fields = line.split(":")
        numbers = fields[2 : 2 + count]
        if len(numbers) == count and all(_ID.fullmatch(number) for number in numbers):
            found[fields[0]] = tuple(map(int, numbers))
    return found


def _show(ids: tuple[int, ...]) -> str:
    return ":".join(map(str, ids))
