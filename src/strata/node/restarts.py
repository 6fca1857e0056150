"""Which running services use files that the node image changes, and what becomes of each.

A service is found by its processes' cgroup. Of each process the files that it executes from, its
binary and its libraries, are those mapped executable in /proc/PID/maps; one below /usr is changed
when the new /usr has another inode and other bytes there, or nothing. Processes with a root of
their own, containers, are not looked at, nor those that the kernel lets nobody look into.

A service is restarted when a rule of node.json says so, and sshd without one: it starts itself
anew for each connection, and an old one fails on new libraries (requirement R6.13). All others
are left, and told. A unit of `keep` is never touched (R6.11).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from strata.core.files import sha256_file
from strata.node.config import LEAVE, RESTART, NodeConfig

SSHD = ("ssh.service", "sshd.service")
# Restarting these would end the overlay that asks for it.
OWN = "node-image-*"
PROC = Path("/proc")


@dataclass(frozen=True)
class Mapped:
    """A file that a process executes from. path: absolute, as the process sees it; key: device and
    inode, as /proc shows them; inside: where its bytes can be read though it be covered or gone."""

    path: str
    key: str
    inside: Path


@dataclass(frozen=True)
class Restart:
    """A running service whose files change. action: RESTART or LEAVE; files: below /usr, sorted;
    reason: in words."""

    unit: str
    action: str
    reason: str
    files: tuple[str, ...]


def plan(changed: Mapping[str, Iterable[str]], config: NodeConfig) -> tuple[Restart, ...]:
    """What becomes of each service. changed: unit → the files that it uses and that change."""
    return tuple(
        Restart(unit, *_decide(unit, config), tuple(sorted(set(changed[unit]))))
        for unit in sorted(changed)
    )


def _decide(unit: str, config: NodeConfig) -> tuple[str, str]:
    if fnmatchcase(unit, OWN):
        return LEAVE, "it is the agent's own"
    if config.keeps(unit):
        return LEAVE, "node.json keeps it"
    rule = config.restart_rule(unit)
    if rule is not None:
        return rule, "a rule of node.json"
    if unit in SSHD:
        return RESTART, "an old sshd fails on new libraries"
    return LEAVE, "no rule says otherwise"


def changed_files(usr: str, new_usr: str, proc: Path = PROC) -> dict[str, set[str]]:
    """Service → the files below `usr` that it runs from and that are others in `new_usr`."""
    found: dict[str, set[str]] = {}
    known: dict[tuple[str, str], bool] = {}
    for unit, files in _services(proc):
        for item in files:
            if not item.path.startswith(usr + "/"):
                continue
            there = new_usr + item.path[len(usr) :]
            if known.get((item.key, there)) is None:
                known[item.key, there] = _differs(item, there)
            if known[item.key, there]:
                found.setdefault(unit, set()).add(item.path[len(usr) + 1 :])
    return found


def _differs(item: Mapped, there: str) -> bool:
    try:
        new = os.stat(there)
    except (FileNotFoundError, NotADirectoryError):
        return True
    device = f"{os.major(new.st_dev):02x}:{os.minor(new.st_dev):02x}"
    if item.key == f"{device} {new.st_ino}":
        return False
    try:
        old = os.stat(item.inside)
        return old.st_size != new.st_size or sha256_file(item.inside) != sha256_file(Path(there))
    except FileNotFoundError:
        return False  # the process has ended, or has let go of the file


def _services(proc: Path) -> Iterator[tuple[str, list[Mapped]]]:
    """The services' processes: the unit, and the files each executes from."""
    root = os.stat("/")
    for folder in sorted(proc.iterdir()):
        if not folder.name.isdigit():
            continue
        try:
            unit = unit_of((folder / "cgroup").read_text(encoding="utf-8", errors="replace"))
            if unit and os.path.samestat(root, os.stat(folder / "root")):
                yield unit, list(mapped(folder))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is not ours to see


def unit_of(cgroup: str) -> str:
    """The service in /proc/PID/cgroup; empty when there is none."""
    for line in cgroup.splitlines():
        for name in line.rpartition(":")[2].split("/"):
            if name.endswith(".service"):
                return name
    return ""


def mapped(folder: Path) -> Iterator[Mapped]:
    """The files that a process executes from. folder: /proc/PID."""
    text = (folder / "maps").read_text(encoding="utf-8", errors="surrogateescape")
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6 or "x" not in fields[1] or not fields[5].startswith("/"):
            continue
        begin, _, end = fields[0].partition("-")
        inside = folder / "map_files" / f"{int(begin, 16):x}-{int(end, 16):x}"
        path = fields[5].removesuffix(" (deleted)")
        yield Mapped(path, f"{fields[3]} {fields[4]}", inside)


def carry_out(planned: Iterable[Restart], run: Callable[[list[str]], object]) -> None:
    """Have systemd restart what is to be, without waiting: it may be what we were started from."""
    units = [item.unit for item in planned if item.action == RESTART]
    if units:
        run(["systemctl", "--no-block", "try-restart", *units])
