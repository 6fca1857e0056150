"""What a build knows: the project, the store, the architecture, and how much to do at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strata.compose.sandbox import BeforeShell
from strata.compose.workspace import Workspace
from strata.core.errors import PackageError, UsageError
from strata.core.events import Reporter
from strata.core.record import BuildRecord
from strata.ostree.checkout import checkout
from strata.ostree.tree import Tree
from strata.rpm.inventory import RPMDB_FOLDER
from strata.treefile.project import Project
from strata.treefile.target import Target

if TYPE_CHECKING:
    from strata.compose.job import Job

NATIVE, BUILDAH = ENGINES = ("native", "buildah")


def hermetic(context: BuildContext, file: Path) -> BuildContext:
    """The context of a build whose repositories are those of one .repo file, and no others (R2.15).

    Treefiles find theirs there by the same ids. Raises UsageError when the file is not there.
    """
    if not file.is_file():
        raise UsageError(
            f"there is no file {file}", hint="name the .repo file of what was prefetched"
        )
    return replace(context, project=replace(context.project, repos=(str(file.absolute()),)))


@dataclass(frozen=True)
class BuildContext:
    """One `strata build`.

    jobs: threads for compression and hashing. dev: it is a developer's. before_shell: on a
    script's failure a shell opens in its sandbox, see `run_script`. engine: one of ENGINES, builds
    node layers. secrets: `id=…,src=…`, for a Containerfile's steps. makers: what prepares a kind
    of target that another room builds.
    """

    project: Project
    workspace: Workspace
    arch: str
    jobs: int
    dev: bool = False
    before_shell: BeforeShell | None = None
    engine: str = NATIVE
    secrets: tuple[str, ...] = ()
    makers: Mapping[str, Maker] = field(default_factory=dict)

    def record(self, target: Target) -> BuildRecord | None:
        """The record of the target's last build, or None when it was never built here."""
        path = self.workspace.record_path(str(target))
        return BuildRecord.load(path) if path.exists() else None

    def packages_of(self, commit: str, root: Path) -> Path:
        """A root with nothing but a commit's package database: enough to solve on top of it."""
        repo = self.workspace.repo()
        database = Tree.load(repo, commit).folder(RPMDB_FOLDER)
        if database is None:
            raise PackageError(
                f"commit {commit[:12]} has no package database at /{RPMDB_FOLDER}",
                hint="a base image must carry one there",
            )
        target = root / RPMDB_FOLDER
        target.parent.mkdir(parents=True)
        checkout(repo, database, str(target), link=False)
        return root


Maker = Callable[[BuildContext, Target, Reporter], "Job"]
