"""Lint of an extensions file against its repositories, on every architecture of the stream (R4.3).

What `treefile.extensionlint` can only suspect from the file is looked up here: whether a repository
is there on an architecture, and whether the newest build of a package is the same on all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from strata.compose.definitions import known_repos
from strata.compose.variant import stream_variables
from strata.core.errors import RepositoryError
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig
from strata.rpm.repostate import read_state, read_states
from strata.rpm.solve import find_builds
from strata.treefile.extensions import Extensions, load_extensions
from strata.treefile.lint import ERROR, WARNING, Finding
from strata.treefile.project import Project
from strata.treefile.target import Target
from strata.treefile.treefile import Sourced, flatten


def lint_repositories(
    project: Project, target: Target, files: Path, metadata: Path
) -> tuple[Finding, ...]:
    """All findings of an extensions target's repositories, by place.

    files: what `$store` means in .repo files; metadata: the store's cache of it.
    Raises DefinitionError, OfflineError, SignatureError.
    """
    node = project.node(target)
    file = load_extensions(project.path, node.extensions)
    arches = project.stream(target.stream).arches
    repos = {arch: _repos(project, target, file, arch, files) for arch in arches}
    there = {arch: _there(repos[arch], metadata) for arch in arches}
    found = [*_missing(file, there), *_available(file, there)]
    found += _skew(file, repos, there, metadata)
    return tuple(sorted(set(found)))


def _repos(
    project: Project, target: Target, file: Extensions, arch: str, files: Path
) -> dict[str, RepoConfig]:
    """The repositories that any of the file's extensions names, as they are on an architecture."""
    treefile = project.node(target).treefile
    variables = {**stream_variables(project.stream(target.stream)), "deriving": True}
    flat = flatten(project.path / treefile, variables=variables, arch=arch, root=project.path)
    named = {repo.text for repo in _named(file)}
    known = known_repos(project, treefile, flat, named, arch=arch, store=files)
    return {name: repo for name, repo in known.items() if name in named}


def _named(file: Extensions) -> tuple[Sourced, ...]:
    return (*file.repos, *(repo for item in file.extensions for repo in item.repos))


def _there(repos: Mapping[str, RepoConfig], metadata: Path) -> dict[str, str]:
    """Of each repository, empty when its index is there and right, else what is wrong."""
    found = {}
    for name, repo in repos.items():
        try:
            read_state(repo, metadata)
        except RepositoryError as error:
            found[name] = error.message
        else:
            found[name] = ""
    return found


def _missing(file: Extensions, there: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """A repository that an architecture's build would look in, and cannot."""
    for arch, states in there.items():
        for repo in file.repos_on(arch):
            why = states.get(repo.text, "no .repo file has it")
            if why:
                yield Finding(
                    str(repo.source),
                    "repository-missing",
                    ERROR,
                    f"{repo.text} is not there on {arch}, where extensions are looked for: {why}",
                )


def _available(file: Extensions, there: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """A repository that is there where nobody looks in it."""
    for repo in {repo.text: repo for repo in _named(file)}.values():
        looked = [arch for arch in there if repo.text in {r.text for r in file.repos_on(arch)}]
        more = [arch for arch in there if arch not in looked and there[arch].get(repo.text) == ""]
        if looked and more:
            yield Finding(
                str(repo.source),
                "repository-available",
                WARNING,
                f"{repo.text} is only looked in on {', '.join(looked)}, and is there on "
                f"{', '.join(more)} too: name it in the file's `repos`",
            )


def _skew(
    file: Extensions,
    repos: Mapping[str, Mapping[str, RepoConfig]],
    there: Mapping[str, Mapping[str, str]],
    metadata: Path,
) -> Iterator[Finding]:
    """A package whose newest build is another one on some architecture."""
    newest: dict[str, dict[str, NEVRA]] = {}
    places: dict[str, Sourced] = {}
    for arch in there:
        wanted = {item.text: item for one in file.on(arch) for item in one.packages}
        looked = [
            repos[arch][repo.text]
            for repo in file.repos_on(arch)
            if there[arch].get(repo.text) == ""
        ]
        places.update({name: item for name, item in wanted.items() if name not in places})
        states = read_states(looked, metadata)
        builds = find_builds(looked, states, tuple(wanted), arch=arch, metadata_cache=metadata)
        for build in builds:
            best = newest.setdefault(build.nevra.name, {})
            if arch not in best or best[arch].evr < build.nevra.evr:
                best[arch] = build.nevra
    for name, by_arch in newest.items():
        if len({nevra.evr for nevra in by_arch.values()}) > 1:
            builds_text = ", ".join(f"{nevra.evr} on {arch}" for arch, nevra in by_arch.items())
            yield Finding(
                str(places[name].source),
                "version-skew",
                WARNING,
                f"{name} is another one by architecture: {builds_text}",
            )
