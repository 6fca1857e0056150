"""Solving extensions: each by itself on one node image's packages, and what all bring together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.context import BuildContext
from strata.core.errors import PackageError
from strata.rpm.inventory import read_inventory
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig
from strata.rpm.repostate import RepoState
from strata.rpm.solve import Below, Request, Wishes, solve
from strata.treefile.extensions import OS_EXTENSION, Extension


@dataclass(frozen=True)
class Solved:
    """An extension and the packages it brings to the node."""

    extension: Extension
    lock: Lock


class Solver:
    """Solves extensions against one node. root: with the node's package database."""

    def __init__(
        self,
        repos: Sequence[RepoConfig],
        states: Sequence[RepoState],
        context: BuildContext,
        root: Path,
    ) -> None:
        self.repos, self.states, self.context, self.root = repos, states, context, root
        self.installed: dict[str, list[NEVRA]] = {}
        for nevra in read_inventory(root).nevras():
            self.installed.setdefault(nevra.name, []).append(nevra)

    def solve(self, extension: Extension) -> Lock:
        """What an extension brings. Raises PackageError naming it and its line."""
        on_node = extension.kind == OS_EXTENSION
        for item in extension.packages if on_node else ():
            if item.text in self.installed:
                raise PackageError(
                    f"{item.source}: extension {extension.name} has {item.text}, which is on the "
                    "node already",
                    hint="`kind: development` takes a package along that nobody installs",
                    context={"source": item.source, "package": item.text},
                )
        base = self._matched(extension)
        suffix = f"-{base.evr}" if base else ""
        requests = [Request(item.text + suffix, str(item.source)) for item in extension.packages]
        try:
            lock = self._solve(requests, on_node)
        except PackageError as error:
            raise self._explained(error, extension, base) from error
        if not lock.packages:
            raise PackageError(
                f"{extension.place}: all that extension {extension.name} asks for is on the node "
                "already",
                context={"source": extension.place},
            )
        return lock

    def _solve(self, requests: Sequence[Request], on_node: bool) -> Lock:
        return solve(
            self.repos,
            self.states,
            requests,
            arch=self.context.arch,
            metadata_cache=self.context.workspace.metadata,
            # A machine that installs an extension takes what it recommends too.
            wishes=Wishes(weak_deps=True),
            below=Below(root=self.root if on_node else None),
            dependencies=on_node,
        )

    def _matched(self, extension: Extension) -> NEVRA | None:
        """The node's package whose EVR an extension's packages have (requirement R4.2)."""
        wanted = extension.match_base_evr
        if wanted is None:
            return None
        found = self.installed.get(wanted.text, [])
        if len(found) != 1:
            have = f"has {len(found)} builds of it" if found else "does not have it"
            raise PackageError(
                f"{wanted.source}: extension {extension.name} matches the version of "
                f"{wanted.text}, and the node {have}",
                context={"source": wanted.source, "package": wanted.text},
            )
        return found[0]

    def _explained(
        self, error: PackageError, extension: Extension, base: NEVRA | None
    ) -> PackageError:
        """The error with its extension; of a version that is not there, with the one that is."""
        missing = str(error.context.get("package", ""))
        if base is None or not missing.endswith(f"-{base.evr}"):
            return PackageError(
                f"extension {extension.name}, {extension.place}: {error.message}",
                hint=error.hint,
                context=error.context,
            )
        name = missing.removesuffix(f"-{base.evr}")
        try:
            there = self._solve([Request(name, "")], on_node=False).packages
        except PackageError:
            there = ()
        have = f"the repositories have {there[0].nevra}" if there else "no repository has it"
        return PackageError(
            f"{error.context['source']}: extension {extension.name} needs {name} in the version of "
            f"{base}, which is on the node; {have}",
            hint="match-base-evr asks for the same epoch, version and release; "
            "give a repository that keeps older builds, or update the base",
            context=error.context,
        )


def together(solved: Sequence[Solved]) -> Lock:
    """The packages of all extensions, each once; the first extension says why one is there.

    Raises PackageError when two extensions bring different builds of one name (R4.6).
    """
    found: dict[str, tuple[LockedPackage, str]] = {}
    for item in solved:
        for package in item.lock.packages:
            name = package.nevra.name
            other, extension = found.setdefault(name, (package, item.extension.name))
            if (other.nevra, other.sha256) != (package.nevra, package.sha256):
                raise PackageError(
                    f"extension {extension} brings {_of(other)}, and extension "
                    f"{item.extension.name} {_of(package)}",
                    hint="extensions.json has one build of a name: let both take the same, by "
                    "their repositories or by naming a version",
                )
    packages = sorted((package for package, _ in found.values()), key=lambda each: each.nevra)
    return replace(solved[0].lock, packages=tuple(packages))


def _of(package: LockedPackage) -> str:
    return f"{package.nevra} of {package.repo}"
