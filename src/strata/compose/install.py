"""Packages, overlays and scripts go into a root: the part of a compose that all layers share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from strata.compose.content import add_files, enable_units, remove_from_packages
from strata.compose.definitions import Definition
from strata.compose.overlays import apply_overlay
from strata.compose.sandbox import run_script
from strata.compose.users import check_users
from strata.compose.workspace import Workspace
from strata.core import rooted
from strata.core.events import Reporter
from strata.rpm.cache import PackageCache
from strata.rpm.evict import in_use
from strata.rpm.install import install
from strata.rpm.inventory import read_inventory
from strata.rpm.lock import Lock


def populate(
    root: Path,
    definition: Definition,
    lock: Lock,
    workspace: Workspace,
    *,
    source_date_epoch: int,
    reporter: Reporter,
) -> None:
    """Install a lock's packages, take out what is not wanted of them, apply the overlays and what
    else the treefile adds, run the scripts, in that order.

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
                )
                step.detail(f"{len(paths)} packages")
    if "remove-from-packages" in treefile.fields:
        with reporter.step("remove files of packages") as step:
            removed = remove_from_packages(root, treefile, read_inventory(root))
            step.detail(f"{removed} files")
    check_users(root, treefile, definition.folder)
    for name in treefile.remove_files:
        rooted.remove(root, name)
    for name, path in definition.overlays:
        with reporter.step(f"apply {name}") as step:
            step.detail(f"{apply_overlay(root, path)} files")
    add_files(root, treefile.files, definition.folder)
    enable_units(root, treefile)
    environment = _environment(treefile.metadata, source_date_epoch)
    scripts = [(script.text, str(script.source)) for script in treefile.postprocess]
    for item in treefile.files:
        if item.field == "postprocess-script":
            text = (definition.folder / item.path).read_text(encoding="utf-8")
            scripts.append((text, item.path))
    for text, source in scripts:
        with reporter.step(f"run the script at {source}"):
            run_script(root, text, source=source, env=environment)


def _environment(metadata: Mapping[str, object], source_date_epoch: int) -> dict[str, str]:
    """What a postprocess script may know: the treefile's name, and the build's time."""
    env = {"SOURCE_DATE_EPOCH": str(source_date_epoch)}
    name = metadata.get("name")
    if isinstance(name, str):
        env["NAME"] = name
    return env
