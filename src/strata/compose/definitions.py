"""What a layer is made of, read once: its flattened treefile, repositories and overlays, and the
same as digested inputs for the build record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import strata
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.files import sha256_file
from strata.core.process import tool_version
from strata.core.record import Input
from strata.rpm.lock import Asked, Lock
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig, load_repo_file, read_states
from strata.rpm.solve import Below, Request, Wishes, asked, solve
from strata.treefile.conditions import Variable
from strata.treefile.overlay import overlay_digest
from strata.treefile.project import Project
from strata.treefile.treefile import Flattened, Sourced, flatten

# What may change the bytes of a tree, beside the definitions and the packages.
TOOLS = ("bwrap", "dnf", "rpm")
ROOMS = ("core", "oci", "ostree", "container", "rpm", "treefile", "compose")


@dataclass(frozen=True)
class Definition:
    """A layer's definition. overlays: (name, folder) in the order they are applied; folder: what
    the names of the treefile's files are relative to."""

    folder: Path
    treefile: Flattened
    repos: tuple[RepoConfig, ...]
    overlays: tuple[tuple[str, Path], ...]

    def inputs(self) -> tuple[Input, ...]:
        """The treefiles and overlays, digested."""
        files = [
            Input("treefile", name, f"sha256:{digest}") for name, digest in self.treefile.inputs
        ]
        overlays = [
            Input("overlay", name, f"sha256:{overlay_digest(path)}") for name, path in self.overlays
        ]
        return (*files, *overlays)

    @property
    def requests(self) -> tuple[Request, ...]:
        """What the treefile asks to install."""
        treefile = self.treefile
        found = [Request(item.text, str(item.source)) for item in treefile.packages]
        place = str(treefile.places.get("repo-packages", ""))
        for group in as_list(treefile.fields.get("repo-packages")):
            for text in group["packages"]:
                found += [Request(name, place, group["repo"]) for name in text.split()]
        return tuple(found)

    @property
    def wishes(self) -> Wishes:
        """How the treefile wants candidates to be chosen."""
        return Wishes(
            weak_deps=self.treefile.recommends,
            exclude=self.treefile.exclude_packages,
            only_pinned=tuple(as_list(self.treefile.fields.get("lockfile-repos"))),
        )

    def asked(self) -> Asked:
        """What a lock of this definition is solved for."""
        return asked(self.repos, self.requests, self.wishes)

    def lock(
        self,
        *,
        arch: str,
        metadata_cache: Path,
        below: Below | None = None,
        pins: Sequence[NEVRA] = (),
    ) -> Lock:
        """Solve the layer's packages. pins: of these names, only these builds.

        Raises PackageError, RepositoryError.
        """
        return solve(
            self.repos,
            read_states(self.repos),
            self.requests,
            arch=arch,
            metadata_cache=metadata_cache,
            wishes=replace(self.wishes, pins=tuple(pins)),
            below=below,
        )


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
) -> Definition:
    """Read a layer's treefile and what it names. Raises DefinitionError.

    treefile: its path in the definitions. store: what `$store` means in .repo files. Fields that no
    build acts on are named, never dropped silently.
    """
    flattened = flatten(project.path / treefile, variables=variables, arch=arch, root=project.path)
    if flattened.passive:
        reporter.warn(f"{treefile}: no effect yet: {', '.join(sorted(flattened.passive))}")
    named = [(wanted.text, str(wanted.source)) for wanted in flattened.repos]
    place = str(flattened.places.get("lockfile-repos", ""))
    named += [(name, place) for name in as_list(flattened.fields.get("lockfile-repos"))]
    wanted = {name for name, _ in named}
    known = known_repos(project, treefile, flattened, wanted, arch=arch, store=store)
    for name, source in named:
        if name not in known:
            raise DefinitionError(
                f"{source}: no repository is called {name}",
                hint=f"strata.toml's repos files have: {', '.join(sorted(known)) or 'none'}",
                context={"file": source, "key": "repos"},
            )
    repos = tuple(known[name] for name in dict.fromkeys(name for name, _ in named))
    for repo in repos:
        if repo.gpgcheck:
            reporter.warn(
                f"repository {repo.id} has gpgcheck=1 in {repo.source}, but signatures are not "
                "checked yet: a package is only held against the sha256 in the repository's index"
            )
    overlays = tuple((item.text, _overlay(project, item, treefile)) for item in flattened.overlays)
    return Definition(project.path, flattened, repos, overlays)


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


def _overlay(project: Project, item: Sourced, treefile: str) -> Path:
    """`overlay/NAME` and `overlay.d/NAME` are two spellings of one folder (requirement R1.12)."""
    base = item.text
    for prefix in ("overlay/", "overlay.d/"):
        base = base.removeprefix(prefix)
    # The treefile that names it may be a submodule's, and have its overlays there.
    naming = (project.path / item.source.file).resolve().parent
    top_folder = project.path.resolve()
    inner = [one for one in (naming, *naming.parents) if top_folder in one.parents]
    for folder in ((project.path / treefile).parent, project.path, *inner):
        for top in ("overlay.d", "overlay"):
            if "/" not in base and (folder / top / base).is_dir():
                return folder / top / base
    raise DefinitionError(
        f"{item.source}: there is no overlay {item.text}",
        hint=f"make the folder overlay.d/{base} beside the treefile or beside strata.toml",
        context={"file": item.source, "key": "ostree-layers"},
    )


def tool_inputs(tools: Sequence[str] = TOOLS) -> tuple[Input, ...]:
    """The outside tools whose version may change the bytes, and strata itself."""
    found = [Input("tool", name, tool_version(name)) for name in tools]
    return (*found, Input("strata", "source", f"sha256:{source_digest()}"))


def source_digest() -> str:
    """sha256 over the rooms of strata's source that decide an image's bytes."""
    root = Path(strata.__file__).parent
    total = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            total.update(f"{path.relative_to(root)}\0{sha256_file(path)}\n".encode())
    return total.hexdigest()
