"""`strata.toml`: which streams, releases, overrides and hotfixes there are. Parsed strictly."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.core.errors import DefinitionError, UsageError
from strata.core.files import json_digest
from strata.treefile import schema
from strata.treefile.fields import ARCHES
from strata.treefile.public import is_prefix
from strata.treefile.target import Target
from strata.treefile.toml import TomlDocument

FILE = "strata.toml"
SCHEMA_VERSION = 1
MAX_BYTES = 1 << 20
COMPOSEFS = ("no", "maybe", "yes", "signed", "verity")  # as prepare-root.conf writes it
STREAM_BASE = "stream"  # a node layer's base is its stream's CoreOS image


@dataclass(frozen=True)
class LayerSource:
    """Where a base layer comes from: one of a treefile, a foreign image, a build-args file."""

    treefile: str = ""
    image: str = ""
    build_args: str = ""


@dataclass(frozen=True)
class BootImages:
    """Which boot images a stream has. platforms, live: empty for none."""

    config: str
    formats: tuple[str, ...]
    platforms: str = ""
    live: str = ""


@dataclass(frozen=True)
class Stream:
    """An OS stream: versioned with the OS, shared by releases. bootc: None for two layers.

    version: X.Y, empty where its treefiles or build-args files say it. content_sets, composefs:
    empty for none.
    """

    name: str
    version: str
    arches: tuple[str, ...]
    bootc: LayerSource | None
    coreos: LayerSource
    lock: str
    tag: str
    version_labels: bool
    content_sets: str
    composefs: str
    bootimages: BootImages | None


@dataclass(frozen=True)
class NodeStream:
    """A release's node layer on one stream. base: "stream" or an image reference."""

    release: str
    stream: str
    primary: bool
    base: str
    treefile: str
    containerfile: str
    build_args: str
    extensions: str
    payload_tag: str
    tag: str
    lock: str = ""
    other_releases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Override:
    """OS content ahead of the base, on purpose. place: `file:line` of its packages."""

    target: Target
    packages: tuple[str, ...]
    reason: str
    place: str = FILE


@dataclass(frozen=True)
class Hotfix:
    """A change of a node image for one case, until a day. place: `file:line` of that day."""

    name: str
    target: Target
    files: Mapping[str, str]
    packages: tuple[str, ...]
    expires: datetime.date
    reason: str
    place: str = FILE


