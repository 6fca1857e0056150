"""Overlay folders (`ostree-layers`) copied onto a root: names, modes and links, nothing else.

The definitions live in git, which keeps only the executable bit: files land 0644 or 0755, folders
0755, all root's, unless a `statoverride` file says otherwise (requirements R1.12 and R1.13).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.core.rooted import resolve
from strata.treefile.overlay import list_overlay


def apply_overlay(root: Path, overlay: Path) -> int:
    """Copy an overlay onto a root. Returns how many files and links were written.

    Links of the root are followed as in a chroot of it. Raises DefinitionError when the overlay
    would replace a folder by a file or the reverse, TreeError when links go in a circle.
    """
    written = 0
    for entry in list_overlay(overlay):
        target = resolve(root, entry.path, follow_last=entry.kind == "dir")
        if entry.kind == "dir":
            if os.path.lexists(target) and not target.is_dir():
                raise DefinitionError(
                    f"the overlay {overlay.name} has a folder where the tree has a file: "
                    f"/{entry.path}",
                    context={"file": overlay / entry.path},
                )
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
