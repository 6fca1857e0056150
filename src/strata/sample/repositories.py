"""The sample's RPM repositories: closure from apt, conversion with a cache, index by createrepo_c.

Three repositories are made: of the base, the node and the extensions. Each holds what its packages
need beyond the closure of those before, so no package is in two.

Packages and indexes are signed by the sample's own key, whose public half stands beside them.

Caches, both by content: Debian packages as apt checked them, and RPMs by the sha256 of the Debian
package, of the converter's source and by the key. A repository whose packages did not change is not
touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import PackageError, UsageError
from strata.core.events import Reporter
from strata.core.files import (
    atomic_write,
    canonical_json,
    locked,
    remove_tree,
    scratch_dir,
    sha256_file,
)
from strata.core.process import require_root, tool_version
from strata.rpm.createrepo import index_packages
from strata.sample import control, convert
from strata.sample import signing as signing_module
from strata.sample.archive import COMPOSES, Archive, Deb
from strata.sample.packages import (
    BASEOS,
    BASEOS_REPOSITORY,
    EXTENSIONS,
    EXTENSIONS_REPOSITORY,
    NODE,
    NODE_REPOSITORY,
)
from strata.sample.signing import PUBLIC_KEY, Signer, signing

# Each repository's packages, upon those of the repositories before it.
_REPOSITORIES = (
    (BASEOS_REPOSITORY, BASEOS),
    (NODE_REPOSITORY, NODE),
    (EXTENSIONS_REPOSITORY, EXTENSIONS),
)


@dataclass(frozen=True)
class RepositorySummary:
    """A repository as it stands. converted: how many packages had to be made this time."""

    name: str
    path: Path
    packages: int
    size_bytes: int
    converted: int


def build_repositories(
    dest: Path, *, compose: str, cache: Path, jobs: int, reporter: Reporter
) -> tuple[RepositorySummary, ...]:
    """Make the sample's repositories in `dest`, each one whole or not at all.

    compose: "release" (Debian's release pocket alone) or "updates" (with security and updates).
    cache: kept between runs. Raises UsageError, NotRootError, RepositoryError, PackageError,
    OfflineError.
    """
    if compose not in COMPOSES:
        raise UsageError(
            f"there is no compose {compose!r}", hint=f"one of: {', '.join(sorted(COMPOSES))}"
        )
    require_root("keeping the owners of packaged files")
    archive = Archive(compose, cache)
    with locked(cache / "sample.lock", "the sample cache"):
        archive.refresh(reporter)
        with reporter.step("solve the packages' closure") as step:
            parts: dict[str, tuple[Deb, ...]] = {}
            wanted: tuple[str, ...] = ()
            known: set[Deb] = set()
            for name, packages in _REPOSITORIES:
                wanted += packages
                closure = archive.closure(wanted)
                parts[name] = tuple(deb for deb in closure.debs if deb not in known)
                known.update(closure.debs)
            step.detail(", ".join(f"{name}: {len(debs)}" for name, debs in parts.items()))
        archive.download(wanted, sorted(known), reporter)
        dest.mkdir(parents=True, exist_ok=True)
        with signing(cache) as signer:
            made = tuple(
                _repository(dest / name, debs, archive, cache, closure.date, signer, jobs, reporter)
                for name, debs in parts.items()
            )
            public = dest / PUBLIC_KEY
            if not public.exists() or public.read_bytes() != signer.public:
                atomic_write(public, signer.public)
        return made


def converter_digest(signer: Signer) -> str:
    """What decides an RPM's bytes beside the package: the converter's source, rpmbuild, the key."""
    total = hashlib.sha256(f"{tool_version('rpmbuild')}\0{signer.fingerprint}".encode())
    for module in (convert, control, signing_module):
        total.update(sha256_file(Path(str(module.__file__))).encode())
    return total.hexdigest()


def _repository(
    path: Path,
    debs: Sequence[Deb],
    archive: Archive,
    cache: Path,
    date: int,
    signer: Signer,
    jobs: int,
    reporter: Reporter,
) -> RepositorySummary:
    converter = converter_digest(signer)
    key = {"debs": [deb.sha256 for deb in debs], "converter": converter, "date": date}
    stamp = path / "strata-sample.json"
    if stamp.exists() and json.loads(stamp.read_bytes()) == key:
        rpms = sorted(path.glob("*.rpm"))
        return _summary(path, rpms, 0)
    store = cache / "rpms" / converter[:16]
    with reporter.step(f"make {path.name}") as step:
        rpms, converted = _convert_all(
            debs,
            archive.debs,
            store,
            signer,
            jobs,
            lambda done: step.progress(done, len(debs), "packages"),
        )
        fresh = path.with_name(path.name + ".new")
        remove_tree(fresh)
        fresh.mkdir()
        for rpm in rpms:
            _link(rpm, fresh / rpm.name)
        index_packages(fresh, revision=date, threads=jobs, plain_names=True)
        signer.sign_file(fresh / "repodata/repomd.xml")
        atomic_write(fresh / stamp.name, canonical_json(key))
        remove_tree(path)
        fresh.rename(path)
        summary = _summary(path, sorted(path.glob("*.rpm")), converted)
        step.detail(f"{summary.packages} packages, {converted} converted")
    return summary


def _summary(path: Path, rpms: Sequence[Path], converted: int) -> RepositorySummary:
    size = sum(rpm.stat().st_size for rpm in rpms)
    return RepositorySummary(path.name, path, len(rpms), size, converted)


def _convert_all(
    debs: Sequence[Deb],
    folder: Path,
    store: Path,
    signer: Signer,
    jobs: int,
    tell: Callable[[int], None],
) -> tuple[list[Path], int]:
    """The RPM of each package, from the cache or made now, and how many were made.

    One failure does not stop the others; all are named in the PackageError at the end.
    """
    store.mkdir(parents=True, exist_ok=True)
    failures: list[PackageError] = []
    made: list[str] = []
    lock = threading.Lock()
    stop = threading.Event()

    def one(deb: Deb) -> Path | None:
        home = store / deb.sha256
        found = list(home.glob("*.rpm")) if home.is_dir() else []
        if not found and not stop.is_set():
            try:
                with scratch_dir(store, "convert") as scratch:
                    into = scratch / "out"
                    into.mkdir()
                    signer.sign_package(convert.convert(folder / deb.file_name, into, scratch))
                    into.rename(home)
            except PackageError as error:
                with lock:
                    failures.append(error)
                return None
            found = list(home.glob("*.rpm"))
        with lock:
            made.append(deb.name)
            tell(len(made))
        return found[0] if found else None

    cached = sum((store / deb.sha256).is_dir() for deb in debs)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            # Large packages first: the last thread to finish should not hold the kernel.
            ordered = sorted(debs, key=lambda deb: -deb.size_bytes)
            rpms = [rpm for rpm in pool.map(one, ordered) if rpm is not None]
        except BaseException:
            stop.set()
            raise
    if failures:
        raise PackageError(
            failures[0].message
            if len(failures) == 1
            else f"{len(failures)} packages could not be made into RPMs; the first: "
            + failures[0].message,
            hint=failures[0].hint,
            context={"output": "\n".join(error.message for error in failures)},
        )
    return sorted(rpms), len(debs) - cached


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