@dataclass(frozen=True)
class Project:
    """The definitions in a folder."""

    path: Path
    repos: tuple[str, ...]
    public: tuple[str, ...]
    registry: str
    node_only: tuple[str, ...]
    revision_labels: bool
    marker: str
    streams: Mapping[str, Stream]
    nodes: tuple[NodeStream, ...]
    overrides: tuple[Override, ...]
    hotfixes: tuple[Hotfix, ...]
    tables: Mapping[str, Any]

    def stream(self, name: str) -> Stream:
        """A stream by name. Raises UsageError naming those that exist."""
        if name not in self.streams:
            raise UsageError(
                f"there is no stream {name}",
                hint=f"strata.toml has: {', '.join(sorted(self.streams)) or 'none'}",
            )
        return self.streams[name]

    def node(self, target: Target) -> NodeStream:
        """The node stream of a target; without `@STREAM` the release's primary one."""
        of_release = [node for node in self.nodes if node.release == target.name]
        for node in of_release:
            if node.stream == target.stream or (not target.stream and node.primary):
                return node
        known = sorted(f"node/{node.release}@{node.stream}" for node in self.nodes)
        raise UsageError(
            f"there is no {target}", hint=f"strata.toml has: {', '.join(known) or 'no release'}"
        )

    def lock_of(self, target: Target) -> str:
        """The file that keeps a target's lock, in the definitions; empty for none.

        Extensions keep none: they are solved on the very image that they go on.
        """
        if target.kind == "node":
            return self.node(target).lock
        return self.stream(target.name).lock if target.kind in ("bootc", "coreos") else ""

    def hotfix(self, name: str) -> Hotfix:
        """A hotfix by name. Raises UsageError naming those that exist."""
        for hotfix in self.hotfixes:
            if hotfix.name == name:
                return hotfix
        known = ", ".join(sorted(hotfix.name for hotfix in self.hotfixes)) or "none"
        raise UsageError(f"there is no hotfix {name}", hint=f"strata.toml has: {known}")

    def node_of(self, target: Target) -> Target:
        """The node target that a node or hotfix target is of, with its stream."""
        return self.hotfix(target.name).target if target.kind == "hotfix" else target

    def canonical(self, target: Target) -> Target:
        """The target with its stream spelled out. Raises UsageError when it does not exist."""
        if target.kind in ("node", "extensions"):
            node = self.node(target)
            if target.kind == "extensions" and not node.extensions:
                raise UsageError(
                    f"node/{node.release}@{node.stream} has no extensions file",
                    hint='say `extensions = "FILE"` in its table of strata.toml',
                )
            return Target(target.kind, target.name, node.stream)
        if target.kind in ("bootc", "coreos", "bootimage"):
            self.stream(target.name)
        if target.kind == "hotfix":
            self.hotfix(target.name)
        return target

    def targets(self) -> tuple[Target, ...]:
        """Every base, node and extensions target, in build order."""
        found = []
        for stream in self.streams.values():
            if stream.bootc and not stream.bootc.image:
                found.append(Target("bootc", stream.name))
            found.append(Target("coreos", stream.name))
        for node in self.nodes:
            found.append(Target("node", node.release, node.stream))
            if node.extensions:
                found.append(Target("extensions", node.release, node.stream))
        return tuple(found)

    def definition_digest(self, target: Target) -> str:
        """`sha256:…` of the lines of strata.toml that concern a target, and only those."""
        value: dict[str, object]
        if target.kind == "extensions":
            table = self.tables["release"][target.name]["node"][target.stream]
            value = {"extensions": table["extensions"]}
        elif target.kind in ("node", "hotfix"):
            node = self.node_of(target)
            table = dict(self.tables["release"][node.name]["node"][node.stream])
            table.pop("extensions", None)  # they stand on the node, and not the node on them
            mine = [
                {"packages": item.packages, "reason": item.reason}
                for item in self.overrides
                if item.target == node
            ]
            value = {"node": table, "override": mine}
            if target.kind == "hotfix":
                value = {**value, "hotfix": self._hotfix_table(target.name)}
        else:
            stream = self.tables["stream"][target.name]
            layer = "bootc" if target.kind == "bootc" else "coreos"
            only = self.tables.get("node-only", [])
            value = {"version": stream.get("version"), layer: stream.get(layer), "node-only": only}
            for key in ("version-labels", "composefs") if layer == "coreos" else ():
                if key in stream:
                    value[key] = stream[key]
        return json_digest(value)

    def _hotfix_table(self, name: str) -> dict[str, str]:
        table = next(item for item in self.tables["hotfix"] if item["name"] == name)
        return {key: str(value) for key, value in table.items()}


def load_project(folder: Path) -> Project:
    """Read the definitions in a folder. Raises DefinitionError with file, line and key."""
    path = folder / FILE
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DefinitionError(f"{path} is larger than {MAX_BYTES} bytes")
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise DefinitionError(
            f"there is no {FILE} in {folder.absolute()}",
            hint="say where the definitions are with -C DIR",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} cannot be read: {error}") from error
    return parse_project(text, folder)


def parse_project(text: str, folder: Path) -> Project:
    """Read strata.toml's text; files it names must exist in `folder`. Raises DefinitionError."""
    document = TomlDocument(text, FILE)
    values = document.values
    document.check(values, schema.TOP, ())
    if values["schema"] != SCHEMA_VERSION:
        raise document.error(("schema",), f"must be {SCHEMA_VERSION}")
    reader = _Reader(document, folder)
    for name in values.get("repos", ()):
        reader.file(("repos",), name)
    for prefix in values.get("public", ()):
        if not is_prefix(prefix):
            hint = 'e.g. "https://mirror.example/" or "registry.example/os"'
            raise document.error(("public",), f"has {prefix!r}, no prefix of addresses", hint)
    streams = {
        name: reader.stream(name, table) for name, table in reader.tables(values, "stream").items()
    }
    nodes = reader.nodes(reader.tables(values, "release"), streams)
    project = Project(
        path=folder,
        repos=tuple(values.get("repos", ())),
        public=tuple(values.get("public", ())),
        registry=values.get("registry", ""),
        node_only=tuple(values.get("node-only", ())),
        revision_labels=values.get("revision-labels", False),
        marker=values.get("marker", ""),
        streams=streams,
        nodes=nodes,
        overrides=(),
        hotfixes=(),
        tables=values,
    )
    return Project(
        **{
            **project.__dict__,
            "overrides": reader.overrides(values.get("override", []), project),
            "hotfixes": reader.hotfixes(values.get("hotfix", []), project),
        }
    )


