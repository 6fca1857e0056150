"""Debian's control fields as an RPM spec writes them. Pure: text in, values out.

- `[epoch:]upstream-revision` → Epoch, Version, Release; `-` inside upstream becomes `_`, a version
  without revision gets Release 0; `~` and `+` mean the same to rpm.
- `a | b` → the rich dependency `(a or b)`; `<<` → `<`; `>>` → `>` only when the version has a
  revision, else `>=`: rpm compares `> 2.36` with 2.36-9 as not greater.
- Architecture qualifiers (`:any`) and restrictions (`[amd64]`) go.
- `Breaks` and `Replaces` order dpkg's upgrades and have no meaning for an install; they go.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass

from strata.core.errors import PackageError

_OPERATORS = {"<<": "<", "<=": "<=", "=": "=", ">=": ">=", ">>": ">"}
_ATOM = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)(:[a-z0-9-]+)?\s*"
    r"(\(\s*(?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^\s)]+)\s*\))?\s*(\[[^]]*\])?"
)


@dataclass(frozen=True)
class Control:
    """A binary package's control fields."""

    fields: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        return self.fields[key]

    def get(self, key: str, default: str = "") -> str:
        """A field's text, or the default."""
        return self.fields.get(key, default)


@dataclass(frozen=True)
class RpmVersion:
    """Epoch, version and release of an RPM."""

    epoch: int
    version: str
    release: str

    def __str__(self) -> str:
        return (f"{self.epoch}:" if self.epoch else "") + f"{self.version}-{self.release}"


def parse_control(text: str) -> Control:
    """One stanza of control fields; continuation lines are joined with newlines.

    Raises PackageError when Package, Version or Architecture is missing or a line is malformed.
    """
    fields: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t") and last:
            fields[last] += "\n" + line[1:]
        elif ":" in line:
            last, _, value = line.partition(":")
            fields[last] = value.strip()
        elif line.strip():
            raise PackageError(f"this is not a control field: {line!r}")
    for needed in ("Package", "Version", "Architecture"):
        if needed not in fields:
            raise PackageError(f"the control file has no {needed} field")
    return Control(fields)


def rpm_version(text: str) -> RpmVersion:
    """A Debian version as rpm writes it. Raises PackageError on characters rpm does not have."""
    epoch, _, rest = text.rpartition(":") if ":" in text else ("0", "", text)
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, "0"
    version = upstream.replace("-", "_").replace(":", "_")
    if not epoch.isdigit() or not re.fullmatch(r"[A-Za-z0-9._+~]+", version + revision):
        raise PackageError(f"{text!r} cannot be an RPM version")
    return RpmVersion(int(epoch), version, revision)


def requirements(text: str) -> list[str]:
    """A Depends field as RPM requirements, in order, without doubles."""
    found: list[str] = []
    for clause in _split(text, ","):
        alternatives = [_atom(part) for part in _split(clause, "|")]
        unique = list(dict.fromkeys(alternatives))
        rpm = unique[0] if len(unique) == 1 else f"({' or '.join(unique)})"
        if rpm not in found:
            found.append(rpm)
    return found


def provisions(text: str) -> list[str]:
    """A Provides field as RPM provides."""
    return [_atom(part) for part in _split(text, ",")]


def conflicts(control: Control) -> list[str]:
    """A Conflicts field as RPM conflicts, without the virtual names the package itself provides.

    In Debian a package may conflict with what it provides, to be the only provider.
    """
    own = {_name(part) for part in _split(control.get("Provides"), ",")} | {control["Package"]}
    return [_atom(part) for part in _split(control.get("Conflicts"), ",") if _name(part) not in own]


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.replace("\n", " ").split(separator) if part.strip()]


def _match(atom: str) -> re.Match[str]:
    match = _ATOM.fullmatch(atom.strip())
    if not match:
        raise PackageError(f"{atom!r} is not a dependency")
    return match


def _name(atom: str) -> str:
    return _match(atom)["name"]


def _atom(atom: str) -> str:
    match = _match(atom)
    if not match["version"]:
        return match["name"]
    operator = {"<": "<<", ">": ">>"}.get(match["operator"], match["operator"])
    text = match["version"]
    has_revision = "-" in text
    sign = _OPERATORS[operator]
    if operator == ">>" and not has_revision:
        sign = ">="
    version = rpm_version(text)
    evr = str(version) if has_revision else str(version).rpartition("-")[0]
    return f"{match['name']} {sign} {evr}"


@dataclass(frozen=True)
class ChangelogEntry:
    """One entry of a Debian changelog. when: seconds since 1970."""

    version: str
    author: str
    when: int


_HEADER = re.compile(r"^\S+ \((?P<version>[^)]+)\)")
_TRAILER = re.compile(r"^ -- (?P<author>.*?)  (?P<date>.+)$")


def parse_changelog(text: str, limit: int) -> list[ChangelogEntry]:
    """The newest entries of a Debian changelog, newest first; malformed ones are passed over."""
    entries: list[ChangelogEntry] = []
    version = ""
    for line in text.splitlines():
        header, trailer = _HEADER.match(line), _TRAILER.match(line)
        if header:
            version = header["version"]
        elif trailer and version:
            try:
                when = email.utils.parsedate_to_datetime(trailer["date"]).timestamp()
            except ValueError:
                continue
            entries.append(ChangelogEntry(version, trailer["author"], int(when)))
            version = ""
            if len(entries) == limit:
                break
    return sorted(entries, key=lambda entry: entry.when, reverse=True)
