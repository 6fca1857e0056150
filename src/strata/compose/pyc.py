"""Byte-compiled Python of the base stays the base's: a `.pyc` that is written anew, for another
time or by a trigger, makes every node image carry it again (requirement R3.3, ostree#1469).
"""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from strata.core import rooted


@dataclass(frozen=True)
class KeptPyc:
    """The `.pyc` files of a root's /usr as they were: path to where the copy is.

    sources: the Python files that were there, compiled or not.
    """

    files: dict[str, Path]
    sources: frozenset[str]

    def restore(self, root: Path) -> list[str]:
        """Put back those that changed and are still beside their source, take away new ones of
        sources that were there; returns their paths.

        What was removed stays removed when its source is gone too.
        """
        restored = []
        for path in _compiled(root):
            name = str(path.relative_to(root))
            if name not in self.files and str(_source(path).relative_to(root)) in self.sources:
                path.unlink()
                restored.append(name)
                if path.parent.name == "__pycache__" and not any(path.parent.iterdir()):
                    path.parent.rmdir()
        for name, copy in sorted(self.files.items()):
            path = root / name
            # A folder that became a link leads elsewhere, perhaps out of the tree.
            if rooted.resolve(root, name) != path or not path.parent.is_dir():
                continue
            if path.is_file() and filecmp.cmp(path, copy, shallow=False):
                continue
            if not path.exists() and not _source(path).exists():
                continue
            path.unlink(missing_ok=True)
            shutil.copy2(copy, path)
            status = copy.stat()
            os.chown(path, status.st_uid, status.st_gid)
            path.chmod(stat.S_IMODE(status.st_mode))
            restored.append(name)
        return restored


def keep_pyc(root: Path, lower: Path) -> KeptPyc:
    """Remember the `.pyc` files of a root. lower: where their bytes stay as they are, as the lower
    side of an overlay mount does, or a folder to copy them to."""
    files = {}
    for path in _compiled(root):
        where = path.relative_to(root)
        copy = lower / where
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
            status = path.stat()
            os.chown(copy, status.st_uid, status.st_gid)
        files[str(where)] = copy
    sources = frozenset(str(path.relative_to(root)) for path in _walk(root, ".py"))
    return KeptPyc(files, sources)


def _compiled(root: Path) -> list[Path]:
    return [path for path in _walk(root, ".pyc") if not path.is_symlink()]


def _walk(root: Path, suffix: str) -> list[Path]:
    """The files of /usr whose names end so, sorted."""
    return sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root / "usr")
        for name in names
        if name.endswith(suffix)
    )


def _source(path: Path) -> Path:
    """The source of a `.pyc`: in the folder above `__pycache__`, or beside it."""
    stem = path.name.split(".")[0] + ".py"
    return path.parent.parent / stem if path.parent.name == "__pycache__" else path.parent / stem
