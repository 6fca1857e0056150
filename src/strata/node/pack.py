"""`strata-node.pyz`: the agent as one file, of just the rooms it may import. Reproducible.

Use: `python -m strata.node.pack build/strata-node.pyz`.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import strata
from strata.core.files import atomic_write

SHEBANG = b"#!/usr/bin/python3 -IS\n"
ROOMS = ("core", "oci", "ostree", "node")
CONTAINER = (
    "__init__",
    "derived",
    "importbase",
    "importer",
    "importplan",
    "labels",
    "layerreads",
    "layout_v1",
    "refs",
    "selinux",
    "stored",
)
_ENTRY = b"import sys\nfrom strata.node.cli import main\nsys.exit(main())\n"
_TIME = (1980, 1, 1, 0, 0, 0)


def agent_modules() -> list[Path]:
    """The agent's source files, sorted: what must stay standard library and Python 3.9."""
    root = Path(strata.__file__).parent
    found = [root / "__init__.py"]
    for room in ROOMS:
        found += [path for path in (root / room).rglob("*") if path.suffix in (".py", ".in")]
    found += [root / "container" / f"{name}.py" for name in CONTAINER]
    return sorted(path for path in found if path.name != "pack.py")


def build_zipapp(dest: Path) -> Path:
    """Write the agent to `dest`, executable; the same source gives the same bytes."""
    root = Path(strata.__file__).parent.parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _TIME), _ENTRY)
        for path in agent_modules():
            info = zipfile.ZipInfo(str(path.relative_to(root)), _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    atomic_write(dest, SHEBANG + buffer.getvalue(), 0o755)
    return dest


if __name__ == "__main__":
    build_zipapp(Path(sys.argv[1]))