class _Reader:
    def __init__(self, document: TomlDocument, folder: Path) -> None:
        self.document, self.folder = document, folder

    def tables(self, values: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
        tables = values.get(name, {})
        if not isinstance(tables, dict) or not all(isinstance(v, dict) for v in tables.values()):
            raise self.document.error((name,), f"must be tables: [{name}.NAME]")
        return tables

    def file(self, path: tuple[str, ...], name: str) -> str:
        """A file the definitions name: it exists and is inside of them."""
        if not self._inside(path, name).is_file():
            raise self.document.error(path, f"names a file that is not there: {name}")
        return name

    def inside(self, path: tuple[str, ...], name: str) -> str:
        """A path of the definitions, which need not exist; empty for none."""
        if name:
            self._inside(path, name)
        return name

    def _inside(self, path: tuple[str, ...], name: str) -> Path:
        folder = self.folder.resolve()
        target = (folder / name).resolve()
        if folder not in target.parents:
            raise self.document.error(path, f"leads out of the definitions: {name}")
        return target

    def stream(self, name: str, table: dict[str, Any]) -> Stream:
        path = ("stream", name)
        self.document.check(table, schema.STREAM, path)
        version = table.get("version", "")
        if "version" in table and not re.fullmatch(r"\d+\.\d+", version):
            raise self.document.error((*path, "version"), "must be X.Y, two numbers")
        for arch in table["arches"]:
            if arch not in ARCHES:
                known = ", ".join(ARCHES)
                raise self.document.error((*path, "arches"), f"has {arch!r}; known: {known}")
        images = table.get("bootimages")
        coreos = self._layer((*path, "coreos"), table["coreos"])
        return Stream(
            name=name,
            version=version,
            arches=tuple(table["arches"]),
            bootc=self._layer((*path, "bootc"), table["bootc"]) if "bootc" in table else None,
            coreos=coreos,
            lock=self.inside((*path, "lock"), table.get("lock", "")),
            tag=self._tag((*path, "tag"), table, version),
            version_labels=table.get("version-labels", False),
            content_sets=self._optional((*path, "content-sets"), table),
            composefs=self._composefs((*path, "composefs"), table.get("composefs", "")),
            bootimages=self._bootimages((*path, "bootimages"), images) if images else None,
        )

    def _tag(self, path: tuple[str, ...], table: dict[str, Any], version: str) -> str:
        """A tag; one that moves with a version needs a stream that has one."""
        tag = str(table.get("tag", ""))
        if "version}" in tag and not version:
            raise self.document.error(
                path, "has a version in it, and the stream has none", 'say version = "X.Y" there'
            )
        return tag

    def _optional(self, path: tuple[str, ...], table: dict[str, Any]) -> str:
        """A file that a key names, empty without the key."""
        return self.file(path, table[path[-1]]) if path[-1] in table else ""

    def _composefs(self, path: tuple[str, ...], value: str) -> str:
        if value and value not in COMPOSEFS:
            raise self.document.error(path, f"must be one of {', '.join(COMPOSEFS)}")
        return value

    def _bootimages(self, path: tuple[str, ...], table: dict[str, Any]) -> BootImages:
        live = table.get("live", "")
        if live and not self._inside((*path, "live"), live).is_dir():
            raise self.document.error((*path, "live"), f"names a folder that is not there: {live}")
        return BootImages(
            self.file((*path, "config"), table["config"]),
            tuple(table["formats"]),
            self._optional((*path, "platforms"), table),
            live,
        )

    def _layer(self, path: tuple[str, ...], table: dict[str, Any]) -> LayerSource:
        if len(table) != 1:
            raise self.document.error(path, "must have one of treefile, from, build-args")
        for key in ("treefile", "build-args"):
            if key in table:
                self.file(path, table[key])
        image = table.get("from", "")
        if image and "@sha256:" not in image:
            raise self.document.error(path, "must name its image by digest (@sha256:…)")
        return LayerSource(table.get("treefile", ""), image, table.get("build-args", ""))

    def nodes(
        self, releases: dict[str, dict[str, Any]], streams: Mapping[str, Stream]
    ) -> tuple[NodeStream, ...]:
        nodes: list[NodeStream] = []
        for release, table in releases.items():
            for key in table:
                if key != "node":
                    raise self.document.error(
                        ("release", release, key),
                        "is not a key of strata.toml",
                        f'write [release."{release}".node.STREAM]',
                    )
            of_release = [
                self._node(release, stream, values, streams)
                for stream, values in self.tables(table, "node").items()
            ]
            primaries = sum(node.primary for node in of_release)
            if primaries != 1:
                raise self.document.error(
                    ("release", release),
                    f"has {primaries} primary node streams; it must have exactly one",
                )
            nodes += of_release
        return tuple(nodes)

    def _node(
        self, release: str, stream: str, table: dict[str, Any], streams: Mapping[str, Stream]
    ) -> NodeStream:
        path = ("release", release, "node", stream)
        self.document.check(table, schema.NODE, path)
        if stream not in streams:
            known = ", ".join(sorted(streams)) or "none"
            raise self.document.error(path, f"is for a stream that is not defined; known: {known}")
        container = table.get("containerfile", {})
        for key, value in container.items():
            self.file((*path, "containerfile", key), value)
        if "extensions" in table:
            self.file((*path, "extensions"), table["extensions"])
        return NodeStream(
            release=release,
            stream=stream,
            primary=table.get("primary", False),
            base=table.get("base", STREAM_BASE),
            treefile=self.file((*path, "treefile"), table["treefile"]),
            containerfile=container.get("file", ""),
            build_args=container.get("build-args", ""),
            extensions=table.get("extensions", ""),
            payload_tag=table.get("payload-tag", ""),
            tag=self._tag((*path, "tag"), table, streams[stream].version),
            lock=self.inside((*path, "lock"), table.get("lock", "")),
            other_releases=tuple(table.get("other-releases", ())),
        )

    def _target(self, path: tuple[str, ...], text: str, project: Project) -> Target:
        try:
            target = Target.parse(text)
            if target.kind != "node":
                raise UsageError(f"{text} is not a node target")
            return project.canonical(target)
        except UsageError as error:
            raise self.document.error(path, f"is wrong: {error.message}", error.hint) from error

    def _items(self, values: Any, name: str) -> list[dict[str, Any]]:
        if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
            raise self.document.error((name,), f"must be a list of tables: [[{name}]]")
        return values

    def overrides(self, values: Any, project: Project) -> tuple[Override, ...]:
        found = []
        for index, table in enumerate(self._items(values, "override")):
            path = ("override", str(index))
            self.document.check(table, schema.OVERRIDE, path)
            target = self._target((*path, "target"), table["target"], project)
            place = self.document.place((*path, "packages"))
            found.append(Override(target, tuple(table["packages"]), table["reason"], place))
        return tuple(found)

    def hotfixes(self, values: Any, project: Project) -> tuple[Hotfix, ...]:
        found: list[Hotfix] = []
        for index, table in enumerate(self._items(values, "hotfix")):
            path = ("hotfix", str(index))
            self.document.check(table, schema.HOTFIX, path)
            files, packages = table.get("files", {}), tuple(table.get("packages", ()))
            if not files and not packages:
                raise self.document.error(path, "changes nothing: it needs files or packages")
            if any(fix.name == table["name"] for fix in found):
                raise self.document.error((*path, "name"), f"{table['name']} stands twice")
            for source in files.values():
                self.file((*path, "files"), source)
            target = self._target((*path, "target"), table["target"], project)
            reason, expires = table["reason"], table["expires"]
            place = self.document.place((*path, "expires"))
            found.append(Hotfix(table["name"], target, files, packages, expires, reason, place))
        return tuple(found)
