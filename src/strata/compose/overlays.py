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
        target = _inside(root, entry.path)
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


def _inside(root: Path, path: str) -> Path:
    """Where a path of the overlay lands: its folders' links are followed, but only inside root."""
    parent = root
    parts = path.split("/")
    for part in parts[:-1]:
        step = parent / part
        if step.is_symlink():
            link = os.readlink(step)
            step = Path(
                os.path.normpath(root / link.lstrip("/") if link.startswith("/") else parent / link)
            )
            if root not in (step, *step.parents):
                raise DefinitionError(f"/{path} leads out of the tree through {part}")
        parent = step
    return parent / parts[-1]
