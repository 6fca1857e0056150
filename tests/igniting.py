"""An Ignition config's files and units laid down below a folder, as at a first boot."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any


def lay_down(config: bytes, root: Path) -> Path:
    """Write everything the config has; returns the root."""
    document = json.loads(config)
    for file in document.get("storage", {}).get("files", []):
        _write(root / file["path"].lstrip("/"), _content(file["contents"]), file["mode"])
    units = root / "etc/systemd/system"
    for unit in document.get("systemd", {}).get("units", []):
        if "contents" in unit:
            _write(units / unit["name"], unit["contents"].encode(), 0o644)
        for one in unit.get("dropins", []):
            _write(units / f"{unit['name']}.d" / one["name"], one["contents"].encode(), 0o644)
    return root


def _content(entry: dict[str, Any]) -> bytes:
    data = base64.b64decode(entry["source"].partition(",")[2])
    return gzip.decompress(data) if entry.get("compression") == "gzip" else data


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
