"""Ordering cycles among a machine's units: systemd drops a unit of each, and says so only in its
journal (requirement R6.22)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.core.systemd import Unit, find_cycle, parse_unit
from strata.node.units import OVERLAY, TARGET, UNIT_FOLDER, UnitFile

# The first that has a unit is the one; drop-ins and links of all of them count (systemd.unit(5)).
UNIT_FOLDERS = (UNIT_FOLDER, "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
MAX_UNIT_BYTES = 1 << 20


def read_units(root: Path, coming: Sequence[UnitFile] = ()) -> dict[str, Unit]:
    """The units below a root, with their drop-ins and what `systemctl enable` linked; [Install]
    sections are wishes, and do not count.

    coming: files that are about to be written there.
    """
    texts = {file.name: [file.text] for file in coming if file.path == f"{UNIT_FOLDER}/{file.name}"}
    folders = [root / name for name in UNIT_FOLDERS if (root / name).is_dir()]
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        # A masked unit, a link to /dev/null, reads as one that says nothing.
        if path.name not in texts and (path.is_file() or path.is_char_device()):
            texts[path.name] = [_read(path)]
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        owner, dot, kind = path.name.rpartition(".")
        if dot and path.is_dir():
            if kind == "d":
                texts.setdefault(owner, []).extend(map(_read, sorted(path.glob("*.conf"))))
            elif kind in ("wants", "requires"):
                names = " ".join(sorted(link.name for link in path.iterdir()))
                texts.setdefault(owner, []).append(f"[Unit]\nWants={names}\n")
    return {name: parse_unit(name, *found, enabled=False) for name, found in texts.items()}


def _read(path: Path) -> str:
    with open(path, "rb") as stream:
        return stream.read(MAX_UNIT_BYTES).decode("utf-8", "replace")


def require_order(units: dict[str, Unit]) -> None:
    """Raise DefinitionError naming the units that wait for each other in a ring, when some do."""
    ring = find_cycle(units, [TARGET if TARGET in units else OVERLAY])
    if not ring:
        return
    shown = " after ".join([*ring, ring[0]])
    raise DefinitionError(
        f"the units wait for each other: {shown}",
        hint="systemd would drop one of them; take an After= or Before= away",
        context={"units": " ".join(ring)},
    )
