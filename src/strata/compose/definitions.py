"""What a layer is made of, read once: its flattened treefile, repositories and overlays, and the
same as digested inputs for the build record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import strata
from strata.compose.amend import Amendment, local_repository
from strata.compose.arrange import find_overlays
from strata.compose.content import added_mode
from strata.compose.workspace import Workspace
from strata.core.clock import source_date_epoch
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.files import json_digest, sha256_file
from strata.core.process import tool_version
from strata.core.record import Input
from strata.rpm.answers import Answers
from strata.rpm.lock import Asked, Lock
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig, load_repo_file
from strata.rpm.repostate import read_states
from strata.rpm.solve import Below, Request, Wishes, asked, solve
from strata.treefile.conditions import Variable
from strata.treefile.overlay import overlay_digest
from strata.treefile.project import Project
from strata.treefile.refused import refuse
from strata.treefile.treefile import Flattened, Sourced, flatten
from strata.treefile.userlists import UserLists, with_user_lists

# What may change the bytes of a tree, beside the definitions and the packages.
TOOLS = ("bwrap", "dnf", "rpm")
_OF_ACCESS = ("name", "source", "gpgkeys", "credentials")
ROOMS = ("core", "oci", "ostree", "container", "rpm", "treefile", "inspect", "compose")


@dataclass(frozen=True)
class Definition:
    """A layer's definition. overlays: (name, folder) in the order they are applied; folder: what
    the names of the treefile's files are relative to. repo_inputs: the repositories, digested.
    amendment: what it has beside the treefile.
    """

    folder: Path
    treefile: Flattened
    repos: tuple[RepoConfig, ...]
    overlays: tuple[tuple[str, Path], ...]
    repo_inputs: tuple[Input, ...] = ()
    amendment: Amendment = field(default_factory=Amendment)

    def inputs(self) -> tuple[Input, ...]:
        """The repositories, treefiles, overlays and added files, digested."""
        files = [
            Input("treefile", name, f"sha256:{digest}") for name, digest in self.treefile.inputs
        ]
        overlays = [
            Input("overlay", name, f"sha256:{overlay_digest(path)}") for name, path in self.overlays
        ]
        added = [
            Input("overlay", item.target, json_digest([f"{added_mode(path):o}", sha256_file(path)]))
            for item in self.treefile.files
            if item.field == "add-files"
            for path in (self.folder / item.path,)
        ]
        return (*self.repo_inputs, *files, *overlays, *added)

    def paths(self) -> tuple[Path, ...]:
        """The files and folders that the layer is made of, beside strata.toml and .repo files."""
        files = [self.folder / name for name, _ in self.treefile.inputs]
        files += [
            self.folder / item.path for item in self.treefile.files if item.field == "add-files"
        ]
        return (*files, *(path for _, path in self.overlays))

    @property
    def requests(self) -> tuple[Request, ...]:
        """What the treefile asks to install."""
        treefile = self.treefile
        found = [Request(item.text, str(item.source)) for item in treefile.packages]
        place = str(treefile.places.get("repo-packages", ""))
        for group in as_list(treefile.fields.get("repo-packages")):
            for text in group["packages"]:
                found += [Request(name, place, group["repo"]) for name in text.split()]
        return (*found, *self.amendment.requests)

    @property
    def wishes(self) -> Wishes:
        """How the treefile wants candidates to be chosen."""
        return Wishes(
            weak_deps=self.treefile.recommends,
            exclude=self.treefile.exclude_packages,
            only_pinned=tuple(as_list(self.treefile.fields.get("lockfile-repos"))),
            replace=self.amendment.names,
            platform=self.treefile.text("platform-module"),
        )

    def asked(self) -> Asked:
        """What a lock of this definition is solved for."""
        return asked(self.repos, self.requests, self.wishes)

    def lock(
        self,
        *,
        arch: str,
        workspace: Workspace,
        below: Below | None = None,
        pins: Sequence[NEVRA] = (),
    ) -> Lock:
        """Solve the layer's packages. pins: of these names, only these builds.

        Raises PackageError, RepositoryError.
        """
        return solve(
            self.repos,
            read_states(self.repos, workspace.metadata),
            self.requests,
            arch=arch,
            metadata_cache=workspace.metadata,
            wishes=replace(self.wishes, pins=tuple(pins)),
            below=below,
            answers=Answers(workspace.solved, f"{tool_version('dnf')}, {source_digest()}"),
        )


def amended(definition: Definition, amendment: Amendment, workspace: Workspace) -> Definition:
    """A definition with what a build has beside it."""
    repos = definition.repos
    if amendment.local:
        repos = (*repos, local_repository(workspace, amendment.local))
    return replace(definition, amendment=amendment, repos=repos)


def as_list(value: object) -> list[Any]:
    """A treefile's list; empty when the field is absent."""
    return value if isinstance(value, list) else []


