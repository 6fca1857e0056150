"""Ignition configs: values in, the JSON of specification 3.3.0 out.

Source: the Ignition configuration specification v3.3.0.
"""

from __future__ import annotations

import base64
import gzip
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strata.core.files import canonical_json

SPEC = "3.3.0"
_COMPRESS_ABOVE_BYTES = 1024


@dataclass(frozen=True)
class File:
    """A file of the machine. path: absolute."""

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Config:
    """What a machine's first boot makes. links: from a path to what it links to. users: a name and
    its ssh keys; groups: those that the users are in. merge: further configs, as they are.
    """

    files: Sequence[File] = ()
    links: Sequence[tuple[str, str]] = ()
    users: Sequence[tuple[str, Sequence[str]]] = ()
    groups: Sequence[str] = ()
    units: Sequence[tuple[str, str]] = ()
    merge: Sequence[bytes] = field(default=())

    def to_bytes(self) -> bytes:
        """Canonical JSON; what is empty is left out."""
        storage = {
            "files": [
                {"path": file.path, "mode": file.mode, "overwrite": True, "contents": _data(file)}
                for file in self.files
            ],
            "links": [
                {"path": path, "target": target, "overwrite": True} for path, target in self.links
            ],
        }
        users = [
            {
                "name": name,
                "sshAuthorizedKeys": list(keys),
                **({"groups": list(self.groups)} if self.groups and name != "root" else {}),
            }
            for name, keys in self.users
        ]
        units = [{"name": name, "enabled": True, "contents": text} for name, text in self.units]
        merge = [{"source": _url(config)} for config in self.merge]
        ignition: dict[str, object] = {"version": SPEC}
        if merge:
            ignition["config"] = {"merge": merge}
        document = {
            "ignition": ignition,
            "storage": {key: value for key, value in storage.items() if value},
            "passwd": {"users": users} if users else {},
            "systemd": {"units": units} if units else {},
        }
        return canonical_json({key: value for key, value in document.items() if value})


def tree_config(folder: Path) -> Config:
    """A folder's files and links as a config's, modes kept."""
    files, links = [], []
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(parent) / name
            where = f"/{path.relative_to(folder)}"
            if path.is_symlink():
                links.append((where, os.readlink(path)))
            else:
                mode = stat.S_IMODE(path.stat().st_mode)
                files.append(File(where, path.read_bytes(), mode))
    return Config(files, links)


def _data(file: File) -> dict[str, str]:
    if len(file.data) > _COMPRESS_ABOVE_BYTES:
        return {"source": _url(gzip.compress(file.data, 9, mtime=0)), "compression": "gzip"}
    return {"source": _url(file.data)}


def _url(data: bytes) -> str:
    return "data:;base64," + base64.b64encode(data).decode()
