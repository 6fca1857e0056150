"""systemd's unit files: their settings, who is started with whom, and in which order.

Text in, values out. The order is what systemd makes of a start: After= and Before=, and the
default dependencies of targets and services that ours can collide with (systemd.unit(5),
systemd.service(5), systemd.target(5)). Cost is linear in units and their dependencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_PULLS = ("Wants", "Requires", "BindsTo", "Upholds")
_FALSE = ("no", "false", "off", "0", "n", "f")
# What starts before a service or socket without being asked; targets on the way up, in order.
_EARLY = ("sysinit.target", "basic.target")


@dataclass(frozen=True)
class Setting:
    """One assignment of a unit file. line: from 1, where it begins."""

    section: str
    key: str
    value: str
    line: int


def settings(text: str) -> Iterator[Setting]:
    """The assignments of a unit file; comments, and lines that are none, are passed over."""
    section, pending, begin = "", "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith(("#", ";")) or not (line or pending):
            continue
        if not pending:
            begin = number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        line, pending = pending + line, ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            key, _, value = line.partition("=")
            yield Setting(section, key.strip(), value.strip(), begin)


@dataclass(frozen=True)
class Unit:
    """What a unit says of others. pulls: started with it; wanted_by: what starts it, as enabled."""

    name: str
    after: frozenset[str] = frozenset()
    before: frozenset[str] = frozenset()
    pulls: frozenset[str] = frozenset()
    wanted_by: frozenset[str] = frozenset()
    default_dependencies: bool = True


def parse_unit(name: str, *texts: str, enabled: bool = True) -> Unit:
    """A unit from its file and its drop-ins. enabled: whether its [Install] section counts."""
    found: dict[str, set[str]] = {}
    default = True
    for setting in (one for text in texts for one in settings(text)):
        if setting.section == "Unit" and setting.key == "DefaultDependencies":
            default = setting.value.lower() not in _FALSE
        elif setting.section == "Unit" or (setting.section == "Install" and enabled):
            found.setdefault(setting.key, set()).update(setting.value.split())
    return Unit(
        name,
        after=frozenset(found.get("After", ())),
        before=frozenset(found.get("Before", ())),
        pulls=frozenset(name for key in _PULLS for name in found.get(key, ())),
        wanted_by=frozenset({*found.get("WantedBy", ()), *found.get("RequiredBy", ())}),
        default_dependencies=default,
    )


def started_with(units: Mapping[str, Unit], starts: Iterable[str]) -> set[str]:
    """The names of all units that are started when some are."""
    enabled: dict[str, set[str]] = {}
    for unit in units.values():
        for other in unit.wanted_by:
            enabled.setdefault(other, set()).add(unit.name)
    found: set[str] = set()
    left = list(starts)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        left += enabled.get(name, ())
        if name in units:
            left += units[name].pulls
    return found


def earlier_units(units: Mapping[str, Unit], among: set[str]) -> dict[str, set[str]]:
    """From each unit to those that are started before it, of units that are started together."""
    earlier: dict[str, set[str]] = {name: set() for name in among}
    for unit in (units[name] for name in among if name in units):
        earlier[unit.name] |= unit.after & among
        for later in unit.before & among:
            earlier[later].add(unit.name)
        kind = unit.name.rpartition(".")[2]
        if unit.default_dependencies and kind in ("service", "socket", "timer", "path"):
            first = ("sysinit.target",) if kind != "service" else _EARLY
            earlier[unit.name].update(name for name in first if name in among)
    for number, name in enumerate(_EARLY[1:], 1):
        if name in among and _EARLY[number - 1] in among:
            earlier[name].add(_EARLY[number - 1])
    _targets_wait(units, among, earlier)
    return earlier


def _targets_wait(units: Mapping[str, Unit], among: set[str], earlier: dict[str, set[str]]) -> None:
    """A target is reached after what it pulls in, unless that comes after the target."""
    for name in among:
        if not name.endswith(".target") or (name in units and not units[name].default_dependencies):
            continue
        pulled = set(units[name].pulls) if name in units else set()
        pulled |= {unit.name for unit in units.values() if name in unit.wanted_by}
        for other in pulled & among:
            alone = other in units and not units[other].default_dependencies
            if not alone and name not in earlier[other]:
                earlier[name].add(other)


def find_cycle(units: Mapping[str, Unit], starts: Sequence[str]) -> list[str]:
    """Units that wait for each other when `starts` are started: each for the next, the last for the
    first. Empty when there is no such ring."""
    earlier = earlier_units(units, started_with(units, starts))
    done: set[str] = set()
    for top in sorted(earlier):
        path: list[str] = []
        on_path: set[str] = set()
        left: list[tuple[str, bool]] = [(top, True)]
        while left:
            name, entering = left.pop()
            if not entering:
                path.pop()
                on_path.discard(name)
                done.add(name)
                continue
            if name in on_path:
                return path[path.index(name) :]
            if name in done:
                continue
            path.append(name)
            on_path.add(name)
            left.append((name, False))
            left += [(other, True) for other in sorted(earlier[name])]
    return []


def comes_after(units: Mapping[str, Unit], name: str, other: str) -> bool:
    """Whether a unit waits for another when both are started: directly or by others between."""
    earlier = earlier_units(units, {*units, name, other})
    seen: set[str] = set()
    left = [name]
    while left:
        current = left.pop()
        if current == other:
            return True
        if current not in seen:
            seen.add(current)
            left += earlier[current]
    return False
