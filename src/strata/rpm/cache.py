"""Packages on disk, by the sha256 of their bytes: fetched once, checked always."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from strata.core.errors import DigestError, RepositoryError
from strata.core.files import sha256_file
from strata.core.process import os_error
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import TIMEOUT_S, RepoConfig

THREADS = 4


class PackageCache:
    """A folder of packages. A file is there whole and right, or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, lock: Lock, repos: Sequence[RepoConfig]) -> dict[NEVRA, Path]:
        """Have every package of a lock; returns where each is.

        Raises RepositoryError (unreachable, broke off), DigestError, NoSpaceError.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        addresses = {repo.id: repo.baseurl for repo in repos}

        def one(package: LockedPackage) -> Path:
            return self._fetch(package, addresses.get(package.repo, ""))

        with ThreadPoolExecutor(THREADS) as pool:
            paths = list(pool.map(one, lock.packages))
        return dict(zip((package.nevra for package in lock.packages), paths, strict=True))

    def _fetch(self, package: LockedPackage, baseurl: str) -> Path:
        # The name keeps the NEVRA: dnf reads it in messages, and so do people.
        folder = self.path / package.sha256[:2] / package.sha256
        target = folder / f"{package.nevra}.rpm"
        # Hashed each time: a disk or a hand may have changed the file since, and a rebuild's few
        # hundred megabytes take less than a second on the threads.
        if (
            target.is_file()
            and target.stat().st_size == package.size_bytes
            and sha256_file(target) == package.sha256
        ):
            return target
        if not baseurl:
            raise RepositoryError(
                f"{package.nevra} is locked from repository {package.repo}, which is not defined"
            )
        folder.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".fetch.", dir=folder)
        os.close(fd)
        partial = Path(name)
        try:
            actual = self._copy(f"{baseurl}/{package.location}", partial, package)
            if actual != package.sha256:
                raise DigestError(
                    f"{package.nevra} from repository {package.repo} is not the package that was "
                    "locked",
                    hint="the repository changed after it was indexed: index it again",
                    context={"expected": package.sha256, "actual": actual},
                )
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _copy(self, url: str, partial: Path, package: LockedPackage) -> str:
        """Bring an address's bytes into a file; returns their sha256."""
        parts = urllib.parse.urlsplit(url)
        try:
            if parts.scheme == "file":
                source = urllib.parse.unquote(parts.path)
                try:
                    partial.unlink()
                    os.link(source, partial)
                except OSError:  # another file system
                    shutil.copyfile(source, partial)
                return sha256_file(partial)
            digest = hashlib.sha256()
            quoted = urllib.parse.quote(url, safe=":/%+~")
            with (
                urllib.request.urlopen(quoted, timeout=TIMEOUT_S) as stream,  # noqa: S310
                open(partial, "wb") as out,
            ):
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
                    out.write(chunk)
            return digest.hexdigest()
        except urllib.error.URLError as error:
            raise _unreachable(package, url, str(error.reason)) from error
        except OSError as error:
            if error.errno is not None and not isinstance(
                error, FileNotFoundError | ConnectionError
            ):
                raise os_error(error, f"fetching {package.nevra}") from error
            raise _unreachable(package, url, error.strerror or str(error)) from error


def _unreachable(package: LockedPackage, url: str, why: str) -> RepositoryError:
    return RepositoryError(
        f"{package.nevra} cannot be fetched from repository {package.repo}: {why}",
        hint="run the command again: what was fetched is kept",
        context={"url": url},
    )
