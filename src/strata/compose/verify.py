"""Two builds of one target compared: what differs, and what most likely made it so.

Pure. The second build is made by `rebuild.py` under other conditions; a file that differs tells by
its name, by what about it differs, or by its text, what the build read that is not an input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

UNKNOWN = "unknown"
# What a finding has in place of a path when no file differs.
IMAGE = "(image)"
_SHOWN = 10


@dataclass(frozen=True)
class Conditions:
    """Under what a build ran, as far as its files could tell. work: where its trees were."""

    cpus: int
    timezone: str
    locale: str
    work: str


@dataclass(frozen=True)
class Changed:
    """A path that differs between two builds.

    what: what about it differs, as words: `content`, `mode 0644 → 0600`, `added`, `removed`.
    old, new: its bytes in both builds; empty when they were not read.
    """

    path: str
    what: tuple[str, ...]
    old: bytes = b""
    new: bytes = b""


@dataclass(frozen=True)
class Finding:
    """A path that differs, with its likely cause."""

    path: str
    what: str
    cause: str

    def to_json(self) -> dict[str, str]:
        """As JSON-ready values."""
        return {"path": self.path, "what": self.what, "cause": self.cause}


@dataclass(frozen=True)
class Verification:
    """What came of building a target again. conditions: what was different, in words.

    expected, actual: the outputs that were compared, of the first and of the second build.
    """

    conditions: tuple[str, ...]
    expected: Mapping[str, str]
    actual: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def differing(self) -> str:
        """The first output that differs; empty when the builds are equal."""
        return next((key for key in self.expected if self.expected[key] != self.actual[key]), "")

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "equal": not self.differing,
            "conditions": list(self.conditions),
            "expected": dict(self.expected),
            "actual": dict(self.actual),
            "differences": [finding.to_json() for finding in self.findings],
        }


def describe(findings: Sequence[Finding]) -> str:
    """The first few findings for people, one a line; those of one cause are beside each other."""
    order = {finding.cause: number for number, finding in reversed(list(enumerate(findings)))}
    ranked = sorted(findings, key=lambda one: (one.cause == UNKNOWN, order[one.cause]))
    lines = []
    for one in ranked[:_SHOWN]:
        likely = f", likely {one.cause}" if one.cause != UNKNOWN else ""
        lines.append(f"{one.path}: {one.what}{likely}")
    if len(ranked) > _SHOWN:
        lines.append(f"and {len(ranked) - _SHOWN} more (--json lists them)")
    return "\n".join(lines)


# --- causes ----------------------------------------------------------------------------------

_BY_PATH = tuple(
    (re.compile(pattern), cause)
    for pattern, cause in (
        (r"rpmdb\.sqlite-(wal|shm)$", "the package database's journal: it was not closed"),
        (r"/dnf/history|/var/lib/dnf/|history\.sqlite", "dnf's history of transactions"),
        (
            r"/(rpmdb\.sqlite|Packages|Packages\.db)$",
            "the package database: times of installation, or the order of the transaction",
        ),
        (r"/var/log/|\.log$", "a log, which says when something ran"),
        (r"/(aux-cache|ld\.so\.cache)$", "ldconfig's cache: it knows inodes and times"),
        (r"/fontconfig/|/\.uuid$", "fontconfig's cache: it knows the times of folders"),
        (r"/var/cache/|/cache/", "a cache, which is made anew on a machine"),
        (r"\.py[co]$", "compiled Python: it holds its source's time, or another hash seed's order"),
        (
            r"/initramfs[^/]*$",
            "the initramfs: a file it packs differs, or dracut is not reproducible",
        ),
        (r"/ssh_host_[^/]*key", "a host key: it is made on the machine, not in a build"),
        (r"/machine-id$", "the machine's id: it is made at the first boot"),
        (r"/(random-seed|random\.seed|credential\.secret)$", "a random seed, a machine's own"),
        (r"/(shadow|gshadow)-?$", "users made by a tool that writes the day of the change"),
    )
)
_OS_RELEASE = re.compile(r"/os-release$")
_WORD = re.compile(r"[^\s=\"',;()]+")
_DATE = re.compile(
    r"(?<!\d)(19|20)\d\d-?[01]\d-?[0-3]\d(?!\d)"  # a day
    r"|\d{1,2}:\d\d(:\d\d)?"  # a time of day
    r"|(?<!\d)(1[6-9]\d{8}|2\d{9})(?!\d)"  # seconds since 1970
    r"|(Mon|Tue|Wed|Thu|Fri|Sat|Sun),?"
    r"|(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
)
_DAY_OR_YEAR = re.compile(r"[0-3]?\d|(19|20)\d\d")
_RANDOM = re.compile(r"\d+|[0-9a-f-]{8,}|[0-9A-Za-z+/=_-]{12,}")


def likely_cause(changed: Changed, first: Conditions, second: Conditions) -> str:
    """What most likely made a path differ between a build and the one after it."""
    if changed.what and all(word.startswith("mode ") for word in changed.what):
        return "set by a number or a word that differs: give a mode as it is"
    for pattern, cause in _BY_PATH:
        if pattern.search(changed.path):
            return cause
    if changed.path == IMAGE:
        return "times, labels or the order of files in a layer"
    if changed.old[:2] == changed.new[:2] == b"\x1f\x8b" and changed.old[8:] == changed.new[8:]:
        return "the time in a gzip header: gzip -n leaves it out"
    for tells, cause in _BY_TEXT:
        if changed.old and changed.new and tells(changed, first, second):
            if _OS_RELEASE.search(changed.path):
                return f"os-release: {cause}"
            return cause
    return UNKNOWN


def _pairs(changed: Changed) -> list[tuple[str, str]]:
    """The words of two texts that differ, side by side; none when there are not as many in both."""
    old, new = (
        _WORD.findall(data.decode("utf-8", "replace")) for data in (changed.old, changed.new)
    )
    if len(old) != len(new):
        return []
    return [pair for pair in zip(old, new) if pair[0] != pair[1]]


def _every(test: Callable[[str, str], bool], changed: Changed) -> bool:
    pairs = _pairs(changed)
    return bool(pairs) and all(test(old, new) for old, new in pairs)


def _is_path(changed: Changed, first: Conditions, second: Conditions) -> bool:
    return first.work.encode() in changed.old or second.work.encode() in changed.new


def _is_clock(changed: Changed, first: Conditions, second: Conditions) -> bool:
    return b"FAKETIME=" in changed.new and b"FAKETIME=" not in changed.old


def _is_order(changed: Changed, first: Conditions, second: Conditions) -> bool:
    return sorted(changed.old.split()) == sorted(changed.new.split())


def _is_cpus(changed: Changed, first: Conditions, second: Conditions) -> bool:
    if first.cpus == second.cpus:
        return False

    def test(old: str, new: str) -> bool:
        numbers = [re.findall(r"\d+", word) for word in (old, new)]
        return numbers == [[str(first.cpus)], [str(second.cpus)]]

    return _every(test, changed)


def _is_zone(changed: Changed, first: Conditions, second: Conditions) -> bool:
    return bool(second.timezone) and second.timezone.encode() in changed.new


def _is_locale(changed: Changed, first: Conditions, second: Conditions) -> bool:
    return bool(second.locale) and second.locale.encode() in changed.new


def _is_time(changed: Changed, first: Conditions, second: Conditions) -> bool:
    def test(old: str, new: str) -> bool:
        return all(_DATE.search(word) or _DAY_OR_YEAR.fullmatch(word) for word in (old, new))

    pairs = _pairs(changed)
    return _every(test, changed) and any(_DATE.search(old) for old, new in pairs)


def _is_random(changed: Changed, first: Conditions, second: Conditions) -> bool:
    return _every(lambda old, new: all(map(_RANDOM.fullmatch, (old, new))), changed)


_BY_TEXT: tuple[tuple[Callable[[Changed, Conditions, Conditions], bool], str], ...] = (
    (_is_clock, "the whole environment: it has the second build's clock in it"),
    (_is_path, "the folder it was built in"),
    (_is_order, "the order of a folder's entries or of a hash table: sort them"),
    (_is_zone, "the time zone"),
    (_is_locale, "the locale"),
    (_is_cpus, "the number of CPUs"),
    (_is_time, "the time of the build: $SOURCE_DATE_EPOCH is the content's"),
    (_is_random, "a random number"),
)
