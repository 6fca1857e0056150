"""Packages, overlays and scripts go into a root: the part of a compose that all layers share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from strata.compose.arrange import arrange
from strata.compose.definitions import Definition
from strata.compose.sandbox import BeforeShell, run_script
from strata.compose.workspace import Workspace
from strata.core.events import Reporter
from strata.rpm.cache import PackageCache
from strata.rpm.evict import in_use
from strata.rpm.install import install
from strata.rpm.lock import Lock


def populate(
    root: Path,
    definition: Definition,
    lock: Lock,
    workspace: Workspace,
    *,
    source_date_epoch: int,
    before_shell: BeforeShell | None = None,
    reporter: Reporter,
    before_scripts: Callable[[], None] = lambda: None,
    name: str = "",
) -> None:
    """Install a lock's packages, take out what is not wanted of them, apply the overlays and what
    else the treefile adds, run the scripts, in that order.

    before_scripts: adds what the scripts may read and change. name: what scripts know as NAME,
    empty for the treefile's. before_shell: see `run_script`.
    Raises RepositoryError, DigestError, SignatureError, OfflineError, PackageError,
    ToolFailedError, DefinitionError, TreeError.
    """
    treefile = definition.treefile
    with in_use(workspace.packages):
        with reporter.step("fetch packages") as step:
            paths = PackageCache(workspace.packages).fetch(lock, definition.repos)
            step.detail(f"{len(paths)} packages")
        if paths:
            with reporter.step("install packages") as step:
                install(
                    root,
                    [paths[package.nevra] for package in lock.packages],
                    arch=lock.arch,
                    source_date_epoch=source_date_epoch,
                    documentation=treefile.documentation,
                    scratch=workspace.work,
                    step=step,
                    replaces=definition.amendment.names,
                )
                step.detail(f"{len(paths)} packages")
    arrange(
        root,
        definition,
        run=partial(run_script, root, before_shell=before_shell),
        source_date_epoch=source_date_epoch,
        reporter=reporter,
        before_scripts=before_scripts,
        name=name,
    )
