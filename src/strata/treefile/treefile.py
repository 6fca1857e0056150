"""Treefiles: read one with all it includes, for one architecture and set of variables.

The order is rpm-ostree's, to the letter. A file's `include`s come first, then those of its
architecture, then those of its conditions that hold; an inline treefile is part of the file itself.
Each is merged into the file before the next: of lists, what is merged stands before what was there,
so that the items of a later include come before those of an earlier one, and the file's own last
(which is why a script of a late include may run too early). Of single values the file's own wins,
then the earliest include's. Mappings are merged key by key. Conditions see the variables of the
files above them and of those read before; the includer's value of a variable wins. A file may be
included once. Every value remembers its line and how it came to be included, so that an error and
`explain` can say so.

Source: rpm-ostree's rust/src/treefile.rs (treefile_parse_recurse, treefile_merge).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile.conditions import Condition, Variable
from strata.treefile.fields import APPEND, FIELDS, KNOWN, LEGACY, UNION
from strata.treefile.shapes import require
from strata.treefile.sources import Sources
from strata.treefile.yaml import Place, Value, definition_error, parse_yaml, unknown_key

MAX_INCLUDES = 256
_ARCH_PACKAGES = re.compile(r"packages-([a-z0-9_]+)")
_SUBSTITUTED = re.compile(r"\$\{([A-Za-z0-9_]+)\}")


@dataclass(frozen=True)
class Step:
    """How a file, or an inline treefile, came to be included.

    place: the line that names it; name: the file, empty for an inline treefile; conditions: what
    had to hold.
    """

    place: Place
    name: str
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sourced:
    """A piece of text, the line it stands on, and the includes that lead there."""

    text: str
    source: Place
    chain: tuple[Step, ...] = ()


@dataclass(frozen=True)
class NamedFile:
    """A file that a field names. path: relative to the root; target: where add-files puts it."""

    field: str
    path: str
    source: Place
    target: str = ""


@dataclass(frozen=True)
class Flattened:
    """A treefile with all its includes. inputs: every file read, with the sha256 of its bytes.

    named: every mention of a package, in order; packages: the first of each. files: what the
    treefiles name beside themselves (scripts, files to add, users), among the inputs too. fields:
    all that was said, merged, as plain values; packages there are names, sorted. variables: as they
    were at the end. documents: the treefiles as they are written.
    """

    named: tuple[Sourced, ...]
    packages: tuple[Sourced, ...]
    repos: tuple[Sourced, ...]
    postprocess: tuple[Sourced, ...]
    overlays: tuple[Sourced, ...]
    excluded: tuple[Sourced, ...]
    files: tuple[NamedFile, ...]
    fields: Mapping[str, object]
    places: Mapping[str, Place]
    variables: Mapping[str, Variable]
    documents: tuple[Value, ...]
    inputs: tuple[tuple[str, str], ...]

    @property
    def exclude_packages(self) -> tuple[str, ...]:
        """Packages that may not be installed."""
        return tuple(item.text for item in self.excluded)

    @property
    def remove_files(self) -> tuple[str, ...]:
        """Paths deleted after the install."""
        return self.texts("remove-files")

    @property
    def documentation(self) -> bool:
        """Whether documentation is installed."""
        return self.fields.get("documentation") is not False

    @property
    def recommends(self) -> bool:
        """Whether weak dependencies are installed."""
        return self.fields.get("recommends") is not False

    @property
    def mutate_os_release(self) -> str:
        """The text in os-release that the version replaces; empty for none."""
        return self.text("mutate-os-release")

    @property
    def metadata(self) -> Mapping[str, object]:
        """Free values for tools."""
        return self.mapping("metadata")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty when the field is absent."""
        found = self.fields.get(key)
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def mapping(self, key: str) -> Mapping[str, object]:
        """A mapping; empty when the field is absent."""
        found = self.fields.get(key)
        return found if isinstance(found, dict) else {}

    def text(self, key: str, default: str = "") -> str:
        """A text; the default when the field is absent."""
        return str(self.fields.get(key, default))

    @property
    def unfit(self) -> tuple[str, ...]:
        """Fields that mean nothing in a layer put on top of an image (requirement R1.22), sorted.

        Empty for a base layer.
        """
        deriving = self.variables.get("deriving") is True
        return tuple(sorted(key for key in self.fields if deriving and not FIELDS[key].applies))


