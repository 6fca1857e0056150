"""Packages on disk, by the sha256 of their bytes: fetched once, checked always, signed where their
repository's file wants that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from strata.core.errors import DigestError, OfflineError, RepositoryError
from strata.core.files import sha256_file
from strata.core.network import HINT, offline
from strata.core.process import os_error
from strata.rpm.download import FetchError, download
from strata.rpm.evict import in_use, touch
from strata.rpm.keys import load_keys
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig
from strata.rpm.signatures import verify_packages

THREADS = 4
_NAMED = 5


class PackageCache:
    """A folder of packages. A file is there whole and right, or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, lock: Lock, repos: Sequence[RepoConfig]) -> dict[NEVRA, Path]:
        """Have every package of a lock, signed where its repository's file wants that; returns
        where each is. Who goes on to use them does it within `evict.in_use`.

        Raises RepositoryError (unreachable, broke off, not defined), DigestError, SignatureError,
        OfflineError (naming what is missing), NoSpaceError.
        """
        known = {repo.id: repo for repo in repos}
        for package in lock.packages:
            if package.repo not in known:
                raise RepositoryError(
                    f"{package.nevra} is locked from repository {package.repo}, which is not "
                    "defined"
                )
        used = [repo for repo in repos if any(item.repo == repo.id for item in lock.packages)]
        # Before anything is fetched: a missing key is told at once.
        keys = {repo.id: load_keys(repo) for repo in used if repo.gpgcheck}
        with in_use(self.path):
            paths = self._fetch_all(lock.packages, known)
            for name, of_repo in keys.items():
                verify_packages(of_repo, [paths[p.nevra] for p in lock.packages if p.repo == name])
        return paths

    def _fetch_all(
        self, packages: Sequence[LockedPackage], repos: Mapping[str, RepoConfig]
    ) -> dict[NEVRA, Path]:
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                there = list(pool.map(self._is_there, packages))
                missing = [
                    item for item, is_there in zip(packages, there, strict=True) if not is_there
                ]
                _refuse_offline(missing, repos)
                list(pool.map(lambda item: self._fetch(item, repos[item.repo]), missing))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # the rest would fail the same, and slowly
                raise
        return {package.nevra: self._place(package) for package in packages}

    def _place(self, package: LockedPackage) -> Path:
        # The name keeps the NEVRA: dnf reads it in messages, and so do people.
        return self.path / package.sha256[:2] / package.sha256 / f"{package.nevra}.rpm"

    def _is_there(self, package: LockedPackage) -> bool:
        # Hashed each time: a disk or a hand may have changed the file since, and a rebuild's few
        # hundred megabytes take less than a second on the threads.
        path = self._place(package)
        if (
            not path.is_file()
            or path.stat().st_size != package.size_bytes
            or sha256_file(path) != package.sha256
        ):
            return False
        touch(path)
        return True

    def _fetch(self, package: LockedPackage, repo: RepoConfig) -> None:
        target = self._place(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".fetch.", dir=target.parent)
        os.close(fd)
        partial = Path(name)
        try:
            self._copy(f"{repo.baseurl}/{package.location}", partial, package)
            actual = sha256_file(partial)
            if actual != package.sha256:
                raise DigestError(
                    f"{package.nevra} from repository {package.repo} is not the package that was "
                    "locked",
                    hint="the repository changed after it was indexed: index it again",
                    context={"expected": package.sha256, "actual": actual},
                )
            partial.rename(target)
            touch(target)
        finally:
            partial.unlink(missing_ok=True)

    def _copy(self, url: str, partial: Path, package: LockedPackage) -> None:
        """Bring an address's bytes into a file."""
        parts = urllib.parse.urlsplit(url)
        try:
            if parts.scheme == "file":
                source = urllib.parse.unquote(parts.path)
                try:
                    partial.unlink()
                    os.link(source, partial)
                except OSError:  # another file system
                    shutil.copyfile(source, partial)
                return
            quoted = urllib.parse.quote(url, safe=":/%+~")
            size = package.size_bytes
            with open(partial, "wb") as out:
                download(quoted, out, max_bytes=size, size_bytes=size)
        except FetchError as error:
            raise _unreachable(package, url, str(error)) from error
        except FileNotFoundError as error:
            raise _unreachable(package, url, error.strerror or str(error)) from error
        except OSError as error:
            raise os_error(error, f"fetching {package.nevra}") from error


def _refuse_offline(missing: Sequence[LockedPackage], repos: Mapping[str, RepoConfig]) -> None:
    """Offline, all packages that only the network has are named at once."""
    far = [item for item in missing if not repos[item.repo].is_local]
    if not offline() or not far:
        return
    names = ", ".join(str(item.nevra) for item in far[:_NAMED])
    more = f" and {len(far) - _NAMED} more" if len(far) > _NAMED else ""
    count = f"{len(far)} packages are" if len(far) > 1 else "a package is"
    raise OfflineError(
        f"{count} not in this store, and this is an offline run: {names}{more}",
        hint=HINT,
        context={"repository": ", ".join(sorted({item.repo for item in far}))},
    )


def _unreachable(package: LockedPackage, url: str, why: str) -> RepositoryError:
    return RepositoryError(
        f"{package.nevra} cannot be fetched from repository {package.repo}: {why}",
        hint="run the command again: what was fetched is kept",
        context={"url": url},
    )
