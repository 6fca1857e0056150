"""Requests become a lock: dnf's solver decides, once; everything after it is exact.

A base layer is solved from nothing. A node layer is solved with the base's packages installed: they
stay as they are, and newer candidates of theirs in the repositories are not looked at (R3.4).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from strata.core.errors import OfflineError, PackageError, RepositoryError
from strata.core.network import HINT, offline
from strata.rpm import dnf
from strata.rpm.advisories import Advisory, parse_advisory
from strata.rpm.answers import Answers
from strata.rpm.evict import in_use
from strata.rpm.lock import Asked, Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.problems import explain
from strata.rpm.repofile import RepoConfig
from strata.rpm.repostate import RepoState, keep_states, read_states


@dataclass(frozen=True)
class Request:
    """What a treefile asks for: a name, a pin, a virtual provide or a path.

    source: file:line. repo: the one repository it has to come from, or empty. amends: it takes the
    place of what others ask for (swapped by hand, ahead of the base).
    """

    text: str
    source: str
    repo: str = ""
    amends: bool = False

    def __str__(self) -> str:
        return f"{self.text} from {self.repo}" if self.repo else self.text


@dataclass(frozen=True)
class Below:
    """The packages of the layers below, which stay as they are and need no repository's leave.

    Either root, a folder with their package database; or locked, when nothing is built yet, with
    the repositories they come from (and nothing else does).
    """

    root: Path | None = None
    locked: tuple[NEVRA, ...] = ()
    repos: tuple[RepoConfig, ...] = ()


@dataclass(frozen=True)
class Wishes:
    """How to choose among candidates.

    exclude: name patterns never to install. pins: of these names, only these builds. only_pinned:
    repositories (ids) from which nothing but pins comes (requirement R1.8). replace: names of the
    layer below that may change after all. platform: of modules, as `platform:el9`; empty for what
    the packages say.
    """

    weak_deps: bool = False
    exclude: tuple[str, ...] = ()
    pins: tuple[NEVRA, ...] = ()
    only_pinned: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    platform: str = ""


def asked(repos: Sequence[RepoConfig], requests: Sequence[Request], wishes: Wishes) -> Asked:
    """What a lock of these is solved for."""
    return Asked(
        tuple(sorted({str(item) for item in requests})),
        tuple(repo.id for repo in repos),
        tuple(sorted(set(wishes.exclude))),
        wishes.weak_deps,
    )


def solve(
    repos: Sequence[RepoConfig],
    states: Sequence[RepoState],
    requests: Sequence[Request],
    *,
    arch: str,
    metadata_cache: Path,
    wishes: Wishes | None = None,
    below: Below | None = None,
    dependencies: bool = True,
    answers: Answers | None = None,
) -> Lock:
    """Solve requests into a lock.

    states: of the same repositories, read before. dependencies: whether what
    the requests depend on comes along. answers: of earlier questions; None asks dnf anyway.
    Raises PackageError (not found, unsolvable), RepositoryError (also when a repository changed
    since its state was read), OfflineError, ToolFailedError.
    """
    wishes, below = wishes or Wishes(), below or Below()
    pins = [str(nevra) for nevra in wishes.pins]
    locked = [str(nevra) for nevra in below.locked]
    others = _others(below.repos, repos)
    every, every_state = [*repos, *others], [*states, *read_states(others, metadata_cache)]
    described = [
        _description(repo, pins if repo.id in wishes.only_pinned else None) for repo in repos
    ] + [_description(repo, locked) for repo in others]
    task = {
        "task": "solve" if dependencies else "pick",
        "installed": below.root is not None,
        "weak_deps": wishes.weak_deps,
        "exclude": list(wishes.exclude),
        "pins": pins,
        "below": locked,
        "replace": list(wishes.replace),
        "platform": wishes.platform,
        "requests": [asdict(item) for item in requests],
    }
    key = answers.key(task, described, every_state, arch, below.root) if answers else ""
    answer = answers.recall(key) if answers else None
    if answer is None:
        answer = _ask(task, described, arch, metadata_cache, below.root)
        _raise_error(answer, repos, requests)
        _check_indexes(answer["indexes"], every_state)
        keep_states(every, every_state, metadata_cache)
        if answers:
            answers.keep(key, answer)
    generated = max((state.revision or 0 for state in states), default=0)
    repositories = {state.id: f"sha256:{state.repomd}" for state in states}
    packages = sorted(map(_locked, answer["packages"]), key=lambda package: package.nevra)
    return Lock(arch, generated, repositories, tuple(packages), asked(repos, requests, wishes))


def find_builds(
    repos: Sequence[RepoConfig],
    states: Sequence[RepoState],
    names: Sequence[str],
    *,
    arch: str,
    metadata_cache: Path,
) -> tuple[LockedPackage, ...]:
    """Every build that repositories have of packages, by name. states: of them, read before.

    Raises RepositoryError, OfflineError.
    """
    task = {"task": "find", "names": sorted(names)}
    answer = _ask(task, [_description(repo, None) for repo in repos], arch, metadata_cache, None)
    _raise_error(answer, repos)
    _check_indexes(answer["indexes"], states)
    return tuple(map(_locked, answer["packages"]))


def read_notices(
    repos: Sequence[RepoConfig],
    states: Sequence[RepoState],
    packages: Sequence[NEVRA],
    *,
    arch: str,
    metadata_cache: Path,
) -> tuple[Mapping[str, int], tuple[Advisory, ...]]:
    """When each repository was made (seconds, by id), and its security advisories of packages.

    states: of them, read before. Raises RepositoryError, OfflineError.
    """
    task = {"task": "notices", "packages": sorted(map(str, packages))}
    answer = _ask(task, [_description(repo, None) for repo in repos], arch, metadata_cache, None)
    _raise_error(answer, repos)
    _check_indexes(answer["indexes"], states)
    return answer["times"], tuple(sorted(map(parse_advisory, answer["advisories"])))


def _others(below: Sequence[RepoConfig], own: Sequence[RepoConfig]) -> list[RepoConfig]:
    """Where the packages of the layers below come from. A layer's own repositories have them too,
    unless an id means another place there: two definitions, two files."""
    places = {(repo.id, repo.baseurl) for repo in own}
    taken = {repo.id for repo in own}
    found = []
    for repo in below:
        if (repo.id, repo.baseurl) not in places:
            name = repo.id
            while name in taken:
                name += "-below"
            taken.add(name)
            found.append(replace(repo, id=name))
    return found


def _description(repo: RepoConfig, only: list[str] | None) -> dict[str, object]:
    return {
        "id": repo.id,
        "baseurl": repo.baseurl,
        "priority": repo.priority,
        "cached": offline() and not repo.is_local,
        "only": only,
        "include": list(repo.include),
        "exclude": list(repo.exclude),
    }


def _ask(
    task: Mapping[str, object],
    repos: Sequence[Mapping[str, object]],
    arch: str,
    cache: Path,
    root: Path | None,
) -> dict[str, Any]:
    with in_use(cache), tempfile.TemporaryDirectory(prefix="solve.", dir=cache) as empty:
        common = {"root": str(root or empty), "cachedir": str(cache), "arch": arch, "repos": repos}
        return dnf.call({**task, **common})


def _locked(row: Mapping[str, Any]) -> LockedPackage:
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
    return LockedPackage(
        NEVRA.parse(row["nevra"]),
        row["repo"],
        location,
        digest,
        int(row["size"]),
        row.get("source", ""),
        row.get("required-by", ""),
        row["sourcerpm"],
    )


def _check_indexes(solved_with: dict[str, str], states: Sequence[RepoState]) -> None:
    """Refuse an answer from another index than the one that was read, verified and recorded."""
    for state in states:
        if solved_with[state.id] != state.repomd:
            what = f"repository {state.id} changed while it was read"
            if offline():
                what = f"what dnf has of repository {state.id} is not what was read last"
            raise RepositoryError(
                what,
                hint=HINT if offline() else "run the command again",
                context={"expected": state.repomd, "actual": solved_with[state.id]},
            )


def _why_hidden(missing: Mapping[str, str]) -> str:
    """Why a package that a repository has is no candidate; empty when none has it."""
    if "below" in missing:
        return (
            f"{missing['below']} is in the layer below, whose packages stay as they are; a node "
            f"layer goes ahead of it on purpose: [[override]] in strata.toml, with "
            f'packages = ["{missing["text"]}"]'
        )
    if "hidden" in missing:
        return (
            f"{missing['hidden']} would be it, but exclude-packages, a lock or its repository's "
            "file leaves it out"
        )
    return ""


def _contradiction(answer: Mapping[str, Any]) -> PackageError:
    """The error of a pin against a build that is to take its place."""
    asked_for, by, build = answer["request"], answer["by"], answer["build"]
    which = "" if build.startswith(asked_for["text"]) else f", which is {build}"
    return PackageError(
        f"{asked_for['source']} asks for {asked_for['text']}{which}, but {by['source']} brings "
        f"{by['text']}",
        hint=f"name the package without a version there, or leave {by['source']} out",
        context={"source": asked_for["source"], "package": asked_for["text"]},
    )


def _raise_error(
    answer: dict[str, object], repos: Sequence[RepoConfig], requests: Sequence[Request] = ()
) -> None:
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
            hint=_why_hidden(first) or f"looked in: {names}",
            context={"source": first["source"], "package": first["text"]},
        )
    if kind == "contradiction":
        raise _contradiction(answer)
    if kind == "unsolvable":
        places = [(item.text, item.source) for item in requests]
        text, asked_for = explain(str(answer["message"]), places)
        by = f"asked for: {', '.join(asked_for)}; " if asked_for else ""
        raise PackageError(
            f"the packages do not go together: {text}",
            hint=f"{by}looked in: {names}",
            context={"explanation": str(answer["message"])},
        )
    if kind == "repository" and offline():
        raise OfflineError(
            f"dnf has not all of the repositories' indexes: {answer['message']}", hint=HINT
        )
    if kind == "repository":
        raise RepositoryError(str(answer["message"]), hint=f"repositories: {names}")
