"""`strata-apply.pyz`: what applies a treefile inside of a container, as one file. Reproducible."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import ruamel.yaml

import strata
from strata.compose.definitions import ROOMS
from strata.core.files import atomic_write

_ENTRY = b"import sys\nfrom strata.compose.apply import main\nsys.exit(main())\n"
_TIME = (1980, 1, 1, 0, 0, 0)


def build_apply(dest: Path) -> Path:
    """Write it to `dest`, with the YAML reader it needs; the same source gives the same bytes."""
    root = Path(strata.__file__).parent
    yaml = Path(ruamel.yaml.__file__).parent
    files = {"strata/__init__.py": root / "__init__.py"}
    for room in ROOMS:
        for path in (root / room).rglob("*"):
            if path.suffix in (".py", ".json"):
                files[f"strata/{path.relative_to(root)}"] = path
    files.update((f"ruamel/yaml/{path.name}", path) for path in yaml.glob("*.py"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _TIME), _ENTRY)
        archive.writestr(zipfile.ZipInfo("ruamel/__init__.py", _TIME), b"")
        for name, path in sorted(files.items()):
            info = zipfile.ZipInfo(name, _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    atomic_write(dest, b"#!/usr/bin/python3\n" + buffer.getvalue(), 0o755)
    return dest
