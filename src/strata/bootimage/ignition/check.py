"""What an Ignition config needs from the node image before that is there.

A unit is *late* when it waits for the overlay, or when nothing but multi-user.target starts it,
which a machine reaches after the overlay. What all other units run is looked for on the boot image:
their commands, the config's scripts that those are or call, the scripts' interpreters. A finding is
a program that the node image has, and neither the boot image nor the config.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from strata.bootimage.ignition.contents import Contents, UnitTexts
from strata.bootimage.ignition.shell import SHELLS, Call, calls, unwrapped
from strata.core.systemd import Unit, comes_after, find_cycle, parse_unit, settings
from strata.inspect.entries import File
from strata.inspect.owner import resolve

OVERLAY = "node-image-overlay.service"
TARGET = "node-image-overlay.target"
# Reached from the overlay's target by isolating it.
_AFTERWARDS = frozenset({"multi-user.target", "graphical.target"})
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_COMMANDS = re.compile(r"Exec(Start|StartPre|StartPost|Condition|Reload|Stop|StopPost)")
_TRIGGERS = ("timer", "path", "socket")
# What is run without a unit of the config.
_HOOKS = ("/etc/NetworkManager/dispatcher.d/", "/etc/systemd/system-generators/")


@dataclass(frozen=True)
class Images:
    """Where programs are looked for. boot, node: files by path; package_of: who owns one of the
    node image's, empty when nobody does."""

    boot: Mapping[str, File]
    node: Mapping[str, File]
    package_of: Callable[[str], str]


@dataclass(frozen=True)
class Finding:
    """A program that is not there yet. by: the unit or file that begins; trail: through what, as
    settings of units and lines of scripts; path: in the node image."""

    by: str
    trail: tuple[str, ...]
    command: str
    path: str
    package: str

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "by": self.by,
            "trail": list(self.trail),
            "command": self.command,
            "path": self.path,
            "package": self.package or None,
        }


@dataclass(frozen=True)
class Report:
    """late: units that wait for the overlay; early: those that do not; ring: units that wait for
    each other; elsewhere: parts of the config that were not looked into."""

    findings: tuple[Finding, ...]
    early: tuple[str, ...]
    late: tuple[str, ...]
    ring: tuple[str, ...]
    elsewhere: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings and not self.ring


def check(contents: Contents, images: Images, agent: Mapping[str, str]) -> Report:
    """Look a config through. agent: the agent's units by name, for a config that has none.

    Raises ImageError when an image's links go round.
    """
    texts = dict(contents.units)
    if OVERLAY not in texts:
        texts.update({name: UnitTexts(text) for name, text in agent.items() if name not in texts})
    units = {
        name: parse_unit(name, *(text for _, text in unit.texts()), enabled=unit.enabled)
        for name, unit in texts.items()
    }
    late = late_units(units, _triggered(texts))
    search = _Search(contents.files, images)
    for name in sorted(set(contents.units) - late):
        search.unit(name, contents.units[name])
    for path in sorted(contents.files):
        if path.startswith(_HOOKS):
            search.script(path, path, ())
    starts = [TARGET if TARGET in units else OVERLAY]
    return Report(
        tuple(search.found),
        tuple(sorted(set(contents.units) - late)),
        tuple(sorted(late & set(contents.units))),
        tuple(find_cycle(units, starts)),
        tuple(contents.elsewhere),
    )


def late_units(units: Mapping[str, Unit], triggered: Mapping[str, str]) -> set[str]:
    """The units that start after the overlay only. triggered: from timers and their like to what
    they start."""
    starters: dict[str, set[str]] = {}
    for unit in units.values():
        if unit.wanted_by:
            starters.setdefault(unit.name, set()).update(unit.wanted_by)
        for name in unit.pulls:
            starters.setdefault(name, set()).add(unit.name)
    for trigger, name in triggered.items():
        starters.setdefault(name, set()).add(trigger)
    late = {name for name in units if name != OVERLAY and comes_after(units, name, OVERLAY)}
    if TARGET not in units:
        return late  # nothing is isolated: multi-user.target is what the machine boots to
    # What a late unit wants is started together with it, and waits for nothing.
    afterwards = set(_AFTERWARDS)
    while more := {
        name for name in set(units) - afterwards if starters.get(name, {""}) <= afterwards
    }:
        afterwards |= more
    return late | (afterwards & set(units))


