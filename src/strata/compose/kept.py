"""What steps made, kept between builds: a folder as one archive, under its step's key.

An archive holds all that overlayfs and rpm put there: times to the nanosecond, owners, hard links,
devices, every extended attribute. So what goes on from it cannot tell it from the step itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from strata.compose.steps import Step
from strata.compose.workspace import Workspace
from strata.core.errors import NoSpaceError
from strata.core.events import Reporter
from strata.core.files import fsync_dir
from strata.core.process import run
from strata.rpm.evict import touch
from strata.treefile.target import Target

# Of overlayfs' own attributes, `origin` names a file of a lower side that is gone by then.
_ALL = (
    *("--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*"),
    "--xattrs-exclude=trusted.overlay.origin",
)


class KeptSteps:
    """The kept outputs of one target: for each step the last one that was made.

    A store that only borrows another's things keeps none: what is built there is built in full.
    """

    def __init__(self, workspace: Workspace, target: Target) -> None:
        self._folder = workspace.steps / str(target)
        self._off = workspace.lender is not None

    def restore(self, step: Step, root: Path, reporter: Reporter) -> bool:
        """Fill a new folder with what the step made; False when that is not kept.

        Raises ToolFailedError.
        """
        archive = self._path(step)
        if self._off or not archive.is_file():
            return False
        with reporter.step(f"take what the step {step.name} made before") as told:
            root.mkdir()
            run(["tar", *_ALL, "--same-permissions", "-xf", str(archive), "-C", str(root)])
            touch(archive)
            size = archive.stat().st_size
            told.progress(size, size)
        return True

    def keep(self, step: Step, root: Path, reporter: Reporter) -> None:
        """Keep what the step made, in the place of what it made earlier.

        Where there is no room for it that is told, and the build goes on. Raises ToolFailedError.
        """
        if self._off:
            return
        archive = self._path(step)
        self._folder.mkdir(parents=True, exist_ok=True)
        for earlier in self._folder.glob(f"{step.name}-*"):
            earlier.unlink()
        fresh = archive.with_suffix(".fresh")
        with reporter.step(f"keep what the step {step.name} made") as told:
            try:
                archiving = ["tar", *_ALL, "-cf", str(fresh), "-C", str(root), "."]
                run(archiving, error=_no_room)
                with open(fresh, "rb") as stream:
                    os.fsync(stream.fileno())
                fresh.rename(archive)
                fsync_dir(self._folder)
            except NoSpaceError as error:
                reporter.warn(f"{error.message}: the step {step.name} is not kept")
            else:
                size = archive.stat().st_size
                told.progress(size, size)
            finally:
                fresh.unlink(missing_ok=True)

    def _path(self, step: Step) -> Path:
        return self._folder / f"{step.name}-{step.key.removeprefix('sha256:')}.tar"


def _no_room(output: str) -> NoSpaceError | None:
    """tar does not say what a write fell short for: of a file it just made, it is the disk."""
    if "Wrote only" in output:
        return NoSpaceError("no space left on the device")
    return None
