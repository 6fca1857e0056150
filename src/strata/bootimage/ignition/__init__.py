"""Ignition configs: values in, the JSON of specification 3.3.0 out.

Source: the Ignition configuration specification v3.3.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from strata.bootimage.ignition.resource import encode
from strata.core.files import canonical_json

SPEC = "3.3.0"
# Units and drop-ins below it belong into the section of units: merged configs replace them there.
UNIT_FOLDER = "/etc/systemd/system/"


@dataclass(frozen=True)
class File:
    """A file of the machine. path: absolute."""

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Config:
    """What a machine's first boot makes. users: a name and its ssh keys; groups: those that the
    users are in. units: a name and a text, enabled; unit_files: units and drop-ins by their paths,
    which something else starts. merge: further configs, as they are.
    """

    files: Sequence[File] = ()
    users: Sequence[tuple[str, Sequence[str]]] = ()
    groups: Sequence[str] = ()
    units: Sequence[tuple[str, str]] = ()
    unit_files: Sequence[File] = ()
    merge: Sequence[bytes] = field(default=())

    def to_bytes(self) -> bytes:
        """Canonical JSON; what is empty is left out."""
        files = [
            {
                "path": file.path,
                "mode": file.mode,
                "overwrite": True,
                "contents": encode(file.data),
            }
            for file in self.files
        ]
        users = [
            {
                "name": name,
                "sshAuthorizedKeys": list(keys),
                **({"groups": list(self.groups)} if self.groups and name != "root" else {}),
            }
            for name, keys in self.users
        ]
        units = [{"name": name, "enabled": True, "contents": text} for name, text in self.units]
        units += _not_enabled(self.unit_files)
        merge = [encode(config) for config in self.merge]
        ignition: dict[str, object] = {"version": SPEC}
        if merge:
            ignition["config"] = {"merge": merge}
        document = {
            "ignition": ignition,
            "storage": {"files": files} if files else {},
            "passwd": {"users": users} if users else {},
            "systemd": {"units": units} if units else {},
        }
        return canonical_json({key: value for key, value in document.items() if value})


def _not_enabled(files: Sequence[File]) -> list[dict[str, Any]]:
    units: dict[str, dict[str, Any]] = {}
    for file in files:
        name, _, inner = file.path[len(UNIT_FOLDER) :].partition("/")
        text = file.data.decode()
        if inner:
            owner = name.rpartition(".d")[0]
            unit = units.setdefault(owner, {"name": owner})
            unit.setdefault("dropins", []).append({"name": inner, "contents": text})
        else:
            units.setdefault(name, {"name": name})["contents"] = text
    return list(units.values())
