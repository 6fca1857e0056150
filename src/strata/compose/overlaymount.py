"""An overlay mount over a base tree, unmounted however the block ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.core.process import run


@dataclass(frozen=True)
class OverlayMount:
    """merged: the mounted root. upper: what was changed, as overlayfs keeps it."""

    merged: Path
    upper: Path


@contextmanager
def overlay_mount(lower: Path, scratch: Path) -> Iterator[OverlayMount]:
    """Mount an overlay of `lower` with a fresh upper side in `scratch`.

    Directories that are replaced become opaque; renames of lower directories are copied (no
    redirects, no metadata-only copies), so that the upper side alone says what changed.
    """
    upper, work, merged = (scratch / name for name in ("upper", "work", "merged"))
    for folder in (upper, work, merged):
        folder.mkdir()
    status = lower.stat()
    upper.chmod(status.st_mode & 0o7777)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    options += ",redirect_dir=off,metacopy=off,index=off"
    run(["mount", "-t", "overlay", "strata", "-o", options, str(merged)])
    try:
        yield OverlayMount(merged, upper)
    finally:
        run(["umount", str(merged)])
