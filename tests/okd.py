"""docs/okd.md, carried out: clone, look, lint, lock; on stand-ins or on the real definitions.

The repositories are recorded ones: where a .repo file says `https://HOST/PATH`, an index of just
the packages that the treefiles name is put at `RECORDED/HOST/PATH`, for all architectures.
"""

from __future__ import annotations

import fnmatch
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from recorded import Recorded, record, recorded
from strata.compose.definitions import Definition, load_definition
from strata.compose.variant import variant_of
from strata.core.events import silent
from strata.rpm.repofile import RepoConfig
from strata.treefile.buildargs import load_build_args
from strata.treefile.conditions import Variable
from strata.treefile.lint import NOTE, lint
from strata.treefile.project import Project, load_project
from strata.treefile.target import Target
from strata.treefile.treefile import flatten

ROOT = Path(__file__).resolve().parent.parent
DEFINITIONS = ROOT / "definitions" / "centos-stream-10"
DOCUMENT = ROOT / "docs" / "okd.md"
REVISION = 1_790_000_000
ARCHES = ("x86_64", "aarch64", "ppc64le", "s390x")
NODE_SYSTEMS = ("rhel-9.8", "rhel-10.2", "centos-10")
CHECKOUTS = ("rhel-coreos-config", "os")


@dataclass(frozen=True)
class Looked:
    """A treefile, flattened and linted. findings: errors and warnings, in words."""

    label: str
    packages: int
    findings: tuple[str, ...]
    took_s: float


def look(folder: Path) -> Iterator[Looked]:
    """Every base of rhel-coreos-config and every OS of the node layer, on all architectures.

    A base is a build-args file; in definitions of old, a manifest that sets its own osversion.
    """
    config = folder / "rhel-coreos-config"
    variants = sorted(path for path in config.glob("build-args-*.conf") if not path.is_symlink())
    manifests = sorted(path for path in config.glob("manifest-*.yaml") if not path.is_symlink())
    for path in variants:
        arguments = load_build_args(path, path.name)
        yield from _look(path.name, config / arguments.manifest, arguments.variables)
    for path in manifests if not variants else ():
        yield from _look(path.name, path, {})
    for osversion in NODE_SYSTEMS:
        variables: dict[str, Variable] = {"osversion": osversion, "deriving": True}
        yield from _look(f"node {osversion}", folder / "os/packages-openshift.yaml", variables)


def _look(label: str, path: Path, variables: Mapping[str, Variable]) -> Iterator[Looked]:
    for arch in ARCHES:
        started = time.monotonic()
        flat = flatten(path, variables=variables, arch=arch, root=path.parent)
        took_s = time.monotonic() - started
        found = [f"{one.place}: {one.message}" for one in lint(flat) if one.severity != NOTE]
        yield Looked(f"{label} {arch}", len(flat.packages), tuple(found), took_s)


def commands() -> list[list[str]]:
    """The commands of docs/okd.md, in order, but for changes of the folder."""
    lines = [
        shlex.split(line.partition("  #")[0])
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith(("    git ", "    strata "))
    ]
    return [line for line in lines if line]


def status_of(argv: list[str]) -> int:
    """How a command of the document ends: `strata lint --public` has something to tell."""
    return 1 if argv[1:3] == ["lint", "--public"] else 0


def lay_out(folder: Path) -> None:
    """The definitions as they are kept, in a folder of their own."""
    folder.mkdir(parents=True)
    for name in ("strata.toml", "internal.repo"):
        shutil.copy(DEFINITIONS / name, folder / name)


def run(argv: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of the document, where it is to be run."""
    argv = (
        [str(Path(sys.executable).with_name("strata")), *argv[1:]] if argv[0] == "strata" else argv
    )
    values = {**os.environ, "STRATA_STORE": str(folder / "store"), **environment}
    return subprocess.run(argv, cwd=folder, env=values, capture_output=True, text=True, check=False)


def use_recorded(folder: Path, recordings: Path) -> int:
    """Let the .repo files of definitions name recorded repositories, and record them.

    Returns how many packages were recorded, for all architectures together.
    """
    for file in load_project(folder).repos:
        path = folder / file
        path.write_text(path.read_text().replace("https://", f"file://{recordings}/"))
    project = load_project(folder)
    held: dict[tuple[Path, str], dict[str, Recorded]] = {}
    for repo, arch, packages in _wanted(project, folder):
        place = (Path(repo.baseurl.removeprefix("file://")), arch)
        held.setdefault(place, {}).update({package.name: package for package in packages})
    for (address, arch), known in held.items():
        record(address, known.values(), arch=arch, revision=REVISION)
    return sum(len(known) for known in held.values())


def _wanted(project: Project, folder: Path) -> Iterator[tuple[RepoConfig, str, list[Recorded]]]:
    """Every repository of every layer and architecture, with its share of what the layer asks."""
    for target in project.targets():
        if target.kind not in ("coreos", "node"):
            continue
        stream = project.stream(target.stream or target.name)
        for arch in stream.arches:
            definition = _definition(project, target, arch, folder)
            shares: dict[str, list[Recorded]] = {repo.id: [] for repo in definition.repos}
            for number, (package, wanted) in enumerate(_packages(definition)):
                able = [
                    repo.id
                    for repo in definition.repos
                    if _may_have(repo, package) and wanted in ("", repo.id)
                ]
                shares[able[number % len(able)]].append(package)
            for repo in definition.repos:
                yield repo, arch, shares[repo.id]


def _packages(definition: Definition) -> list[tuple[Recorded, str]]:
    """One build of each package asked for, with the repository it has to come from."""
    found: dict[str, tuple[Recorded, str]] = {}
    for request in definition.requests:
        package = recorded(request.text)
        other, repo = found.get(package.name, (package, ""))
        plain = package == Recorded(package.name)  # any build will do
        found[package.name] = (other if plain else package, request.repo or repo)
    return list(found.values())


def _definition(project: Project, target: Target, arch: str, folder: Path) -> Definition:
    variant = variant_of(project, Target("coreos", target.stream or target.name))
    node = target.kind == "node"
    return load_definition(
        project,
        project.node(target).treefile if node else variant.treefile,
        variables={**variant.variables, "deriving": node},
        arch=arch,
        store=folder / "store",
        reporter=silent(),
    )


def _may_have(repo: RepoConfig, package: Recorded) -> bool:
    def like(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(package.name, pattern) for pattern in patterns)

    return (not repo.include or like(repo.include)) and not like(repo.exclude)