def flatten(
    path: Path, *, variables: Mapping[str, Variable], arch: str, root: Path | None = None
) -> Flattened:
    """Read a treefile and all it includes.

    variables: set from outside; they win. root: the folder that names in messages and inputs are
    relative to, and that no include leaves (default: the treefile's own). Raises DefinitionError
    with file, line and column.
    """
    loader = _Loader(root or path.parent, variables, arch)
    return _finish(loader.load(path, ()), loader)


@dataclass(frozen=True)
class _Item:
    """A value and the includes that lead to it."""

    value: Value
    chain: tuple[Step, ...]


@dataclass
class _Config:
    """A treefile's fields, as merged so far. lists: of APPEND; single: of FIRST and UNION."""

    lists: dict[str, list[_Item]] = field(default_factory=dict)
    single: dict[str, _Item] = field(default_factory=dict)

    def merge(self, included: _Config) -> None:
        """What is included stands first in lists, and loses elsewhere."""
        for key, items in included.lists.items():
            self.lists[key] = items + self.lists.get(key, [])
        for key, item in included.single.items():
            mine = self.single.get(key)
            if mine is None:
                self.single[key] = item
            elif FIELDS[key].merge == UNION:
                both = {**_mapping(item.value), **_mapping(mine.value)}
                self.single[key] = _Item(Value(both, mine.value.place), mine.chain)


@dataclass(frozen=True)
class _Wanted:
    """A file to include: its name as it is written, where, and under which conditions."""

    name: str
    place: Place
    conditions: tuple[str, ...] = ()


