"""Where a build's things are: one folder, the store, holds everything strata writes.

The store is an OCI layout (`oci-layout`, `index.json`, `blobs/`), so any tool reads its images as
`oci:STORE:TAG`. Beside those stand the build records, the locks, the OSTree repository that commits
are made in, the caches and the scratch space. Nothing else is remembered anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from strata.core.errors import UsageError
from strata.core.events import Reporter
from strata.core.files import atomic_write, locked, mounts_under, remove_tree, scratch_dir
from strata.core.process import os_error, run
from strata.oci.layout import Layout
from strata.ostree.repo import Repo
from strata.rpm.evict import DEFAULT_LIMIT_BYTES, evict
from strata.rpm.lock import Lock, LockFile


@dataclass(frozen=True)
class Workspace:
    """The folders of one store.

    lender: the store whose downloads and repositories are used, for one that is only made to be
    compared with it. cache_limit_bytes: how large its cache may be after a build. opened_ns: when
    this was; what was used since stays in the cache.
    """

    store: Path
    lender: Path | None = None
    cache_limit_bytes: int = DEFAULT_LIMIT_BYTES
    opened_ns: int = field(default_factory=time.time_ns, compare=False)

    @staticmethod
    def create(
        store: Path,
        lender: Path | None = None,
        *,
        cache_limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> Workspace:
        """Open the store, making what is missing. Raises NoSpaceError, StrataError."""
        workspace = Workspace(store.absolute(), lender, cache_limit_bytes)
        try:
            workspace.work.mkdir(parents=True, exist_ok=True)
            Layout.create(workspace.store)
        except OSError as error:
            raise os_error(error, "opening the store") from error
        return workspace

    @property
    def layout(self) -> Layout:
        """The images."""
        return Layout.open(self.store)

    @property
    def work(self) -> Path:
        """Scratch space; what is in it belongs to a running command or is rubbish."""
        return self.store / "work"

    @property
    def files(self) -> Path:
        """What `$store` stands for in .repo files."""
        return self.lender or self.store

    @property
    def cache(self) -> Path:
        """What can be fetched or made again: packages, metadata, and what steps made."""
        return self.files / "cache"

    @property
    def packages(self) -> Path:
        """Downloaded packages, by content."""
        return self.cache / "packages"

    @property
    def metadata(self) -> Path:
        """dnf's cache of repository metadata."""
        return self.cache / "metadata"

    @property
    def solved(self) -> Path:
        """What the solver answered; of this store alone, a lender's own is not believed."""
        return self.store / "cache" / "solved"

    @property
    def steps(self) -> Path:
        """What steps of builds made, by target and key; of this store alone too."""
        return self.store / "cache" / "steps"

    @property
    def swapped(self) -> Path:
        """Repositories of packages swapped in by hand, by content; of this store alone too."""
        return self.store / "cache" / "with"

    def limit_cache(self, reporter: Reporter) -> None:
        """Bring the cache within its limit, and tell what went."""
        made = (self.solved, self.steps)
        gone = evict(
            self.packages,
            self.metadata,
            made,
            self.swapped,
            limit_bytes=self.cache_limit_bytes,
            since_ns=self.opened_ns,
        )
        if gone.count:
            reporter.note(
                f"removed {gone.count} entries ({gone.size_bytes / 1e6:.1f} MB) "
                f"from the cache, those not used for longest: its limit is "
                f"{self.cache_limit_bytes / 1e6:.0f} MB"
            )

    @property
    def machines(self) -> Path:
        """Root folders of machines that `strata run` booted."""
        return self.store / "machines"

    @property
    def bootimages(self) -> Path:
        """Links to the files of boot images under their own names, by stream and format."""
        return self.store / "bootimages"

    def record_path(self, target: str) -> Path:
        """The build record of a target."""
        return self.store / "records" / f"{target}.json"

    def lock_path(self, target: str) -> Path:
        """The locks that a target was last built from, for each architecture."""
        return self.store / "locks" / f"{target}.lock"

    def keep_lock(self, target: str, lock: Lock) -> None:
        """Say which lock a target was built from."""
        path = self.lock_path(target)
        before = LockFile.load(path) if path.exists() else LockFile({})
        atomic_write(path, before.with_lock(target, lock).to_bytes())

    def repo(self) -> Repo:
        """The OSTree repository that commits are made in (mode bare, so root's)."""
        return Repo.init(self.store / "repo")

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A scratch folder, removed however the block ends."""
        with scratch_dir(self.work, name) as path:
            yield path

    def clear_scratch(self) -> None:
        """Remove what interrupted commands left; only while holding the store."""
        for path in self.work.iterdir():
            for mount in mounts_under(path):
                run(["umount", mount])
            remove_tree(path)

    def exists(self) -> bool:
        """Whether there is a store; an empty or missing folder is none yet.

        Raises UsageError when the folder holds something else: it is not ours to remove.
        """
        if (self.store / "oci-layout").is_file():
            return True
        if not self.store.exists() or (self.store.is_dir() and not any(self.store.iterdir())):
            return False
        raise UsageError(
            f"{self.store} is not a store: it has no oci-layout",
            hint="say where the store is with --store DIR",
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store: one build at a time writes it."""
        with locked(self.store / ".lock", f"the store {self.store}", wait=False):
            yield
