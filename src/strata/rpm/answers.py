"""What dnf's solver answered, kept: the same question about the same repositories is asked once.

A question is all that the answer follows from: the requests, each repository's index, the packages
below, the architecture, and who answers. So an answer never has to be thrown away for being old.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.core import rooted
from strata.core.files import atomic_write, canonical_json, json_digest, sha256_file
from strata.rpm.evict import touch
from strata.rpm.inventory import RPMDB_FOLDER
from strata.rpm.repostate import RepoState


@dataclass(frozen=True)
class Answers:
    """A folder of answers. made_by: the versions of what asks and what answers."""

    folder: Path
    made_by: str

    def key(
        self,
        task: Mapping[str, object],
        repos: Sequence[Mapping[str, object]],
        states: Sequence[RepoState],
        arch: str,
        root: Path | None,
    ) -> str:
        """The name of a question, sha256 in hexadecimal. root: whose packages are installed."""
        database = rooted.resolve(root, f"{RPMDB_FOLDER}/rpmdb.sqlite") if root else None
        below = sha256_file(database) if database and database.is_file() else ""
        indexes = [[state.id, state.repomd] for state in states]
        question = [self.made_by, task, repos, indexes, arch, below]
        return json_digest(question).removeprefix("sha256:")

    def recall(self, key: str) -> dict[str, Any] | None:
        """The answer to a question, or None when it was not asked before."""
        path = self._path(key)
        try:
            answer: dict[str, Any] = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        touch(path)
        return answer

    def keep(self, key: str, answer: Mapping[str, object]) -> None:
        """Keep an answer that was found good."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, canonical_json(answer))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"
