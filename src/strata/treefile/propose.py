"""Propose a `strata.toml` for definitions that exist: build-args files, treefiles, repositories.

Nothing is guessed that is written somewhere. A base is a build-args file that names a MANIFEST, or,
without such files, a treefile called manifest-* that no other includes. A node layer is a
build-args file with an IMAGE_FROM, named for an OS and a release (`build-args-9.8-5.0.conf`), on
the one other treefile beside it. What a person has to look at is in a note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile.buildargs import parse_values
from strata.treefile.fields import ARCHES, KNOWN
from strata.treefile.project import FILE, parse_project
from strata.treefile.yaml import Value, parse_yaml

_NODE_ARGS = re.compile(r"build-args-(.+)-(\d+\.\d+)\.conf")
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")
_MARKER = "openshift-clients"  # what OpenShift's nodes lack before the overlay


@dataclass(frozen=True)
class Proposal:
    """The text of a strata.toml, and what a person has to look at."""

    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Base:
    stream: str
    version: str
    key: str
    path: str


@dataclass(frozen=True)
class _Node:
    release: str
    os: str
    treefile: str
    containerfile: str
    build_args: str
    extensions: str


@dataclass
class _Found:
    repos: list[str] = field(default_factory=list)
    bases: dict[str, _Base] = field(default_factory=dict)
    nodes: list[_Node] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def propose(folder: Path, sources: Sequence[Path]) -> Proposal:
    """A strata.toml in `folder` for definitions in `sources`, folders inside of it.

    Raises DefinitionError when there are none, or when a source is outside of the folder.
    """
    found = _Found()
    for source in sources:
        if not source.is_dir():
            raise DefinitionError(f"there is no folder {source}")
        if folder.resolve() not in (source.resolve(), *source.resolve().parents):
            raise DefinitionError(
                f"{source} is outside of {folder.resolve()}",
                hint=f"{FILE} stands above all it names: clone the repositories side by side",
            )
        _Source(folder, source, found).look()
    if not found.bases and not found.nodes:
        raise DefinitionError(
            "there are no build-args files and no manifest-*.yaml in "
            + ", ".join(str(source) for source in sources),
            hint="name the folders of the definitions with --from",
        )
    text = _text(found)
    parse_project(text, folder)
    return Proposal(text, tuple(found.notes))


class _Source:
    """One folder of definitions."""

    def __init__(self, folder: Path, source: Path, found: _Found) -> None:
        self.folder, self.source, self.found = folder, source, found
        self.parsed: dict[str, Value] = {}
        self.treefiles = self._treefiles()

    def look(self) -> None:
        """Add what is there."""
        self.found.repos += [self._name(path) for path in self._files("*.repo")]
        for path in self._files("build-args*.conf"):
            values = parse_values(path.read_text(encoding="utf-8"), self._name(path))
            if "MANIFEST" in values:
                self._base_by_args(path, values)
            elif "IMAGE_FROM" in values:
                self._node_by_args(path)
        if not self.found.bases:
            for name in sorted(self.treefiles):
                if name.startswith("manifest-"):
                    self._base_by_treefile(name)

    def _name(self, path: Path) -> str:
        return str((self.source.resolve() / path.name).relative_to(self.folder.resolve()))

    def _files(self, pattern: str) -> list[Path]:
        """Files of the folder; links choose a default variant and say nothing new (R1.19)."""
        return sorted(p for p in self.source.glob(pattern) if p.is_file() and not p.is_symlink())

    def _treefiles(self) -> dict[str, Value]:
        """Treefiles that no other one includes, by name."""
        parsed = self.parsed
        included: set[str] = set()
        for path in self._files("*.yaml"):
            document = parse_yaml(path.read_text(encoding="utf-8"), path.name)
            if isinstance(document.data, dict) and set(document.data) <= set(KNOWN):
                parsed[path.name] = document
                included |= set(_included(document))
        return {name: value for name, value in parsed.items() if name not in included}

    def _base_by_args(self, path: Path, values: dict[str, str]) -> None:
        stream, version = values.get("STREAM", ""), values.get("VERSION", "")
        if not re.fullmatch(r"\d+\.\d+", version):
            self.found.notes.append(f"{path.name} has no VERSION of the form X.Y; left out")
            return
        self.found.bases[stream] = _Base(stream, version, "build-args", self._name(path))

    def _base_by_treefile(self, name: str) -> None:
        stream = self._osversion(name) or name.removeprefix("manifest-").removesuffix(".yaml")
        if stream in self.found.bases:
            self.found.notes.append(f"{name} is of {stream} too; left out")
            return
        match = _VERSION.search(stream)
        version = f"{match[1]}.{match[2] or 0}" if match else "0.0"
        self.found.notes.append(f"stream {stream}: its version, {version}, is from its name")
        treefile = self._name(self.source / name)
        self.found.bases[stream] = _Base(stream, version, "treefile", treefile)

    def _osversion(self, name: str) -> str:
        """The osversion that a treefile, or one that it includes, sets; empty for none. Conditions
        ask for it, and a stream's name is its osversion where nothing else says it."""
        waiting, seen = [name], set[str]()
        while waiting:
            document = self.parsed.get(waiting.pop())
            if document is None or document.place.file in seen:
                continue
            seen.add(document.place.file)
            members = document.data if isinstance(document.data, dict) else {}
            variables = members.get("variables")
            if variables and isinstance(variables.data, dict) and "osversion" in variables.data:
                return str(variables.data["osversion"].data)
            waiting += reversed(_included(document))
        return ""

    def _node_by_args(self, path: Path) -> None:
        match = _NODE_ARGS.fullmatch(path.name)
        layers = [name for name in self.treefiles if not name.startswith(("manifest", "image"))]
        if not match or len(layers) != 1:
            why = "its name does not say OS and release" if not match else "no one treefile"
            self.found.notes.append(f"{path.name} is a node layer's, but {why}; left out")
            return
        containerfile = self.source / "Containerfile"
        self.found.nodes.append(
            _Node(
                release=match[2],
                os=match[1],
                treefile=self._name(self.source / layers[0]),
                containerfile=self._name(containerfile) if containerfile.is_file() else "",
                build_args=self._name(path),
                extensions=self._extensions(match[1]),
            )
        )
        members = self.treefiles[layers[0]].data
        packages = members.get("packages") if isinstance(members, dict) else None
        for item in packages.data if packages and isinstance(packages.data, list) else ():
            self.found.packages += str(item.data).split()

    def _extensions(self, os_name: str) -> str:
        """extensions/ID-VERSION.yaml of an OS: `9.8` is rhel-9.8, `c10s` centos-10."""
        stream = re.fullmatch(r"c(\d+)s", os_name)
        names = [f"centos-{stream[1]}"] if stream else [f"rhel-{os_name}", os_name]
        for name in names:
            path = self.source / "extensions" / f"{name}.yaml"
            if path.is_file():
                return str(path.resolve().relative_to(self.folder.resolve()))
        return ""


