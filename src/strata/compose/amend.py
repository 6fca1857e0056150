"""What a node layer has beside its treefile, or ahead of its base: components swapped by hand
(`--with`), overrides and hotfixes of strata.toml. Each leaves its provenance in the build.

An override is OS content ahead of the base, on purpose (requirement R3.12). Its debt is how far
ahead it is; once the base has caught up it is redundant, and no longer installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.normalise import LEFT_OVERS
from strata.compose.workspace import Workspace
from strata.core import rooted
from strata.core.errors import DefinitionError, DigestError, TreeError, UsageError
from strata.core.files import canonical_json, json_digest, remove_tree, sha256_file
from strata.core.process import run
from strata.core.record import Input
from strata.ostree.modes import read_xattrs
from strata.rpm.createrepo import index_packages
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig
from strata.rpm.solve import Request
from strata.treefile.project import Project
from strata.treefile.target import Target

LABEL = "strata.with"
WITH = "--with"
REPOSITORY = "strata-with"
AHEAD, REDUNDANT = "ahead", "redundant"
# What a layer may change: the rest of a tree is a machine's own, or empty.
_SHIPPED = ("/usr/", "/etc/")
_CLEANED = tuple(f"/etc/{name}" for name in (*LEFT_OVERS, "machine-id"))


@dataclass(frozen=True)
class Swap:
    """A file put in the place of another, or where none was. path: in the container.

    executable: its source is, which counts where nothing was. of: what it belongs to, as `--with`
    or a hotfix's name.
    """

    path: str
    source: Path
    sha256: str
    of: str
    executable: bool = False


@dataclass(frozen=True)
class LocalPackage:
    """A package file on this machine that takes the place of the one the definitions would have."""

    nevra: NEVRA
    source: Path
    sha256: str
    of: str


@dataclass(frozen=True)
class Ahead:
    """A package of the repositories ahead of the base. nevra: without architecture ("")."""

    nevra: NEVRA
    reason: str
    of: str

    @property
    def text(self) -> str:
        """As it is asked of the solver."""
        return str(self.nevra).removesuffix(".")


@dataclass(frozen=True)
class Debt:
    """How far a package is ahead of the base. base: its build there, or empty."""

    package: str
    base: str
    reason: str
    state: str

    def __str__(self) -> str:
        if self.state == REDUNDANT:
            return f"{self.package} is redundant now: the base has {self.base} ({self.reason})"
        over = f"ahead of the base's {self.base}" if self.base else "not in the base at all"
        return f"{self.package} is {over} ({self.reason})"

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "package": self.package,
            "base": self.base,
            "reason": self.reason,
            "state": self.state,
        }


@dataclass(frozen=True)
class Amendment:
    """All that a build has beside its definition. ahead: without those that are redundant."""

    swaps: tuple[Swap, ...] = ()
    local: tuple[LocalPackage, ...] = ()
    ahead: tuple[Ahead, ...] = ()

    def without_doubles(self) -> Amendment:
        """With one build of each package: a local one before those ahead, a later one of those
        (a hotfix's) before an earlier (an override's)."""
        local = {one.nevra.name for one in self.local}
        last = {one.nevra.name: one for one in self.ahead}
        ahead = tuple(one for one in last.values() if one.nevra.name not in local)
        return replace(self, ahead=ahead)

    @property
    def requests(self) -> tuple[Request, ...]:
        """What is asked of the solver beside the treefile's packages."""
        local = [Request(str(one.nevra), one.of, REPOSITORY, True) for one in self.local]
        return (*(Request(one.text, one.of, amends=True) for one in self.ahead), *local)

    @property
    def names(self) -> tuple[str, ...]:
        """The packages that may change although the layer below has them."""
        nevras = [one.nevra for one in self.ahead] + [one.nevra for one in self.local]
        return tuple(sorted({nevra.name for nevra in nevras}))

    def inputs(self) -> tuple[Input, ...]:
        """What was taken from this machine, digested."""
        return (
            *(
                Input(
                    "with",
                    one.path,
                    json_digest([one.sha256, one.executable, one.source.name, one.of]),
                )
                for one in self.swaps
            ),
            *(
                Input("with", str(one.nevra), json_digest([one.sha256, one.source.name, one.of]))
                for one in self.local
            ),
        )

    def provenance(self) -> list[dict[str, str]]:
        """What was swapped, for the image's label and the record."""
        files = [
            {"path": one.path, "file": one.source.name, "sha256": one.sha256, "of": one.of}
            for one in self.swaps
        ]
        packages = [
            {
                "package": str(one.nevra),
                "file": one.source.name,
                "sha256": one.sha256,
                "of": one.of,
            }
            for one in self.local
        ]
        return sorted(files + packages, key=lambda row: (row.get("path", ""), row["file"]))

    def labels(self, below: Mapping[str, str]) -> Mapping[str, str]:
        """The label that says so; none for a build of its definitions alone.

        below: the base image's labels. What was swapped there is in this image, too.
        """
        found = [*swapped_of(below), *self.provenance()]
        return {LABEL: canonical_json(found).decode()} if found else {}