def load_definition(
    project: Project,
    treefile: str,
    *,
    variables: Mapping[str, Variable],
    arch: str,
    store: Path,
    reporter: Reporter,
    more_repos: Sequence[Sourced] = (),
    users: UserLists | None = None,
) -> Definition:
    """Read a layer's treefile and what it names. Raises DefinitionError.

    treefile: its path in the definitions. store: what `$store` means in .repo files. more_repos:
    named elsewhere, after the treefile's own. users: of a build-args file. Fields that mean nothing
    in a layer on top of an image are named, never dropped silently.
    """
    flattened = flatten(project.path / treefile, variables=variables, arch=arch, root=project.path)
    if users:
        flattened = with_user_lists(flattened, project.path, users)
    refuse(flattened)
    if flattened.unfit:
        names = ", ".join(flattened.unfit)
        reporter.warn(f"{treefile}: not honoured in a layer on top of an image: {names}")
    asked_for = (*flattened.repos, *more_repos)
    named = [(wanted.text, str(wanted.source)) for wanted in asked_for]
    place = str(flattened.places.get("lockfile-repos", ""))
    named += [(name, place) for name in as_list(flattened.fields.get("lockfile-repos"))]
    wanted = {name for name, _ in named}
    known = known_repos(project, treefile, flattened, wanted, arch=arch, store=store)
    for name, source in named:
        if name not in known:
            files = ", ".join(project.repos) or "no .repo file"
            raise DefinitionError(
                f"{source}: no repository is called {name}",
                hint=f"{files} has: {', '.join(sorted(known)) or 'none'}",
                context={"file": source, "key": "repos"},
            )
    repos = tuple(known[name] for name in dict.fromkeys(name for name, _ in named))
    overlays = find_overlays(project.path, treefile, flattened.overlays)
    # Where the store is does not count.
    nowhere = Path("$store")
    portable = known_repos(project, treefile, flattened, wanted, arch=arch, store=nowhere)
    inputs = tuple(_repository_input(portable[repo.id]) for repo in repos)
    return Definition(project.path, flattened, repos, overlays, inputs)


def _repository_input(repo: RepoConfig) -> Input:
    """What its .repo file says of a repository's packages: not its name, who may have signed it, or
    how one is let in."""
    values = {key: value for key, value in asdict(repo).items() if key not in _OF_ACCESS}
    return Input("definition", f"repository {repo.id}", json_digest(values))


def known_repos(
    project: Project,
    treefile: str,
    flattened: Flattened,
    wanted: AbstractSet[str],
    *,
    arch: str,
    store: Path,
) -> dict[str, RepoConfig]:
    """The repositories that a layer may name, by id. Raises DefinitionError, also when it is open
    which one of the wanted ids means.

    Where several .repo files have an id, the one beside the layer's treefile counts: a base and a
    node layer from two checkouts may each mean another place by it.
    """
    variables = {**_repo_variables(flattened), "store": str(store)}
    beside = (project.path / treefile).resolve().parent
    near = [file for file in project.repos if (project.path / file).resolve().parent == beside]
    known: dict[str, RepoConfig] = {}
    for files in (near, [file for file in project.repos if file not in near]):
        decided = set(known)
        for file in files:
            for repo in load_repo_file(project.path / file, variables=variables, arch=arch):
                other = known.setdefault(repo.id, replace(repo, source=file))
                if repo.id in wanted - decided and other.baseurl != repo.baseurl:
                    raise DefinitionError(
                        f"repository {repo.id} is another one in {file} than in {other.source}",
                        hint=f"keep one of them in strata.toml, or put one beside {treefile}",
                        context={"file": file, "key": repo.id},
                    )
    return known


def _repo_variables(treefile: Flattened) -> dict[str, str]:
    """What a treefile sets in .repo files: `repovars`, and `$releasever`."""
    given = treefile.fields.get("repovars")
    variables = {key: str(value) for key, value in given.items()} if isinstance(given, dict) else {}
    if "releasever" in treefile.fields:
        variables["releasever"] = str(treefile.fields["releasever"])
    return variables


def content_time(below: int, lock: Lock) -> tuple[int, tuple[Input, ...]]:
    """The time that files and records of a layer say, in seconds, and the input it is when given.

    It is that of the newest content, of the repositories or of the commit below (its time, 0 for
    none), unless SOURCE_DATE_EPOCH says another.
    """
    given = source_date_epoch()
    if given is None:
        return max(lock.generated, below), ()
    return given, (Input("clock", "SOURCE_DATE_EPOCH", str(given)),)


def tool_inputs(tools: Sequence[str] = TOOLS, rooms: Sequence[str] = ROOMS) -> tuple[Input, ...]:
    """The outside tools whose version may change the bytes, and strata itself, by its rooms."""
    found = [Input("tool", name, tool_version(name)) for name in tools]
    return (*found, Input("strata", "source", f"sha256:{source_digest(tuple(rooms))}"))


@cache
def source_digest(rooms: tuple[str, ...] = ROOMS) -> str:
    """sha256 over the rooms of strata's source that decide an image's bytes."""
    root = Path(strata.__file__).parent
    total = hashlib.sha256()
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            total.update(f"{path.relative_to(root)}\0{sha256_file(path)}\n".encode())
    return total.hexdigest()
