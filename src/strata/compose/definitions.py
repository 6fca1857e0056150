"""What a layer is made of, read once: its flattened treefile, repositories and overlays, and the
same as digested inputs for the build record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import strata
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.files import sha256_file
from strata.core.process import tool_version
from strata.core.record import Input
from strata.rpm.lock import Lock
from strata.rpm.repofile import RepoConfig, load_repo_file, read_states
from strata.rpm.solve import Request, solve
from strata.treefile.conditions import Variable
from strata.treefile.overlay import overlay_digest
from strata.treefile.project import Project
from strata.treefile.treefile import Flattened, Sourced, flatten, without_doubles

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

    def lock(self, *, arch: str, metadata_cache: Path, installed_root: Path | None = None) -> Lock:
        """Solve the layer's packages. Raises PackageError, RepositoryError."""
        treefile = self.treefile
        return solve(
            self.repos,
            read_states(self.repos),
            [Request(item.text, str(item.source)) for item in treefile.packages],
            arch=arch,
            metadata_cache=metadata_cache,
            weak_deps=treefile.recommends,
            exclude=treefile.exclude_packages,
            installed_root=installed_root,
        )


def load_definition(
    project: Project,
    treefile: str,
    *,
    variables: Mapping[str, Variable],
    arch: str,
    store: Path,
    reporter: Reporter,
    more_repos: Sequence[Sourced] = (),
) -> Definition:
    """Read a layer's treefile and what it names. Raises DefinitionError.

    treefile: its path in the definitions. store: what `$store` means in .repo files. more_repos:
    named elsewhere, after the treefile's own. Fields that no build acts on are named, never dropped
    silently.
    """
    flattened = flatten(project.path / treefile, variables=variables, arch=arch, root=project.path)
    if flattened.passive:
        reporter.warn(f"{treefile}: no effect yet: {', '.join(sorted(flattened.passive))}")
    known_to_repos = {**_repo_variables(flattened), "store": str(store)}
    known = {
        repo.id: repo
        for file in project.repos
        for repo in load_repo_file(project.path / file, variables=known_to_repos, arch=arch)
    }
    named = without_doubles((*flattened.repos, *more_repos))
    for wanted in named:
        if wanted.text not in known:
            raise DefinitionError(
                f"{wanted.source}: no repository is called {wanted.text}",
                hint=f"strata.toml's repos files have: {', '.join(sorted(known)) or 'none'}",
                context={"file": wanted.source, "key": "repos"},
            )
    repos = tuple(known[wanted.text] for wanted in named)
    for repo in repos:
        if repo.gpgcheck:
            reporter.warn(
                f"repository {repo.id} has gpgcheck=1 in {repo.source}, but signatures are not "
                "checked yet: a package is only held against the sha256 in the repository's index"
            )
    overlays = tuple((item.text, _overlay(project, item, treefile)) for item in flattened.overlays)
    return Definition(project.path, flattened, repos, overlays)


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
    for folder in ((project.path / treefile).parent, project.path):
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
