"""The package cache: what is in it is right, whatever happened to the disk since."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from strata.core.errors import DigestError
from strata.rpm.cache import PackageCache
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig

pytestmark = pytest.mark.unit

GOOD, BAD = b"the package", b"the pachage"


def locked(folder: Path) -> tuple[Lock, RepoConfig]:
    """A repository with one package, and the lock that names it."""
    folder.mkdir()
    (folder / "a.rpm").write_bytes(GOOD)
    digest = hashlib.sha256(GOOD).hexdigest()
    package = LockedPackage(NEVRA.parse("a-1-1.noarch"), "r", "a.rpm", digest, len(GOOD))
    repo = RepoConfig("r", "r", f"file://{folder}", 99, False, "r.repo")
    return Lock("x86_64", 0, {}, (package,)), repo


def test_a_cached_package_that_was_changed_is_fetched_again(tmp_path: Path) -> None:
    lock, repo = locked(tmp_path / "repo")
    cache = PackageCache(tmp_path / "cache")
    (path,) = cache.fetch(lock, [repo]).values()
    path.unlink()  # it may share its content with the repository's file
    path.write_bytes(BAD)
    assert cache.fetch(lock, [repo]) == {NEVRA.parse("a-1-1.noarch"): path}
    assert path.read_bytes() == GOOD


def test_a_package_that_changed_in_cache_and_repository_is_refused(tmp_path: Path) -> None:
    lock, repo = locked(tmp_path / "repo")
    cache = PackageCache(tmp_path / "cache")
    cache.fetch(lock, [repo])
    (tmp_path / "repo/a.rpm").write_bytes(BAD)  # both are one file where links are possible
    with pytest.raises(DigestError, match="is not the package that was locked"):
        cache.fetch(lock, [repo])
