"""Whether kept locks still hold: against the treefiles, the repositories, and each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from strata.compose.context import BuildContext
from strata.compose.locks import clashes, kept_lock
from strata.compose.lockupdate import (
    arches_of,
    definition_of,
    foundation_of,
    kept_locks,
    with_overrides,
)
from strata.core.events import Reporter
from strata.rpm.evr import Evr
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.repostate import read_states
from strata.rpm.solve import find_builds
from strata.treefile.target import Target

# What a finding is about; `newer` alone is no fault.
ASKED, BELOW, GONE, CHANGED, LATE, NEWER = "asked", "below", "gone", "changed", "late", "newer"


@dataclass(frozen=True, order=True)
class Finding:
    """Something a lock is told of. arch: empty when it concerns several."""

    target: str
    arch: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.target}{f' {self.arch}' if self.arch else ''}: {self.text}"

    @property
    def is_fault(self) -> bool:
        """Whether the lock has to be made anew."""
        return self.kind != NEWER

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "target": self.target,
            "arch": self.arch,
            "kind": self.kind,
            "fault": self.is_fault,
            "text": self.text,
        }


def check_locks(
    context: BuildContext, targets: Sequence[Target], arches: Sequence[str], reporter: Reporter
) -> list[Finding]:
    """What is to be said of the locks of targets, faults and newer builds.

    Raises DefinitionError (no lock, or a malformed one), RepositoryError.
    """
    known = kept_locks(context)
    findings = []
    for target in targets:
        locks = {}
        for arch in arches_of(context, target, arches):
            locks[arch] = kept_lock(context.project, target, arch)
            of_arch = replace(context, arch=arch)
            with (
                reporter.step(f"check {target} for {arch}"),
                context.workspace.scratch("lock") as scratch,
            ):
                on = foundation_of(of_arch, target, known, scratch / "root", reporter)
                below = on.nevras
                plain = definition_of(of_arch, target, on.variables, reporter)
                definition = with_overrides(context, target, plain, on)
                builds = find_builds(
                    definition.repos,
                    read_states(definition.repos, context.workspace.metadata),
                    [package.nevra.name for package in locks[arch].packages],
                    arch=arch,
                    metadata_cache=context.workspace.metadata,
                )
            findings += [
                Finding(str(target), arch, BELOW, str(clash))
                for clash in clashes(locks[arch], below, definition.amendment.names)
            ]
            words = locks[arch].asked.changes(definition.asked())
            findings += [Finding(str(target), arch, ASKED, text) for text in words]
            findings += [
                Finding(str(target), arch, kind, text)
                for kind, text in compare_builds(locks[arch], builds)
            ]
        findings += [Finding(str(target), "", LATE, str(late)) for late in late_builds(locks)]
    return sorted(findings, key=lambda item: (item.kind == NEWER, item))


def compare_builds(lock: Lock, builds: Sequence[LockedPackage]) -> list[tuple[str, str]]:
    """A lock against what repositories have of its packages, as kinds and words."""
    offered: dict[tuple[str, NEVRA], set[str]] = {}
    newest: dict[tuple[str, str], NEVRA] = {}
    for build in builds:
        offered.setdefault((build.repo, build.nevra), set()).add(build.sha256)
        key = (build.nevra.name, build.nevra.arch)
        newest[key] = max(build.nevra, newest.get(key, build.nevra))
    found = []
    for package in lock.packages:
        digests = offered.get((package.repo, package.nevra))
        if digests is None:
            found.append((GONE, f"repository {package.repo} no longer has {package.nevra}"))
        elif package.sha256 not in digests:
            found.append(
                (CHANGED, f"repository {package.repo} has {package.nevra} with other bytes")
            )
        best = newest.get((package.nevra.name, package.nevra.arch))
        if best and best > package.nevra:
            found.append((NEWER, f"{package.nevra.name} {package.nevra.evr} could be {best.evr}"))
    return found


@dataclass(frozen=True)
class Late:
    """A package whose builds differ between architectures. newest: the build the others have."""

    name: str
    newest: str
    arches: Mapping[str, str]

    def __str__(self) -> str:
        behind = ", ".join(f"{arch} is late with {evr}" for arch, evr in self.arches.items())
        return f"{self.name} is at {self.newest}, but {behind}"


def late_builds(locks: Mapping[str, Lock]) -> list[Late]:
    """The packages that are not in lockstep: an architecture is late when another has a newer
    build. Packages that an architecture does not have are no matter of lockstep."""
    by_name: dict[str, dict[str, NEVRA]] = {}
    for arch, lock in sorted(locks.items()):
        for package in lock.packages:
            mine = by_name.setdefault(package.nevra.name, {})
            mine[arch] = max(package.nevra, mine.get(arch, package.nevra), key=_evr)
    found = []
    for name, builds in sorted(by_name.items()):
        newest = max(builds.values(), key=_evr).evr
        behind = {arch: str(one.evr) for arch, one in builds.items() if one.evr != newest}
        if behind:
            found.append(Late(name, str(newest), behind))
    return found


def _evr(nevra: NEVRA) -> Evr:
    return nevra.evr