class _Loader:
    def __init__(self, top: Path, variables: Mapping[str, Variable], arch: str) -> None:
        self.sources, self.arch = Sources(top), arch
        self.variables: dict[str, Variable] = {"basearch": arch, **variables}
        self.documents: list[Value] = []
        self.open: list[str] = []
        self.included_by: dict[str, str] = {}

    def load(self, path: Path, chain: tuple[Step, ...]) -> _Config:
        """A file and all it includes."""
        at = chain[-1].place if chain else None
        where = f"{at}: " if at else ""
        name = self.sources.name(path, where)
        if name in self.open:
            names = " → ".join((*self.open, name))
            raise DefinitionError(
                f"{where}the treefiles include each other in a circle: {names}",
                context={"file": name},
            )
        if name in self.sources.inputs:
            raise DefinitionError(
                f"{where}{name} is included already, at {self.included_by[name]}",
                hint="rpm-ostree takes a file once; include it where all need it",
                context={"file": name},
            )
        if len(self.sources.inputs) >= MAX_INCLUDES:
            raise DefinitionError(f"{where}more than {MAX_INCLUDES} files are included")
        try:
            text = self.sources.text(name, where)
        except FileNotFoundError:
            raise DefinitionError(
                f"{where}there is no treefile {name}",
                hint=self.sources.hint_of_missing(name),
                context={"file": name},
            ) from None
        document = parse_yaml(text, name)
        self.documents.append(document)
        self.included_by[name] = str(at or name)
        self.open.append(name)
        ignored = Path(name).suffix == ".json"  # there rpm-ostree passes over what it does not know
        config = self._config(
            document, (self.sources.top / name).parent, chain, unknown_ignored=ignored
        )
        self.open.pop()
        return config

    def named(self, name: str, place: Place) -> str:
        """A file beside a treefile, digested; its path relative to the top. Raises
        DefinitionError."""
        beside = (self.sources.top / place.file).resolve().parent
        where = self.sources.name(beside / name, f"{place}: ")
        try:
            self.sources.read(where)
        except OSError as error:
            raise definition_error(place, f"{where} cannot be read: {error.strerror}") from error
        return where

    def _config(
        self,
        document: Value,
        folder: Path,
        chain: tuple[Step, ...],
        *,
        unknown_ignored: bool = False,
    ) -> _Config:
        """A treefile's own fields, and all that it includes merged into them."""
        config = _Config()
        if document.data is None:
            return config
        members = _mapping(document)
        for key, value in members.items():
            if key not in KNOWN and not _ARCH_PACKAGES.fullmatch(key):
                if unknown_ignored:
                    continue
                raise unknown_key(
                    key,
                    value.place,
                    KNOWN,
                    document="a treefile",
                    hint="see docs/treefiles.md for the keys",
                )
            self._own(config, key, value, chain)
        self._set_variables(config)
        wanted = [_Wanted(name, place) for name, place in _names(members.get("include"))]
        if "arch-include" in members:
            by_arch = _mapping(members["arch-include"])
            condition = (f'basearch == "{self.arch}"',)
            names = _names(by_arch.get(self.arch))
            wanted += [_Wanted(name, place, condition) for name, place in names]
        for item in _list(members.get("conditional-include")):
            wanted += self._conditional(config, item, folder, chain)
        for each in wanted:
            step = Step(each.place, str(Path(each.name)), each.conditions)
            config.merge(self.load(folder / each.name, (*chain, step)))
        return config

    def _set_variables(self, config: _Config) -> None:
        if "variables" in config.single:
            for key, value in _mapping(config.single["variables"].value).items():
                self.variables.setdefault(key, _variable(value))
        for key in ("releasever", "basearch"):
            if key in config.single:
                self.variables.setdefault(key, _variable(config.single[key].value))

    def _conditional(
        self, config: _Config, item: Value, folder: Path, chain: tuple[Step, ...]
    ) -> list[_Wanted]:
        """The files a condition adds; an inline treefile is merged at once."""
        members = _mapping(item)
        if set(members) != {"if", "include"}:
            raise definition_error(
                item.place, "a conditional-include has exactly `if` and `include`"
            )
        conditions = [Condition.parse(text, place) for text, place in _names(members["if"])]
        # All are asked, so that a mistake shows whatever the others say.
        held = [condition.holds(self.variables) for condition in conditions]
        if not all(held):
            return []
        texts = tuple(condition.text for condition in conditions)
        include = members["include"]
        if isinstance(include.data, dict):
            step = Step(include.place, "", texts)
            config.merge(self._config(include, folder, (*chain, step)))
            return []
        return [_Wanted(name, place, texts) for name, place in _names(include)]

    def _own(self, config: _Config, key: str, value: Value, chain: tuple[Step, ...]) -> None:
        if value.data is None or key in ("include", "conditional-include", "arch-include"):
            return
        match = _ARCH_PACKAGES.fullmatch(key)
        name = "packages" if match else LEGACY.get(key, key)
        declared = FIELDS[name]
        require(declared.shape, key, value)
        if match and match[1] != self.arch:
            return
        if declared.merge == APPEND:
            items = [_Item(item, chain) for item in _list(value)]
            config.lists.setdefault(name, []).extend(items)
        elif name in config.single:
            raise definition_error(value.place, f"{key} stands beside {name}; write one of them")
        else:
            config.single[name] = _Item(value, chain)


# --- from merged values to a Flattened -----------------------------------------------------------


def split_packages(text: str) -> tuple[str, ...]:
    """The names of one entry: by white space, but for what stands in single quotes.

    Raises ValueError when a quote is not closed.
    """
    parts = text.split("'")
    if len(parts) % 2 == 0:
        raise ValueError(f"{text!r} has a quote that is not closed")
    names: list[str] = []
    for number, part in enumerate(parts):
        names += [part] if number % 2 else part.split()
    return tuple(names)


def _named_files(config: _Config, loader: _Loader) -> Iterator[NamedFile]:
    """Files that fields name, relative to the treefile that does; read, so that they are inputs."""
    for key in ("postprocess-script", "check-passwd", "check-groups"):
        item = config.single.get(key)
        if item is None:
            continue
        name = item.value if key == "postprocess-script" else _mapping(item.value).get("filename")
        if name is not None:
            yield NamedFile(key, loader.named(str(name.data), item.value.place), item.value.place)
    for each in config.lists.get("add-files", ()):
        place = each.value.place
        source, target = (str(part.data) for part in _list(each.value)[:2])
        yield NamedFile("add-files", loader.named(source, place), place, target)


