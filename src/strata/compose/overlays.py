"""Overlay folders (`ostree-layers`) copied onto a root: names, modes and links, nothing else.

The definitions live in git, which keeps only the executable bit: files land 0644 or 0755, folders
0755, all root's, unless a `statoverride` file says otherwise (requirements R1.12 and R1.13).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile.overlay import list_overlay


def apply_overlay(root: Path, overlay: Path) -> int:
    """Copy an overlay onto a root. Returns how many files and links were written.

    Raises DefinitionError when the overlay would replace a folder by a file or the reverse.
    """
    written = 0
    for entry in list_overlay(overlay):
        target = _inside(root, entry.path, follow_last=entry.kind == "dir")
        if entry.kind == "dir":
            if not target.is_dir():
                target.mkdir(parents=True)
                target.chmod(entry.mode)
            continue
        if target.is_dir() and not target.is_symlink():
            raise DefinitionError(
                f"the overlay {overlay.name} has a file where the tree has a folder: /{entry.path}",
                context={"file": overlay / entry.path},
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if entry.kind == "symlink":
            os.symlink(entry.target, target)
        else:
            shutil.copyfile(overlay / entry.path, target)
            target.chmod(entry.mode)
        os.lchown(target, 0, 0)
        written += 1
    return written


def _inside(root: Path, path: str, *, follow_last: bool) -> Path:
    """Where a path of the overlay lands: links on the way are followed, but only inside root."""
    parts = path.split("/")
    place = root
    for position, part in enumerate(parts):
        step = place / part
        if step.is_symlink() and (follow_last or position < len(parts) - 1):
            link = os.readlink(step)
            joined = root / link.lstrip("/") if link.startswith("/") else place / link
            step = Path(os.path.normpath(joined))
            if root not in (step, *step.parents):
                raise DefinitionError(f"the overlay's /{path} leads out of the tree by {part}")
        place = step
    return place
