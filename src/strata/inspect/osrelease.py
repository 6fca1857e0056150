"""os-release of an image: how it is read, and what those who read it may count on.

Who wants the OS's version takes RHEL_VERSION where there is one, which images of the time before
layers have, else VERSION_ID. Of a node image the *contract* is: its layer adds OPENSHIFT_VERSION to
what its base says, and nothing else; from one release to the next the versions and ID change, and
what the system is called does not. Source: the enhancement that split RHCOS into layers
(requirements R2.4 and R2.5).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from strata.core.errors import DefinitionError
from strata.core.versions import age, parse_any

PATH = "usr/lib/os-release"
PRODUCT = "OPENSHIFT_VERSION"
_ASSIGNMENT = re.compile("[A-Z][A-Z0-9_]*=")
# What may have another value in another release.
_CHANGING = ("ID", "VERSION", "VERSION_ID", "RHEL_VERSION", "OSTREE_VERSION", "IMAGE_VERSION")


def read_raw(text: str) -> dict[str, str]:
    """os-release text as an ordered mapping, values as they are written.

    Raises DefinitionError with the line that is not KEY=VALUE (os-release(5)).
    """
    values: dict[str, str] = {}
    for number, line in _lines(text):
        key, _, value = line.partition("=")
        if not _ASSIGNMENT.match(line) or _unquoted(value) is None:
            raise DefinitionError(
                f"os-release line {number} is not KEY=VALUE: {line}",
                context={"file": "os-release", "line": number},
            )
        values[key] = value
    return values


def parse(text: str) -> dict[str, str]:
    """os-release text as an ordered mapping, unquoted as a shell would. Raises DefinitionError."""
    return {key: _unquoted(value) or "" for key, value in read_raw(text).items()}


def look(data: bytes) -> dict[str, str]:
    """The same of any bytes: a line that is no assignment counts under its own text, a value that
    no shell could read as it is written."""
    values: dict[str, str] = {}
    for _, line in _lines(data.decode("utf-8", "backslashreplace")):
        key, _, value = line.partition("=")
        if not _ASSIGNMENT.match(line):
            values[line] = ""
        else:
            unquoted = _unquoted(value)
            values[key] = value if unquoted is None else unquoted
    return values


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.strip().startswith("#"):
            yield number, line.strip()


def _unquoted(value: str) -> str | None:
    """A value as a shell reads it; None when it is not one word."""
    try:
        words = shlex.split(value)
    except ValueError:  # a quote that does not end
        return None
    return "".join(words) if len(words) < 2 else None


def os_version(values: Mapping[str, str]) -> str:
    """The OS's version as consumers read it; empty when there is none."""
    return values.get("RHEL_VERSION") or values.get("VERSION_ID", "")


def node_changes(base: Mapping[str, str], node: Mapping[str, str]) -> tuple[str, ...]:
    """What a node layer did to its base's os-release beside adding OPENSHIFT_VERSION, in words."""
    found = []
    for key in [*base, *(key for key in node if key not in base)]:
        if key not in node:
            found.append(f"{key} is gone")
        elif key not in base:
            if key != PRODUCT:
                found.append(f"{key} is added")
        elif base[key] != node[key]:
            found.append(f"{key} is {node[key]!r}, in the base {base[key]!r}")
    return tuple(found)


@dataclass(frozen=True)
class Reading:
    """What who asks for a key reads in a later release. None: the key is not there.

    agreed: the contract lets it change. note: what there is to know of it, empty for nothing.
    """

    key: str
    before: str | None
    after: str | None
    agreed: bool
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "key": self.key,
            "old": self.before,
            "new": self.after,
            "agreed": self.agreed,
            "note": self.note or None,
        }


def readings(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Reading, ...]:
    """The keys that an earlier and a later os-release have differently, in the earlier's order."""
    keys = [*before, *(key for key in after if key not in before)]
    return tuple(
        Reading(key, before.get(key), after.get(key), *_judge(key, before, after))
        for key in keys
        if before.get(key) != after.get(key)
    )


def _judge(key: str, before: Mapping[str, str], after: Mapping[str, str]) -> tuple[bool, str]:
    """Whether a key may change so, and what there is to know of it."""
    old, new = before.get(key, ""), after.get(key, "")
    if key == "RHEL_VERSION" and not new and after.get("VERSION_ID"):
        return True, f"VERSION_ID, {after['VERSION_ID']}, is read in its place"
    if key == "VERSION_ID" and new:
        was, now = old == before.get(PRODUCT), new == after.get(PRODUCT)
        if was != now:
            return was, "it named the product" if was else "it is to name the OS, not the product"
    if key == "PRETTY_NAME" and new and _shape(old) == _shape(new):
        return True, ""
    if new and key in (*_CHANGING, PRODUCT):
        return True, _scheme_note(old, new)
    return False, "the contract has it stay"


def _shape(name: str) -> str:
    """A PRETTY_NAME without its version and the code name after it."""
    words = [word for word in re.sub(r" \([^()]*\)$", "", name).split() if not _is_version(word)]
    return " ".join(words)


def _is_version(word: str) -> bool:
    return re.fullmatch(r"[0-9][0-9.]*(-[0-9]+(\.dev)?)?", word) is not None


def _scheme_note(old: str, new: str) -> str:
    """What to know of two versions of different schemes: which is newer, since semver errs."""
    try:
        one, other = (parse_any(text.partition(" ")[0]) for text in (old, new))
    except ValueError:
        return ""
    if type(one) is type(other):
        return ""
    try:
        before, after = age(one), age(other)
    except ValueError:
        return "another scheme, without an order between them"
    newer = "newer" if before < after else "older" if before > after else "of the same day"
    return f"another scheme, {newer} by OS release and day"
