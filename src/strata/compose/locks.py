"""The lock of a layer: the one its definitions keep, or solved at the build.

A kept lock decides alone: nothing is solved, and newer packages in the repositories do not count.
It has to be of what the treefile asks, and to go with the layer below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.context import BuildContext
from strata.compose.definitions import Definition
from strata.core.errors import DefinitionError, PackageError
from strata.core.events import Reporter
from strata.core.files import atomic_write
from strata.core.text import shortened
from strata.rpm.inventory import read_inventory
from strata.rpm.lock import Lock, LockFile, find_line
from strata.rpm.nevra import NEVRA
from strata.rpm.solve import Below
from strata.treefile.project import Project
from strata.treefile.target import Target


def lock_for(
    context: BuildContext,
    target: Target,
    definition: Definition,
    root: Path | None,
    reporter: Reporter,
    there: Sequence[NEVRA] | None = None,
) -> Lock:
    """The packages to install in a layer, on top of those of a root (None for none).

    there: the root's packages, when they were read already.
    Raises DefinitionError (the kept lock does not match), PackageError, RepositoryError.
    """
    file = context.project.lock_of(target)
    title = f"read {file}" if file else f"solve {target}"
    with reporter.step(title) as step:
        if file:
            kept = kept_lock(context.project, target, context.arch)
            check_asked(kept, definition, target, context.project)
            if there is None:
                there = read_inventory(root).nevras() if root else ()
            lock = _on(kept, there, target, context.project, definition.amendment.names)
        else:
            lock = definition.lock(
                arch=context.arch,
                workspace=context.workspace,
                below=Below(root=root),
            )
        on = " on top of the base" if target.kind == "node" else ""
        step.detail(f"{len(lock.packages)} packages{on}")
    return lock


def load_kept(project: Project, file: str) -> LockFile:
    """A lock file of the definitions; empty when it is not there yet. Raises DefinitionError."""
    path = project.path / file
    return LockFile.load(path) if path.exists() else LockFile({})


def kept_lock(project: Project, target: Target, arch: str) -> Lock:
    """A target's lock in the file that its definitions name. Raises DefinitionError."""
    file = project.lock_of(target)
    locks = load_kept(project, file)
    found = locks.locks.get((str(target), arch))
    if found is None:
        arches = ", ".join(locks.arches(str(target)))
        raise DefinitionError(
            f"{file} has no lock of {target} for {arch}",
            hint=f"make it: strata lock update {target} --arch {arch}"
            + (f" (it has {arches})" if arches else ""),
            context={"file": file},
        )
    return found


def check_asked(lock: Lock, definition: Definition, target: Target, project: Project) -> None:
    """A kept lock is of what the treefile asks. Raises DefinitionError saying what moved."""
    changes = lock.asked.changes(definition.asked())
    if changes:
        place = _place(project, target, lock)
        raise DefinitionError(
            f"{place}: the lock no longer matches what {target} asks for on {lock.arch}: "
            + shortened(changes),
            hint=f"strata lock update {target}",
            context={"file": place},
        )


def _place(project: Project, target: Target, lock: Lock, nevra: NEVRA | None = None) -> str:
    """`file:line` of a package in a target's kept lock, or of what that was asked for."""
    file = project.lock_of(target)
    text = (project.path / file).read_text(encoding="utf-8", errors="replace")
    return f"{file}:{find_line(text, str(target), lock.arch, nevra)}"


def amended_lock(
    context: BuildContext,
    target: Target,
    definition: Definition,
    lock: Lock,
    root: Path | None,
    reporter: Reporter,
) -> Lock:
    """A layer's lock where some packages are others than its definition has: those move, and the
    rest stays as it is locked. Raises PackageError, RepositoryError."""
    with reporter.step(f"solve what {target} changes") as step:
        names = definition.amendment.names
        changed = definition.lock(
            arch=context.arch,
            workspace=context.workspace,
            below=Below(root=root),
            pins=[one.nevra for one in lock.packages if one.nevra.name not in names],
        )
        step.detail(f"{len(changed.packages)} packages")
    return changed


def _on(
    lock: Lock, below: Sequence[NEVRA], target: Target, project: Project, replaced: Sequence[str]
) -> Lock:
    """A kept lock without what the layer below has by now. Raises DefinitionError."""
    wrong = clashes(lock, below, replaced)
    if wrong:
        place = _place(project, target, lock, wrong[0].locked)
        words = shortened(map(str, wrong))
        raise DefinitionError(
            f"{place}: the lock does not go with what {target} stands on: {words}",
            hint=f"strata lock update {target}",
            context={"file": place},
        )
    return replace(lock, packages=tuple(one for one in lock.packages if one.nevra not in below))


@dataclass(frozen=True)
class Clash:
    """A package that is locked in one build, while the layer below has another."""

    locked: NEVRA
    below: NEVRA

    def __str__(self) -> str:
        return f"{self.locked} is locked, the layer below has {self.below}"


def clashes(lock: Lock, below: Sequence[NEVRA], replaced: Sequence[str]) -> list[Clash]:
    """Where a lock does not go with the layer below. replaced: names that may be another build."""
    there = {nevra.name: nevra for nevra in below if nevra.name not in replaced}
    return [
        Clash(package.nevra, there[package.nevra.name])
        for package in lock.packages
        if package.nevra not in below and package.nevra.name in there
    ]


def check_locked(
    installed: Iterable[NEVRA], lock: Lock, below: Iterable[NEVRA], target: Target
) -> None:
    """Nothing is installed but what is locked, or was there below (requirement R2.13).

    An epoch of 0 is no epoch. Raises PackageError.
    """
    known = {package.nevra for package in lock.packages} | set(below)
    extra = [str(nevra) for nevra in installed if nevra not in known]
    if extra:
        raise PackageError(
            f"{target} has packages that are not locked: {shortened(extra)}",
            hint="a script installed them: name them in the treefile",
        )


def write_kept(project: Project, file: str, locks: LockFile) -> Path:
    """Put a lock file in its place; returns where."""
    path = project.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, locks.to_bytes())
    return path
