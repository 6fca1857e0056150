"""Ids that stay: the users and groups of the last build, or of a file, are there before packages.

A tool that makes a user takes the next free id; machines in the field have files of the one before.
With lists in files a build starts from them; with `preserve-passwd: true` from who was in the last
build, which its record keeps and which is an input then. Without either a build does not depend on
what was built before, and fails when an id changed.

On a tree that has nss-altfiles only root and the groups that people are members of
(`etc-group-members`) stay in /etc: a machine's own changes do not hide new users then.

Source: rpm-ostree's docs/treefile.md and rust/src/passwd.rs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.compose.users import CHECKS, parse_ids
from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.core.files import json_digest
from strata.core.record import BuildRecord, Input, input_key
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import definition_error

ETC, USR = "etc", "usr/lib"
NAMES = ("passwd", "group")
_SHADOW = {"passwd": ("shadow", "*::0:99999:7:::"), "group": ("gshadow", "::")}
_NSS = "libnss_altfiles.so.2"
_LIBRARIES = ("usr/lib64", "usr/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu")
_NSSWITCH = "etc/nsswitch.conf"


@dataclass(frozen=True)
class Accounts:
    """The lines of passwd(5) and group(5). locked: whether they get lines in shadow(5), too."""

    passwd: str = ""
    group: str = ""
    locked: bool = False

    def of(self, name: str) -> str:
        """One of NAMES."""
        return self.passwd if name == "passwd" else self.group

    def to_json(self) -> dict[str, str]:
        """As a build record's output."""
        return {"passwd": self.passwd, "group": self.group}

    @staticmethod
    def from_record(record: BuildRecord | None, output: str) -> Accounts:
        """What a build record keeps under an output; nobody when it does not."""
        value = record.outputs.get(output) if record else None
        if not isinstance(value, Mapping):
            return Accounts()
        return Accounts(str(value.get("passwd", "")), str(value.get("group", "")))

    def digest(self) -> str:
        """`sha256:…`; empty for nobody."""
        return json_digest([self.passwd, self.group]) if self.passwd or self.group else ""

    def inputs(self) -> tuple[Input, ...]:
        """What of it is in no file of the definitions."""
        if self.locked or not self.digest():
            return ()
        return (Input("base", "users and groups of the last build", self.digest()),)


def accounts_before(
    treefile: Flattened, folder: Path, earlier: BuildRecord | None, inputs: Sequence[Input]
) -> Accounts:
    """Who is there before packages come: of the lists, where both are files, or of the last build,
    where the treefile preserves them.

    folder: the definitions. inputs: all others of the build. When they are those of the earlier
    build, it is who was there before that one: the same inputs make the same tree.
    Raises DefinitionError.
    """
    preserve = treefile.fields.get("preserve-passwd")
    if preserve is False:
        return Accounts()
    if _of_files(treefile):
        texts = {
            item.field: (folder / item.path).read_text(encoding="utf-8")
            for item in treefile.files
            if item.field in CHECKS
        }
        return Accounts(texts["check-passwd"], texts["check-groups"], locked=True)
    if preserve is not True:
        return Accounts()
    again = Accounts.from_record(earlier, "accounts-before")
    if earlier and input_key(sorted([*inputs, *again.inputs()])) == earlier.key:
        return again
    return Accounts.from_record(earlier, "accounts")


def _of_files(treefile: Flattened) -> bool:
    """Whether both lists are files; rpm-ostree takes one of each kind for a mistake."""
    files = {item.field for item in treefile.files if item.field in CHECKS}
    if len(files) == 1:
        key = next(iter(files))
        other = next(name for name in CHECKS if name != key)
        raise definition_error(
            treefile.places[key],
            f"{key} is of type file, and {other} is not",
            "with preserve-passwd both come from files, or both from the last build",
            key=key,
        )
    return bool(files)


def read_accounts(root: Path) -> Accounts:
    """Everyone of an installed root."""
    return Accounts("".join(_lines(root, "passwd")), "".join(_lines(root, "group")))


def _lines(root: Path, name: str) -> list[str]:
    """The lines of /etc and /usr/lib, those of a name once."""
    found: dict[str, str] = {}
    for folder in (ETC, USR):
        for line in _read(root, f"{folder}/{name}"):
            found.setdefault(line.partition(":")[0], line)
    return list(found.values())


def _read(root: Path, path: str) -> list[str]:
    try:
        return [f"{line}\n" for line in rooted.read_text(root, path).splitlines() if line]
    except FileNotFoundError:
        return []


