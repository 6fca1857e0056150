"""Two locks compared, as a changelog: which source packages moved, and what came or went.

A lock is ours (JSON with `targets`), or a manifest lock of rpm-ostree (JSON, or YAML as override
files are). Packages of one source that moved alike are one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.compose.lockforeign import read_bounded, read_manifest_lock
from strata.core.errors import DefinitionError
from strata.inspect.packagediff import PackageChange, diff_packages
from strata.rpm.lock import LockedPackage, LockFile
from strata.rpm.manifestlock import ManifestLock
from strata.rpm.nevra import NEVRA


@dataclass(frozen=True)
class AnyLock:
    """The builds of a lock. sources: from a package's name to its source package's, as far as the
    file says."""

    nevras: tuple[NEVRA, ...]
    sources: dict[str, str]


@dataclass(frozen=True)
class Line:
    """Packages that changed alike. title: the source package, or the one package's name."""

    title: str
    changes: tuple[PackageChange, ...]

    @property
    def kind(self) -> str:
        """changed, added or removed."""
        return self.changes[0].kind

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "title": self.title,
            "change": self.kind,
            "downgrade": self.changes[0].is_downgrade,
            "packages": [change.to_json() for change in self.changes],
        }


def read_lock(path: Path, arch: str, target: str = "") -> AnyLock:
    """Read a lock of either kind. arch: of builds that do not say. target: one of those in a file
    of ours, empty for all. Raises DefinitionError."""
    data = read_bounded(path)
    if b'"targets"' in data:
        found = LockFile.parse(data, str(path)).locks
        wanted = [lock for (name, of), lock in found.items() if of == arch and target in ("", name)]
        if not wanted:
            known = ", ".join(sorted(f"{name} {of}" for name, of in found)) or "no lock"
            raise DefinitionError(
                f"{path} has no lock of {target or 'anything'} for {arch}", hint=f"it has: {known}"
            )
        return of_packages(package for lock in wanted for package in lock.packages)
    return _of_manifest(read_manifest_lock(path), arch)


def of_packages(packages: Iterable[LockedPackage]) -> AnyLock:
    """Packages of a lock of ours."""
    found = tuple(packages)
    sources = {
        package.nevra.name: NEVRA.parse(package.sourcerpm.removesuffix(".rpm")).name
        for package in found
        if package.sourcerpm
    }
    return AnyLock(tuple(sorted(package.nevra for package in found)), sources)


def _of_manifest(lock: ManifestLock, arch: str) -> AnyLock:
    sources = {pin.name: pin.source for pin in lock.pins.values() if pin.source}
    return AnyLock(lock.nevras(arch), sources)


def changelog(old: AnyLock, new: AnyLock) -> tuple[Line, ...]:
    """What changed, then what was added, then what was removed; each by title."""
    sources = {**old.sources, **new.sources}
    groups: dict[tuple[str, str, str, str], list[PackageChange]] = {}
    for change in diff_packages(old.nevras, new.nevras):
        title = sources.get(change.name, change.name)
        before = str(change.old.evr) if change.old else ""
        after = str(change.new.evr) if change.new else ""
        groups.setdefault((title, change.kind, before, after), []).append(change)
    order = ("changed", "added", "removed")
    lines = [Line(title, tuple(changes)) for (title, *_), changes in groups.items()]
    return tuple(sorted(lines, key=lambda line: (order.index(line.kind), line.title)))


def describe(line: Line) -> str:
    """A line for people."""
    first = line.changes[0]
    names = [change.name for change in line.changes]
    of = "" if names == [line.title] else f"  ({', '.join(names)})"
    if first.old and first.new:
        mark = "  downgrade" if first.is_downgrade else ""
        return f"{line.title}  {first.old.evr} → {first.new.evr}{mark}{of}"
    return f"{line.title}  {first.either.evr}{of}"


def counts(lines: Sequence[Line]) -> str:
    """`24 packages changed, 0 added, 1 removed`."""
    total = dict.fromkeys(("changed", "added", "removed"), 0)
    for line in lines:
        total[line.kind] += len(line.changes)
    return f"{total['changed']} changed, {total['added']} added, {total['removed']} removed"
