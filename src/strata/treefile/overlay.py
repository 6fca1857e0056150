"""Overlay folders: what they hold, with the modes git and `statoverride` give, and their digest.

git keeps only whether a file is executable: files count as 0644 or 0755 and folders as 0755. A
`statoverride` file at the top says otherwise, `=MODE PATH` a line with MODE in DECIMAL, and is not
shipped (requirement R1.13).
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.core.files import sha256_file

STATOVERRIDE = "statoverride"


@dataclass(frozen=True, order=True)
class OverlayEntry:
    """One entry. path: relative, `/` between parts; kind: dir, file or symlink."""

    path: str
    kind: str
    mode: int
    target: str = ""


def list_overlay(folder: Path) -> tuple[OverlayEntry, ...]:
    """The entries of an overlay, folders before what is in them.

    Raises DefinitionError on special files and on a statoverride that names nothing.
    """
    overrides = _statoverride(folder)
    entries: list[OverlayEntry] = []
    for base, subdirs, files in os.walk(folder):
        subdirs.sort()
        for name in sorted([*subdirs, *files]):
            path = Path(base) / name
            where = str(path.relative_to(folder))
            if where == STATOVERRIDE:
                continue
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                entries.append(OverlayEntry(where, "symlink", 0o777, os.readlink(path)))
            elif stat.S_ISDIR(status.st_mode):
                entries.append(OverlayEntry(where, "dir", overrides.pop(where, 0o755)))
            elif stat.S_ISREG(status.st_mode):
                mode = 0o755 if status.st_mode & 0o111 else 0o644
                entries.append(OverlayEntry(where, "file", overrides.pop(where, mode)))
            else:
                raise DefinitionError(f"{path} is neither a file nor a folder nor a link")
    if overrides:
        missing = sorted(overrides)[0]
        raise DefinitionError(
            f"{folder.name}/{STATOVERRIDE} names /{missing}, which the overlay does not have",
            context={"file": folder / STATOVERRIDE},
        )
    return tuple(sorted(entries))


def overlay_digest(folder: Path) -> str:
    """sha256 over paths, kinds, modes, link targets and contents, as 64 hex digits."""
    total = hashlib.sha256()
    for entry in list_overlay(folder):
        content = sha256_file(folder / entry.path) if entry.kind == "file" else entry.target
        total.update(f"{entry.path}\0{entry.kind}\0{entry.mode:o}\0{content}\n".encode())
    return total.hexdigest()


def _statoverride(folder: Path) -> dict[str, int]:
    path = folder / STATOVERRIDE
    if not path.exists():
        return {}
    modes = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        mode, _, name = text.partition(" ")
        if not mode.startswith("=") or not mode[1:].isdigit() or int(mode[1:]) > 0o7777:
            raise DefinitionError(
                f"{folder.name}/{STATOVERRIDE}:{number}: {line!r} is not `=MODE PATH`",
                hint="the mode is decimal: =288 is 0440",
                context={"file": path, "line": number},
            )
        modes[name.strip().lstrip("/")] = int(mode[1:])
    return modes