def join_accounts(root: Path) -> None:
    """Undo `split_accounts` of the layer below: everyone is in /etc again."""
    for name in NAMES:
        if _read(root, f"{USR}/{name}"):
            rooted.write_text(root, f"{ETC}/{name}", "".join(_lines(root, name)))
            rooted.remove(root, f"{USR}/{name}")


def seed_accounts(root: Path, accounts: Accounts) -> None:
    """Have who was there before in a root that has none of this layer's packages yet.

    Raises DefinitionError when an id is somebody else's in the layer below.
    """
    for name in NAMES:
        wanted = [f"{line}\n" for line in accounts.of(name).splitlines() if line]
        there = _read(root, f"{ETC}/{name}")
        known = {line.partition(":")[0] for line in there}
        new = [line for line in wanted if line.partition(":")[0] not in known]
        _refuse_doubles(name, there, wanted, new)
        if new:
            rooted.write_text(root, f"{ETC}/{name}", "".join([*there, *new]))
        if new and accounts.locked:
            _lock(root, name, new)


def _refuse_doubles(
    name: str, there: Sequence[str], wanted: Sequence[str], new: Sequence[str]
) -> None:
    before = parse_ids("".join(wanted), 1)
    owners = {ids: who for who, ids in parse_ids("".join(there), 1).items() if who not in before}
    for who, ids in parse_ids("".join(new), 1).items():
        if ids in owners:
            raise DefinitionError(
                f"{who} had id {ids[0]} in /etc/{name} before, and it is {owners[ids]}'s now, in "
                "the layer below",
                hint="give one of them another id in sysusers.d, or leave preserve-passwd out",
            )


def _lock(root: Path, name: str, lines: Sequence[str]) -> None:
    file, rest = _SHADOW[name]
    text = "".join(_read(root, f"{ETC}/{file}"))
    text += "".join(f"{line.partition(':')[0]}:{rest}\n" for line in lines)
    rooted.write_text(root, f"{ETC}/{file}", text)
    rooted.resolve(root, f"{ETC}/{file}").chmod(0)


def settle_rpmnew(root: Path) -> None:
    """A package's own list beside the one that was there: its owner and mode, and both's lines."""
    for name in (*NAMES, "shadow", "gshadow"):
        beside = rooted.resolve(root, f"{ETC}/{name}.rpmnew")
        if not beside.is_file():
            continue
        found: dict[str, str] = {}
        for line in (*_read(root, f"{ETC}/{name}"), *_read(root, f"{ETC}/{name}.rpmnew")):
            found.setdefault(line.partition(":")[0], line)
        beside.write_text("".join(found.values()), encoding="utf-8")
        os.replace(beside, rooted.resolve(root, f"{ETC}/{name}"))


# --- /usr/lib ------------------------------------------------------------------------------------


def has_altfiles(root: Path) -> bool:
    """Whether the tree's C library looks for users in /usr/lib too."""
    return any(rooted.resolve(root, f"{place}/{_NSS}").is_file() for place in _LIBRARIES)


def split_accounts(root: Path, members: Sequence[str]) -> bool:
    """On a tree with nss-altfiles, move all but root to /usr/lib; returns whether it has it.

    members: groups that are in /etc too, because people become members of them.
    """
    if not has_altfiles(root):
        return False
    for name in NAMES:
        lines = _lines(root, name)
        ids = parse_ids("".join(lines), 1)
        own = {who for who, number in ids.items() if number == (0,)}
        kept = own | set(members if name == "group" else ())
        inside = [line for line in lines if line.partition(":")[0] not in own]
        outside = [line for line in lines if line.partition(":")[0] in kept]
        rooted.write_text(root, f"{USR}/{name}", "".join(inside))
        rooted.write_text(root, f"{ETC}/{name}", "".join(outside))
    if not rooted.resolve(root, _NSSWITCH, follow_last=False).is_symlink():
        text = "".join(_read(root, _NSSWITCH))
        if text:
            rooted.write_text(root, _NSSWITCH, with_altfiles(text))
    return True


def with_altfiles(text: str) -> str:
    """nsswitch.conf(5) with altfiles after files for passwd and group."""
    rows = []
    for line in text.splitlines():
        database, colon, services = line.partition(":")
        words = services.split()
        if colon and database in NAMES and "altfiles" not in words:
            at = words.index("files") + 1 if "files" in words else len(words)
            line = f"{database}: {' '.join([*words[:at], 'altfiles', *words[at:]])}"
        rows.append(f"{line}\n")
    return "".join(rows)
