"""An overlay mount over a base tree, unmounted however the block ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.core.process import run

UPPER = "upper"


@dataclass(frozen=True)
class OverlayMount:
    """merged: the mounted root. upper: what was changed, as overlayfs keeps it."""

    merged: Path
    upper: Path


@contextmanager
def overlay_mount(lower: Path, scratch: Path) -> Iterator[OverlayMount]:
    """Mount an overlay of `lower` with an upper side in `scratch`: the folder UPPER there, else a
    fresh one.

    Directories that are replaced become opaque; renames of lower directories are copied (no
    redirects, no metadata-only copies), so that the upper side alone says what changed.
    """
    upper, work, merged = (scratch / name for name in (UPPER, "work", "merged"))
    for folder in (work, merged):
        folder.mkdir()
    if not upper.exists():
        upper.mkdir()
        upper.chmod(lower.stat().st_mode & 0o7777)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    options += ",redirect_dir=off,metacopy=off,index=off"
    run(["mount", "-t", "overlay", "strata", "-o", options, str(merged)])
    try:
        yield OverlayMount(merged, upper)
    finally:
        run(["umount", str(merged)])
