"""A machine of folders, on disk, that pulls in the test's own process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from importlab import Lab
from strata.core.events import Reporter, silent
from strata.node import host, mounts
from strata.node.config import NodeConfig
from strata.node.host import State
from strata.node.pull import pull
from strata.node.wanted import Wanted
from strata.oci.reference import SignedReference
from strata.ostree.repo import Repo


@dataclass
class Disk:
    """The machine's folder and repository, and the images it may pull."""

    lab: Lab
    root: Path
    repo: Repo

    @property
    def image(self) -> str:
        """The image it wants."""
        return str(self.lab.reference())

    def pull(self, reporter: Reporter | None = None) -> State:
        """What `strata-node pull` does."""
        wanted = Wanted(NodeConfig(), SignedReference.parse_pullspec(self.image))
        return pull(wanted, retry_for_s=0, reporter=reporter or silent())

    def files(self) -> set[str]:
        """Every path there is."""
        return {str(path) for path in self.root.rglob("*")}


def make_disk(lab: Lab, root: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Have the agent find its places below a folder, and leave this process's mounts alone."""
    for name in ("STATE", "LOCK", "JOURNAL", "NOW", "BACKUP", "LIVE"):
        monkeypatch.setattr(host, name, root / "run" / name.lower())
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text('ID=x\nVERSION="12.9"\nOSTREE_VERSION=12.9.1\n')
    monkeypatch.setattr(host, "ROOT", root)
    monkeypatch.setattr(host, "REPO", repo.path)
    monkeypatch.setattr(host, "CHECKOUT", repo.path.parent / "node-image")
    monkeypatch.setattr(host, "USR", str(root / "usr"))
    monkeypatch.setattr(host, "LIVE_MARK", root / "no")
    monkeypatch.setattr(host, "require_booted", lambda: None)
    for name in ("join_machine", "private_namespace"):
        monkeypatch.setattr(mounts, name, lambda: None)
    return Disk(lab, root, repo)
