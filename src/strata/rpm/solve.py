"""Requests become a lock: dnf's solver decides, once; everything after it is exact.

A base layer is solved from nothing. A node layer is solved with the base's packages installed: they
stay as they are, and newer candidates of theirs in the repositories are not looked at (R3.4).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import PackageError, RepositoryError
from strata.rpm import dnf
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig, RepoState


@dataclass(frozen=True)
class Request:
    """What a treefile asks for: a name, a pin, a virtual provide or a path. source: file:line."""

    text: str
    source: str


def solve(
    repos: Sequence[RepoConfig],
    states: Sequence[RepoState],
    requests: Sequence[Request],
    *,
    arch: str,
    metadata_cache: Path,
    weak_deps: bool = False,
    exclude: Sequence[str] = (),
    installed_root: Path | None = None,
    dependencies: bool = True,
) -> Lock:
    """Solve requests into a lock.

    states: of the same repositories, read before. installed_root: a root whose packages are there
    and stay. dependencies: whether what the requests depend on comes along. Raises PackageError
    (not found, unsolvable), RepositoryError, ToolFailedError.
    """
    metadata_cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="solve.", dir=metadata_cache) as empty:
        answer = dnf.call(
            {
                "task": "solve" if dependencies else "pick",
                "root": str(installed_root or empty),
                "installed": installed_root is not None,
                "cachedir": str(metadata_cache),
                "arch": arch,
                "weak_deps": weak_deps,
                "exclude": list(exclude),
                "repos": [
                    {"id": repo.id, "baseurl": repo.baseurl, "priority": repo.priority}
                    for repo in repos
                ],
                "requests": [{"text": item.text, "source": item.source} for item in requests],
            }
        )
    _raise_error(answer, repos)
    packages = []
    for row in answer["packages"]:
        kind, digest = row["checksum"]
        if kind != "sha256":
            raise RepositoryError(
                f"repository {row['repo']} names packages by {kind}, not sha256",
                hint="index it with createrepo_c --checksum sha256",
            )
        location = row["location"]
        if location.startswith("/") or ".." in location.split("/") or "/" in row["nevra"]:
            raise RepositoryError(
                f"repository {row['repo']} says that {row['nevra']} is at {location}: no package "
                "is called or stored like that"
            )
        packages.append(
            LockedPackage(
                NEVRA.parse(row["nevra"]),
                row["repo"],
                location,
                digest,
                int(row["size"]),
                row.get("source", ""),
                row.get("required-by", ""),
            )
        )
    generated = max((state.revision or 0 for state in states), default=0)
    repositories = {state.id: f"sha256:{state.repomd}" for state in states}
    ordered = tuple(sorted(packages, key=lambda package: package.nevra))
    return Lock(arch, generated, repositories, ordered)


def _raise_error(answer: dict[str, object], repos: Sequence[RepoConfig]) -> None:
    kind = answer.get("error")
    names = ", ".join(repo.id for repo in repos)
    if kind == "not-found":
        missing = answer["requests"]
        if not isinstance(missing, list):
            raise PackageError("packages were not found")
        first = missing[0]
        more = [f"{item['text']} ({item['source']})" for item in missing[1:]]
        raise PackageError(
            f"no package is or provides {first['text']}, named at {first['source']}"
            + (f"; nor {', '.join(more)}" if more else ""),
            hint=f"looked in: {names}",
            context={"source": first["source"], "package": first["text"]},
        )
    if kind == "unsolvable":
        text = " ".join(str(answer["message"]).split())
        raise PackageError(f"the packages do not go together: {text}", hint=f"looked in: {names}")
    if kind == "repository":
        raise RepositoryError(str(answer["message"]), hint=f"repositories: {names}")
