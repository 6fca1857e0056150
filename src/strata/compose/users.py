"""Users and groups of a tree: who they are, and whether they are who they have to be.

`check-passwd` and `check-groups` hold the tree's users against a list, so that ids stay what
machines in the field have. Source: rpm-ostree's docs/treefile.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.treefile.treefile import Flattened

_ID = re.compile("[0-9]{1,10}")
Ids = Mapping[str, tuple[int, ...]]


def check_users(root: Path, treefile: Flattened, folder: Path) -> None:
    """Hold /etc/passwd and /etc/group against `check-passwd` and `check-groups`.

    Who is in the list must be in the tree with the same ids, unless `ignore-removed-users` (or
    -groups) names it or `*`; who is new is nobody's concern. Raises DefinitionError naming all that
    differ.
    """
    for key, name, ignored in (
        ("check-passwd", "passwd", "ignore-removed-users"),
        ("check-groups", "group", "ignore-removed-groups"),
    ):
        wanted = _wanted(treefile, key, folder)
        if not wanted:
            continue
        count = 2 if name == "passwd" else 1
        try:
            found = parse_ids(rooted.read_text(root, f"etc/{name}"), count)
        except FileNotFoundError:
            found = {}
        value = treefile.fields.get(ignored)
        forgiven = set(value) if isinstance(value, list) else set()
        wrong = []
        for who, ids in sorted(wanted.items()):
            if who not in found:
                if who not in forgiven and "*" not in forgiven:
                    wrong.append(f"{who} is missing")
            elif found[who][: len(ids)] != ids:
                wrong.append(f"{who} is {_show(found[who])}, not {_show(ids)}")
        if wrong:
            raise DefinitionError(
                f"{treefile.places[key]}: /etc/{name} is not what {key} asks for: "
                + "; ".join(wrong[:5])
                + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
                hint=f"change the list, or name who may go in {ignored}",
                context={"key": key, "output": "\n".join(wrong)},
            )


def _wanted(treefile: Flattened, key: str, folder: Path) -> Ids:
    for item in treefile.files:
        if item.field == key:
            text = (folder / item.path).read_text(encoding="utf-8")
            return parse_ids(text, 2 if key == "check-passwd" else 1)
    value = treefile.fields.get(key)
    entries = value.get("entries") if isinstance(value, dict) else None
    ids: dict[str, tuple[int, ...]] = {}
    for who, number in entries.items() if isinstance(entries, dict) else ():
        one = tuple(number) if isinstance(number, list) else (number,)
        # One number for a user is the group's too.
        ids[who] = one * 2 if key == "check-passwd" and len(one) == 1 else one
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