def _included(document: Value) -> list[str]:
    """The names of the files that a treefile includes, whatever its conditions."""
    members = document.data if isinstance(document.data, dict) else {}
    values = [members.get("include")]
    by_arch = members.get("arch-include")
    if by_arch and isinstance(by_arch.data, dict):
        values += by_arch.data.values()
    conditional = members.get("conditional-include")
    for item in conditional.data if conditional and isinstance(conditional.data, list) else ():
        values.append(item.data.get("include") if isinstance(item.data, dict) else None)
    names = []
    for value in values:
        data = value.data if value else None
        names += [item.data for item in data] if isinstance(data, list) else [data]
    return [name for name in names if isinstance(name, str)]


# --- writing it ----------------------------------------------------------------------------------


def _text(found: _Found) -> str:
    lines = ["# Written by `strata init`; see docs/treefiles.md.", "schema = 1"]
    lines.append(f"repos = {_list(found.repos)}")
    if found.packages:
        lines.append(f"node-only = {_list(sorted(set(found.packages)))}")
    if _MARKER in found.packages:
        lines.append(f'marker = "{_MARKER}"')
    for base in found.bases.values():
        lines += [
            "",
            f"[stream.{_key(base.stream)}]",
            f'version = "{base.version}"',
            f"arches = {_list(ARCHES)}",
            f'coreos = {{ {base.key} = "{base.path}" }}',
        ]
    if found.bases:
        found.notes.append("arches: all four were put in; keep those that the repositories have")
    primary: set[str] = set()
    for node in found.nodes:
        stream = _stream_of(node, found)
        if not stream:
            found.notes.append(f"{node.build_args}: no stream is called {node.os}; left out")
            continue
        lines += ["", f"[release.{_key(node.release)}.node.{_key(stream)}]"]
        if node.release not in primary:
            lines.append("primary = true")
            primary.add(node.release)
            found.notes.append(f"release {node.release}: {stream} was made the primary stream")
        lines.append(f'treefile = "{node.treefile}"')
        if node.containerfile:
            lines.append(
                f'containerfile = {{ file = "{node.containerfile}", '
                f'build-args = "{node.build_args}" }}'
            )
        if node.extensions:
            lines.append(f'extensions = "{node.extensions}"')
    return "\n".join(lines) + "\n"


def _stream_of(node: _Node, found: _Found) -> str:
    """The stream a node layer is for: by its name, or its version."""
    for base in found.bases.values():
        if node.os == base.stream or base.stream.endswith(f"-{node.os}"):
            return base.stream
    return ""


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def _list(items: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{item}"' for item in items) + "]"
