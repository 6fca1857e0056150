"""What an Ignition config puts on a machine, with the configs it merges: files, units, links.

A merged config's files and units replace those of the same name, drop-ins those of the same name in
the same unit, as Ignition merges them (its documentation, "Config merging"). What is somewhere else
than in the config is named, and not fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from strata.bootimage.ignition import UNIT_FOLDER
from strata.bootimage.ignition.resource import decode, parse_config
from strata.core.errors import DefinitionError

MAX_DEPTH = 8
_LINKED = (".wants", ".requires")


@dataclass
class UnitTexts:
    """A unit's own text and its drop-ins by name; enabled: whether its [Install] section counts."""

    text: str = ""
    drop_ins: dict[str, str] = field(default_factory=dict)
    enabled: bool = False

    def texts(self) -> list[tuple[str, str]]:
        """The unit's file and its drop-ins in systemd's order, with a name for each."""
        return [("", self.text), *sorted(self.drop_ins.items())]


@dataclass(frozen=True)
class Contents:
    """A machine's files by path and units by name. elsewhere: sources that were not looked into."""

    files: dict[str, bytes] = field(default_factory=dict)
    units: dict[str, UnitTexts] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)

    def unit(self, name: str) -> UnitTexts:
        """A unit, made when it is not there."""
        return self.units.setdefault(name, UnitTexts())


def read_contents(data: bytes, where: str) -> Contents:
    """Everything a config has. where: its name. Raises DefinitionError."""
    found = Contents()
    _read(data, where, found, 0)
    return found


def _read(data: bytes, where: str, found: Contents, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise DefinitionError(f"{where}: configs merge each other more than {MAX_DEPTH} deep")
    document = parse_config(data, where)
    config = _object(document["ignition"], "config", f"{where}: ignition")
    replaced = config.get("replace")
    if isinstance(replaced, dict) and replaced.get("source"):
        _read_child(replaced, f"{where}: ignition.config.replace", found, depth)
        return
    _own(document, where, found)
    for number, entry in enumerate(_list(config, "merge", where)):
        _read_child(entry, f"{where}: ignition.config.merge[{number}]", found, depth)


def _read_child(entry: Mapping[str, Any], where: str, found: Contents, depth: int) -> None:
    child = decode(entry, where)
    if child is None:
        found.elsewhere.append(str(entry["source"]))
    elif child:
        _read(child, where, found, depth + 1)


def _own(document: Mapping[str, Any], where: str, found: Contents) -> None:
    storage = _object(document, "storage", where)
    for number, entry in enumerate(_list(storage, "files", where)):
        _file(entry, f"{where}: storage.files[{number}]", found)
    for number, entry in enumerate(_list(storage, "links", where)):
        path = _text(entry, "path", f"{where}: storage.links[{number}]")
        _link(path, found)
    for number, entry in enumerate(_list(_object(document, "systemd", where), "units", where)):
        _unit(entry, f"{where}: systemd.units[{number}]", found)


def _file(entry: Mapping[str, Any], where: str, found: Contents) -> None:
    path = _text(entry, "path", where)
    parts = [entry.get("contents") or {}, *_list(entry, "append", where)]
    data = b""
    for part in parts:
        piece = decode(part, f"{where} ({path})")
        if piece is None:
            found.elsewhere.append(str(part["source"]))
        else:
            data += piece
    name, slash, inner = path[len(UNIT_FOLDER) :].partition("/")
    if not path.startswith(UNIT_FOLDER):
        found.files[path] = data
    elif not slash:
        found.unit(name).text = data.decode("utf-8", "replace")
    elif name.endswith(".d"):
        found.unit(name[:-2]).drop_ins[inner] = data.decode("utf-8", "replace")


def _link(path: str, found: Contents) -> None:
    """A link in X.wants makes X pull in what it is named after."""
    folder, _, name = path.rpartition("/")
    owner, dot, kind = folder[len(UNIT_FOLDER) :].rpartition(".")
    if path.startswith(UNIT_FOLDER) and dot + kind in _LINKED:
        found.unit(owner).drop_ins[f"{kind}/{name}"] = f"[Unit]\nWants={name}\n"


def _unit(entry: Mapping[str, Any], where: str, found: Contents) -> None:
    unit = found.unit(_text(entry, "name", where))
    if isinstance(entry.get("contents"), str):
        unit.text = entry["contents"]
    if entry.get("mask") is True:
        unit.text, unit.drop_ins, unit.enabled = "", {}, False
    if isinstance(entry.get("enabled"), bool):
        unit.enabled = entry["enabled"]
    for number, one in enumerate(_list(entry, "dropins", where)):
        name = _text(one, "name", f"{where}.dropins[{number}]")
        unit.drop_ins[name] = str(one.get("contents") or "")


def _object(value: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise DefinitionError(f"{where}: {key} is not an object")
    return found


def _list(value: Mapping[str, Any], key: str, where: str) -> Iterator[Mapping[str, Any]]:
    found = value.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DefinitionError(f"{where}: {key} is not a list of objects")
    return iter(found)


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise DefinitionError(f"{where}: {key} is missing or no text")
    return found