def swapped_of(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """What an image's label says was swapped; what cannot be read counts as one thing."""
    text = labels.get(LABEL, "[]")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    return [{"file": text, "of": "?"}]


def parse_with(texts: Iterable[str]) -> Amendment:
    """Read `FILE:PATH` and `FILE.rpm`. Raises UsageError."""
    swaps: list[Swap] = []
    local: list[LocalPackage] = []
    for text in texts:
        name, colon, path = text.rpartition(":/")
        if colon:
            swaps.append(make_swap(Path(name), "/" + path, WITH))
        elif text.endswith(".rpm"):
            local.append(local_package(Path(text), WITH))
        else:
            raise UsageError(
                f"--with {text} is neither FILE:/PATH nor a package file",
                hint="--with ./kubelet:/usr/bin/kubelet, or --with ./cri-o-1.33.rpm",
            )
    _check_once([one.path for one in swaps] + [one.nevra.name for one in local])
    return Amendment(tuple(swaps), tuple(local))


def make_swap(source: Path, path: str, of: str) -> Swap:
    """A file for a path of the tree. Raises UsageError when either is not what it has to be."""
    clean = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    if (
        "\0" in path
        or ".." in clean.split("/")
        or not clean.startswith(_SHIPPED)
        or clean.startswith("/usr/etc/")
    ):
        raise UsageError(
            f"{of}: nothing can be put at {path}",
            hint="a node layer changes /usr and /etc; give the path as the machine has it",
        )
    if not source.is_file():
        raise UsageError(f"{of}: {source} is no file")
    executable = bool(source.stat().st_mode & 0o111)
    return Swap(clean, source, sha256_file(source), of, executable)


def local_package(source: Path, of: str) -> LocalPackage:
    """A package file of this machine. of: what it belongs to. Raises UsageError."""
    if not source.is_file():
        raise UsageError(f"{of}: {source} is no file")
    form = "%{NAME}-%|EPOCH?{%{EPOCH}}:{0}|:%{VERSION}-%{RELEASE}.%{ARCH}"
    query = ["rpm", "-qp", "--nosignature", "--nodigest", "--qf", form, str(source.absolute())]
    text = run(query, error=lambda output: UsageError(f"{source} is no package: {output}")).stdout
    return LocalPackage(NEVRA.parse(text), source, sha256_file(source), of)


def _check_once(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--with names {name} twice")


def parse_ahead(text: str, reason: str, of: str) -> Ahead:
    """A package ahead of the base: `name-[epoch:]version-release`. Raises DefinitionError."""
    try:
        nevra = NEVRA.parse(f"{text}.noarch")
    except ValueError:
        raise DefinitionError(
            f"{of}: {text!r} is not name-version-release",
            hint="a package ahead of the base is named exactly, as crun-1.8.1-1",
        ) from None
    return Ahead(NEVRA(nevra.name, nevra.epoch, nevra.version, nevra.release, ""), reason, of)


def overrides_of(project: Project, target: Target) -> tuple[Ahead, ...]:
    """What strata.toml puts ahead of a node layer's base. Raises DefinitionError."""
    return tuple(
        parse_ahead(text, override.reason, f"{override.place}: [[override]]")
        for override in project.overrides
        if override.target == target
        for text in override.packages
    )


def weigh(ahead: Iterable[Ahead], below: Iterable[NEVRA]) -> tuple[tuple[Ahead, ...], list[Debt]]:
    """Which packages ahead still are, and the debt of all of them."""
    there: dict[str, NEVRA] = {}
    for nevra in below:
        there[nevra.name] = max(nevra, there.get(nevra.name, nevra))
    kept, debts = [], []
    for one in ahead:
        base = there.get(one.nevra.name)
        redundant = base is not None and not base.evr < one.nevra.evr
        if not redundant:
            kept.append(one)
        state = REDUNDANT if redundant else AHEAD
        debts.append(Debt(one.text, str(base.evr) if base else "", one.reason, state))
    return tuple(kept), debts


def local_repository(workspace: Workspace, local: Sequence[LocalPackage]) -> RepoConfig:
    """A repository of package files, kept in the store by their content."""
    key = hashlib.sha256("\0".join(sorted(one.sha256 for one in local)).encode()).hexdigest()
    folder = workspace.swapped / key[:16]
    if not (folder / "repodata/repomd.xml").is_file():
        with workspace.scratch("with") as scratch:
            fresh = scratch / "repository"
            fresh.mkdir()
            for one in local:
                copy = fresh / f"{one.nevra}.rpm"
                shutil.copyfile(one.source, copy)
                if sha256_file(copy) != one.sha256:
                    raise DigestError(f"{one.source} changed while it was read")
            index_packages(fresh, revision=0)
            folder.parent.mkdir(parents=True, exist_ok=True)
            remove_tree(folder)
            fresh.rename(folder)
    os.utime(folder)  # used now, which counts where the cache is limited
    return RepoConfig(REPOSITORY, "swapped by hand", f"file://{folder}", 1, False, WITH)


def apply_swaps(root: Path, swaps: Sequence[Swap]) -> dict[str, str]:
    """Put files in their places; returns the sha256 of what each path had before, or empty.

    A file that was there gives its owner, mode and attributes; a new one is root's, executable if
    its source is. Raises TreeError when something is in the way or no layer ships the place,
    DigestError when a source has changed since.
    """
    before = {}
    for swap in swaps:
        target = rooted.resolve(root, swap.path.lstrip("/"))
        where = f"/{target.relative_to(root)}"
        if not where.startswith(_SHIPPED) or where in _CLEANED:
            raise TreeError(
                f"{swap.path} is {where} of the tree, which no layer ships",
                hint="put it below /usr, but not in /usr/local, or in /etc",
            )
        above = next(one for one in target.parents if one.exists())
        if not above.is_dir():
            raise TreeError(f"{swap.path}: {above.relative_to(root)} of the tree is a file")
        if target.is_dir():
            raise TreeError(f"{swap.path} is a folder of the tree; {swap.of} has a file for it")
        before[swap.path] = sha256_file(target) if target.is_file() else ""
        status = target.stat() if target.is_file() else None
        kept = read_xattrs(str(target)) if status else ()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(swap.source, target)
        if sha256_file(target) != swap.sha256:
            raise DigestError(f"{swap.source} changed while the build ran")
        if status:
            shutil.chown(target, status.st_uid, status.st_gid)
        for name, value in kept:
            os.setxattr(target, name, value)
        target.chmod(status.st_mode & 0o7777 if status else (0o755 if swap.executable else 0o644))
    return before