def _triggered(texts: Mapping[str, UnitTexts]) -> dict[str, str]:
    found = {}
    for name, unit in texts.items():
        stem, _, kind = name.rpartition(".")
        if kind in _TRIGGERS:
            found[name] = f"{stem}.service"
            for one in (one for _, text in unit.texts() for one in settings(text)):
                if one.section == kind.capitalize() and one.key in ("Unit", "Service"):
                    found[name] = one.value
    return found


@dataclass
class _Search:
    """Follows commands into scripts, each script once for each unit."""

    files: Mapping[str, bytes]
    images: Images
    found: list[Finding] = field(default_factory=list)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def unit(self, name: str, unit: UnitTexts) -> None:
        for place, words in _exec_lines(unit):
            self.call(name, words, (place,))

    def call(self, by: str, words: tuple[str, ...], trail: tuple[str, ...]) -> None:
        """One simple command, wrappers taken away."""
        name = words[0]
        places = [name] if name.startswith("/") else [f"{folder}/{name}" for folder in _PATH]
        if "$" in name or ("/" in name and not name.startswith("/")):
            places = []
        script = next((path for path in places if path in self.files), "")
        if script:
            self.script(by, script, trail)
        elif not any(resolve(self.images.boot, path) in self.images.boot for path in places):
            self._missing(by, name, places, trail)
        short = name.rpartition("/")[2]
        if short in SHELLS or short in (".", "source"):
            self._interpreted(by, words[1:], trail)

    def _interpreted(self, by: str, words: tuple[str, ...], trail: tuple[str, ...]) -> None:
        """What a shell is given: a text with -c, or a script."""
        options = [word for word in words if word.startswith("-")]
        operands = [word for word in words if not word.startswith("-")]
        if any(re.fullmatch(r"-[a-z]*c", option) for option in options) and operands:
            for call in calls(operands[0]):
                self.call(by, call.words, trail)
        elif operands and operands[0] in self.files:
            self._follow(by, operands[0], trail, calls(_text(self.files[operands[0]])))

    def script(self, by: str, path: str, trail: tuple[str, ...]) -> None:
        """A file of the config that is run: its interpreter and, of a shell's, its commands."""
        self._follow(by, path, trail, _script_calls(self.files[path]))

    def _follow(self, by: str, path: str, trail: tuple[str, ...], called: list[Call]) -> None:
        if (by, path) in self._seen:
            return
        self._seen.add((by, path))
        for call in called:
            self.call(by, call.words, (*trail, f"{path}:{call.line}"))

    def _missing(self, by: str, name: str, places: list[str], trail: tuple[str, ...]) -> None:
        for path in places:
            where = resolve(self.images.node, path)
            if where in self.images.node:
                package = self.images.package_of(where)
                self.found.append(Finding(by, trail, name, where, package))
                return


def _exec_lines(unit: UnitTexts) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The commands of a unit with the place of each; an empty setting takes earlier ones away."""
    lines: dict[str, list[tuple[str, str]]] = {}
    for file, text in unit.texts():
        for one in settings(text):
            if one.section not in ("Service", "Socket", "Mount", "Swap"):
                continue
            if not _COMMANDS.fullmatch(one.key):
                continue
            if not one.value:
                lines[one.key] = []
            else:
                place = f"{file + ':' if file else ''}{one.line} {one.key}"
                lines.setdefault(one.key, []).append((place, one.value))
    for place, value in (line for found in lines.values() for line in found):
        for part in re.split(r"\s;\s", value):
            words = unwrapped(_split(part.lstrip("-@:+!| ")))
            if words:
                yield place, words


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()  # systemd refuses it; what it would have called is still of interest


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _script_calls(data: bytes) -> list[Call]:
    if not data.startswith(b"#!"):
        return []
    text = _text(data)
    words = unwrapped(text.split("\n", 1)[0][2:].split())
    if not words:
        return []
    found = [Call(words[:1], 1)]
    if words[0].rpartition("/")[2] in SHELLS:
        found += calls(text)
    return found
