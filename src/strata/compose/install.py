"""Locked packages go into a root: the first step of a layer's build, and what it follows from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from strata.compose.accounts import Accounts
from strata.compose.definitions import Definition, tool_inputs
from strata.compose.steps import INSTALL, Step
from strata.compose.workspace import Workspace
from strata.core.events import Reporter
from strata.core.files import json_digest
from strata.core.record import Input
from strata.rpm.cache import PackageCache
from strata.rpm.evict import in_use
from strata.rpm.install import install
from strata.rpm.lock import Lock
from strata.rpm.repofile import RepoConfig


@dataclass(frozen=True)
class Transaction:
    """All that an installed root follows from.

    below: the commit that the root had before, or empty. replaces: names of packages there that
    may go for another build of theirs. epoch: the time that the package database says, in seconds.
    langs: locales whose files are installed, all when empty. accounts: who is there before.
    """

    lock: Lock
    below: str
    documentation: bool
    replaces: tuple[str, ...]
    epoch: int
    langs: tuple[str, ...] = ()
    accounts: Accounts = field(default_factory=Accounts)

    @staticmethod
    def of(
        definition: Definition, lock: Lock, below: str, epoch: int, accounts: Accounts | None = None
    ) -> Transaction:
        """The transaction of a layer's definition."""
        treefile, replaces = definition.treefile, tuple(definition.amendment.names)
        return Transaction(
            lock,
            below,
            treefile.documentation,
            replaces,
            epoch,
            treefile.texts("install-langs"),
            accounts or Accounts(),
        )

    @property
    def step(self) -> Step:
        """The transaction as a step of a build."""
        packages = [[str(one.nevra), one.sha256] for one in self.lock.packages]
        users = self.accounts.digest()
        reads = [
            Input("lock", "packages", json_digest(packages)),
            Input("treefile", "documentation", str(self.documentation).lower()),
            Input("with", "replaced packages", json_digest(list(self.replaces))),
            Input("definition", "architecture", self.lock.arch),
            Input("clock", "time of the content", str(self.epoch)),
            *([Input("base", "what lies below", self.below)] if self.below else []),
            *([Input("treefile", "languages", ":".join(self.langs))] if self.langs else []),
            *([Input("base", "users and groups", users)] if users else []),
            *tool_inputs(("dnf", "rpm")),
        ]
        return Step(INSTALL, tuple(sorted(reads)))


@contextmanager
def packages_at_hand(
    lock: Lock, repos: Sequence[RepoConfig], workspace: Workspace, reporter: Reporter
) -> Iterator[list[Path]]:
    """Have a lock's packages, in its order, for the length of the block; all are verified.

    Raises RepositoryError, DigestError, SignatureError, OfflineError.
    """
    with in_use(workspace.packages):
        with reporter.step("fetch packages") as step:
            paths = PackageCache(workspace.packages).fetch(lock, repos)
            step.detail(f"{len(paths)} packages")
        yield [paths[package.nevra] for package in lock.packages]


def install_packages(
    root: Path,
    transaction: Transaction,
    files: Sequence[Path],
    workspace: Workspace,
    reporter: Reporter,
) -> None:
    """Install a transaction's packages, which are at hand as files, into a root.

    Raises PackageError, ToolFailedError, NoSpaceError.
    """
    if not files:
        return
    with reporter.step("install packages") as step:
        install(
            root,
            files,
            arch=transaction.lock.arch,
            source_date_epoch=transaction.epoch,
            documentation=transaction.documentation,
            scratch=workspace.work,
            step=step,
            replaces=transaction.replaces,
            langs=transaction.langs,
        )
        step.detail(f"{len(files)} packages")