def _finish(config: _Config, loader: _Loader) -> Flattened:
    variables = loader.variables
    files = tuple(_named_files(config, loader))

    def texts(key: str) -> Iterator[Sourced]:
        for item in config.lists.get(key, ()):
            yield Sourced(str(item.value.data), item.value.place, item.chain)

    named = tuple(
        Sourced(name, item.source, item.chain)
        for item in texts("packages")
        for name in _split(item)
    )
    packages = without_doubles(named)
    fields: dict[str, object] = {}
    places: dict[str, Place] = {}
    for key in (key for key in FIELDS if key in config.lists or key in config.single):
        fields[key], places[key] = _resolved(key, config, variables)
    if packages:
        fields["packages"] = sorted(item.text for item in packages)
    return Flattened(
        named=named,
        packages=packages,
        repos=without_doubles(texts("repos")),
        postprocess=tuple(texts("postprocess")),
        overlays=without_doubles((*texts("ostree-layers"), *texts("ostree-override-layers"))),
        excluded=tuple(texts("exclude-packages")),
        files=files,
        fields=fields,
        places=places,
        variables=dict(variables),
        documents=tuple(loader.documents),
        inputs=loader.sources.digests(),
    )


def _resolved(key: str, config: _Config, variables: Mapping[str, Variable]) -> tuple[object, Place]:
    """A field's plain value, variables replaced, and where it stands."""
    if key in config.lists:
        items = config.lists[key]
        place = items[0].value.place if items else Place("", 0, 0)
        return [plain(item.value) for item in items], place
    value = config.single[key].value
    found = plain(value)
    if FIELDS[key].substituted:
        if isinstance(found, dict):
            found = {
                name: _substitute(item, variables, _mapping(value)[name].place)
                for name, item in found.items()
            }
        else:
            found = _substitute(found, variables, value.place)
    return found, value.place


def _substitute(value: object, variables: Mapping[str, Variable], place: Place) -> object:
    """`${name}` in a text becomes the variable's value. Raises DefinitionError."""
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise definition_error(
                place,
                f"the variable {match[1]} is not set",
                f"known: {', '.join(sorted(variables))}",
            )
        found = variables[match[1]]
        return str(found).lower() if isinstance(found, bool) else str(found)

    return _SUBSTITUTED.sub(replaced, value)


def _split(item: Sourced) -> tuple[str, ...]:
    try:
        return split_packages(item.text)
    except ValueError as error:
        raise definition_error(item.source, str(error)) from None


def without_doubles(items: Iterable[Sourced]) -> tuple[Sourced, ...]:
    """Without doubles; the first line that names something is the one that counts."""
    found: dict[str, Sourced] = {}
    for item in items:
        found.setdefault(item.text, item)
    return tuple(found.values())


# --- values --------------------------------------------------------------------------------------


def plain(value: Value) -> object:
    """A Value without its places."""
    if isinstance(value.data, list):
        return [plain(item) for item in value.data]
    if isinstance(value.data, dict):
        return {key: plain(item) for key, item in value.data.items()}
    return value.data


def _variable(value: Value) -> Variable:
    data = value.data
    return data if isinstance(data, (bool, int)) else str(data)


def _mapping(value: Value) -> dict[str, Value]:
    if not isinstance(value.data, dict):
        raise definition_error(value.place, "this must be a mapping")
    return value.data


def _list(value: Value | None) -> list[Value]:
    if value is None or value.data is None:
        return []
    if not isinstance(value.data, list):
        raise definition_error(value.place, "this must be a list")
    return value.data


def _names(value: Value | None) -> list[tuple[str, Place]]:
    """A string, or a list of strings."""
    if value is None or value.data is None:
        return []
    items: Sequence[Value] = value.data if isinstance(value.data, list) else [value]
    names = []
    for item in items:
        if not isinstance(item.data, str):
            raise definition_error(item.place, "this must be text")
        names.append((item.data, item.place))
    return names
