"""Locks of other tools: read as pins for a lock of ours, and written from one.

`fcos` is the manifest lock of rpm-ostree and fedora-coreos-config, with its override files (R1.23);
`konflux` is rpms.lock.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from strata.compose.context import BuildContext
from strata.compose.locks import kept_lock
from strata.compose.lockupdate import (
    LockChange,
    arches_of,
    definition_of,
    stream_variables_of,
)
from strata.core.errors import DefinitionError, DigestError, UsageError
from strata.core.events import Reporter
from strata.rpm.konflux import Prefetched, konflux_packages, konflux_text
from strata.rpm.lock import Lock, LockFile
from strata.rpm.manifestlock import (
    MAX_BYTES,
    ManifestLock,
    manifest_lock_bytes,
    manifest_lock_of,
    parse_manifest_lock,
)
from strata.rpm.nevra import NEVRA
from strata.treefile.target import Target
from strata.treefile.treefile import plain
from strata.treefile.yaml import parse_yaml

FCOS, KONFLUX = "fcos", "konflux"
FORMATS = (FCOS, KONFLUX)


def read_bounded(path: Path) -> bytes:
    """A lock file's bytes. Raises DefinitionError."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DefinitionError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise DefinitionError(f"{path} is larger than {MAX_BYTES} bytes")
    return data


def read_manifest_lock(path: Path) -> ManifestLock:
    """A manifest lock, or a file of overrides: JSON or YAML by its name. Raises DefinitionError."""
    data = read_bounded(path)
    if path.suffix in (".yaml", ".yml"):
        return manifest_lock_of(_yaml(data, path), str(path))
    return parse_manifest_lock(data, str(path))


def _yaml(data: bytes, path: Path) -> object:
    try:
        return plain(parse_yaml(data.decode("utf-8"), str(path)))
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not UTF-8: {error}", context={"file": path}) from error


def manifest_files(folder: Path, arch: str) -> list[Path]:
    """The manifest locks in a folder of definitions, weakest first: the lock, overrides, and
    overrides of the architecture. Raises DefinitionError when there is no lock."""
    base = folder / f"manifest-lock.{arch}.json"
    if not base.is_file():
        raise DefinitionError(f"there is no {base.name} in {folder}")
    names = ("manifest-lock.overrides", f"manifest-lock.overrides.{arch}")
    found = [folder / f"{name}{suffix}" for name in names for suffix in (".yaml", ".json")]
    return [base, *(path for path in found if path.is_file())]


def fcos_pins(paths: Sequence[Path], arch: str) -> tuple[NEVRA, ...]:
    """The builds that manifest locks name together, the later files first in rank; a folder is its
    files. Raises DefinitionError."""
    files = [
        file for path in paths for file in (manifest_files(path, arch) if path.is_dir() else [path])
    ]
    first, *rest = [read_manifest_lock(file) for file in files]
    return first.under(rest).nevras(arch)


def read_konflux(path: Path) -> dict[str, tuple[Prefetched, ...]]:
    """The packages of an rpms.lock.yaml, by architecture. Raises DefinitionError."""
    return konflux_packages(_yaml(read_bounded(path), path), str(path))


def check_prefetched(
    changes: Sequence[LockChange], packages: Mapping[str, Sequence[Prefetched]]
) -> None:
    """The repositories have the very bytes that were to be prefetched. Raises DigestError."""
    for change in changes:
        known = {one.nevra: one.sha256 for one in packages[change.new.arch] if one.sha256}
        for package in change.new.packages:
            expected = known.get(package.nevra, package.sha256)
            if expected != package.sha256:
                raise DigestError(
                    f"repository {package.repo} has {package.nevra} with other bytes than the "
                    "imported lock",
                    context={"expected": expected, "actual": package.sha256},
                )


def any_locks(context: BuildContext, target: Target, arches: Sequence[str]) -> dict[str, Lock]:
    """A target's locks by architecture: those its definitions keep, else those of its last build.

    Raises DefinitionError when there are none.
    """
    if context.project.lock_of(target):
        wanted = arches_of(context, target, arches)
        return {arch: kept_lock(context.project, target, arch) for arch in wanted}
    path = context.workspace.lock_path(str(target))
    if not path.exists():
        raise DefinitionError(
            f"{target} has no lock: it keeps none, and was not built yet",
            hint=f"strata build {target}",
        )
    found = LockFile.load(path).locks
    return {arch: lock for (_, arch), lock in found.items() if not arches or arch in arches}


def export(
    context: BuildContext,
    locks: Mapping[Target, Mapping[str, Lock]],
    form: str,
    reporter: Reporter,
) -> str:
    """Locks of targets, by architecture, in another tool's form.

    Raises UsageError (a manifest lock is of one architecture), DefinitionError.
    """
    every = {arch for of_target in locks.values() for arch in of_target}
    for target, of_target in locks.items():
        if set(of_target) != every or not of_target:
            raise UsageError(
                f"{target} is not locked for {', '.join(sorted(every - set(of_target))) or 'any'}",
                hint="choose architectures that all are locked for with --arch",
            )
    merged = {
        arch: _together([of_target[arch] for of_target in locks.values()]) for arch in sorted(every)
    }
    if form == FCOS:
        if len(merged) != 1:
            raise UsageError(
                "a manifest lock is of one architecture",
                hint=f"choose with --arch; locked are: {', '.join(merged) or 'none'}",
            )
        return manifest_lock_bytes(next(iter(merged.values()))).decode()
    addresses = {arch: _addresses(replace(context, arch=arch), locks, reporter) for arch in merged}
    return konflux_text(merged.values(), addresses)


def _addresses(
    context: BuildContext, targets: Iterable[Target], reporter: Reporter
) -> dict[str, str]:
    """Where the repositories of targets are, by id."""
    found = {}
    for target in targets:
        variables = stream_variables_of(context.project, target)
        for repo in definition_of(context, target, variables, reporter).repos:
            found[repo.id] = repo.baseurl
    return found


def _together(locks: Sequence[Lock]) -> Lock:
    packages = sorted(
        {package.nevra: package for lock in locks for package in lock.packages}.items()
    )
    generated = max(lock.generated for lock in locks)
    return Lock(locks[0].arch, generated, {}, tuple(package for _, package in packages))
