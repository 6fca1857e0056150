"""Treefiles: read one with all it includes, for one architecture and set of variables.

An included file's lists come before the includer's; the includer's scalars win; mappings are merged
key by key. `conditional-include` adds a file, a list of files or an inline treefile when all its
conditions (`variable == "value"`, `!=`) hold. Every package, script and repository remembers the
line it stands on, so that an error can say where something came from.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile import fields as schema
from strata.treefile.fields import FIELDS, Field
from strata.treefile.yaml import Place, Value, parse_yaml

MAX_INCLUDES = 256
_CONDITION = re.compile(r"""\s*([a-z_]+)\s*(==|!=)\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+))\s*""")


@dataclass(frozen=True)
class Sourced:
    """A piece of text and the line it stands on."""

    text: str
    source: Place


@dataclass(frozen=True)
class Flattened:
    """A treefile with all its includes. inputs: every file read, with the sha256 of its bytes.

    passive: fields that were read and that no build acts on yet.
    """

    packages: tuple[Sourced, ...]
    repos: tuple[Sourced, ...]
    postprocess: tuple[Sourced, ...]
    overlays: tuple[Sourced, ...]
    exclude_packages: tuple[str, ...]
    remove_files: tuple[str, ...]
    documentation: bool
    recommends: bool
    mutate_os_release: str
    metadata: Mapping[str, object]
    passive: Mapping[str, object]
    inputs: tuple[tuple[str, str], ...]


@dataclass
class _Merged:
    """Fields as they are gathered: lists of Values, or one Value."""

    lists: dict[str, list[Value]] = field(default_factory=dict)
    single: dict[str, Value] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    includes: int = 0


def flatten(
    path: Path, *, variables: Mapping[str, str], arch: str, root: Path | None = None
) -> Flattened:
    """Read a treefile and all it includes.

    root: the folder that names in messages and inputs are relative to, and that no include leaves
    (default: the treefile's own). Raises DefinitionError with file, line and column.
    """
    top = (root or path.parent).resolve()
    merged = _Merged()
    _Loader(top, variables, arch, merged).load(path, ())
    return _finish(merged, arch)


class _Loader:
    def __init__(self, top: Path, variables: Mapping[str, str], arch: str, merged: _Merged) -> None:
        self.top, self.arch, self.merged = top, arch, merged
        self.variables = {"basearch": arch, **variables}

    def load(self, path: Path, chain: tuple[Path, ...], at: Place | None = None) -> None:
        resolved = path.resolve()
        where = f"{at}: " if at else ""
        if resolved != self.top and self.top not in resolved.parents:
            raise DefinitionError(
                f"{where}{path} is outside of the definitions in {self.top}",
                context={"file": path},
            )
        name = str(resolved.relative_to(self.top))
        if resolved in chain:
            names = [str(step.relative_to(self.top)) for step in (*chain, resolved)]
            raise DefinitionError(
                f"{where}the treefiles include each other in a circle: {' → '.join(names)}",
                context={"file": name},
            )
        self.merged.includes += 1
        if self.merged.includes > MAX_INCLUDES:
            raise DefinitionError(f"{where}more than {MAX_INCLUDES} files are included")
        try:
            data = resolved.read_bytes()
            text = data.decode("utf-8")
        except FileNotFoundError:
            raise DefinitionError(
                f"{where}there is no treefile {name}", context={"file": name}
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise DefinitionError(f"{where}{name} cannot be read: {error}") from error
        self.merged.inputs[name] = hashlib.sha256(data).hexdigest()
        self.apply(parse_yaml(text, name), resolved.parent, (*chain, resolved))

    def apply(self, document: Value, folder: Path, chain: tuple[Path, ...]) -> None:
        """Add a treefile's fields: what it includes first, then its own."""
        if document.data is None:
            return
        members = _mapping(document)
        for key, value in members.items():
            if key not in schema.KNOWN:
                raise _unknown_key(key, value.place)
        variables = members.get("variables")
        if variables is not None and variables.data is not None:
            for key, value in _mapping(variables).items():
                self.variables.setdefault(key, str(value.data))
        for name, place in _names(members.get("include")):
            self.load(folder / name, chain, place)
        if "arch-include" in members:
            by_arch = _mapping(members["arch-include"])
            for name, place in _names(by_arch.get(self.arch)):
                self.load(folder / name, chain, place)
        conditional = members.get("conditional-include")
        for item in _list(conditional):
            self._conditional(item, folder, chain)
        for key, value in members.items():
            self._own(key, value)

    def _conditional(self, item: Value, folder: Path, chain: tuple[Path, ...]) -> None:
        members = _mapping(item)
        if set(members) != {"if", "include"}:
            raise DefinitionError(
                f"{item.place}: a conditional-include has exactly `if` and `include`",
                context={"file": item.place.file, "line": item.place.line},
            )
        if not all(self._holds(text, place) for text, place in _names(members["if"])):
            return
        wanted = members["include"]
        if isinstance(wanted.data, dict):
            self.apply(wanted, folder, chain)
            return
        for name, place in _names(wanted):
            self.load(folder / name, chain, place)

    def _holds(self, condition: str, place: Place) -> bool:
        match = _CONDITION.fullmatch(condition)
        if not match:
            raise DefinitionError(
                f'{place}: {condition!r} is not a condition like osversion == "rhel-9.8"',
                context={"file": place.file, "line": place.line},
            )
        name, operator = match[1], match[2]
        wanted = next(text for text in match.groups()[2:] if text is not None)
        if name not in self.variables:
            raise DefinitionError(
                f"{place}: the variable {name} is not set",
                hint=f"known: {', '.join(sorted(self.variables))}",
                context={"file": place.file, "line": place.line},
            )
        return (self.variables[name] == wanted) == (operator == "==")

    def _own(self, key: str, value: Value) -> None:
        if key in schema.STRUCTURE or value.data is None:
            return
        if key.startswith("packages-"):
            if key != f"packages-{self.arch}":
                return
            key = "packages"
        declared = FIELDS[key]
        _check_type(declared, value)
        if declared.merge == "append":
            self.merged.lists.setdefault(key, []).extend(_list(value))
        elif declared.merge == "union":
            before = self.merged.single.get(key)
            merged = {**(_mapping(before) if before else {}), **_mapping(value)}
            self.merged.single[key] = Value(merged, value.place)
        else:
            self.merged.single[key] = value


def _finish(merged: _Merged, arch: str) -> Flattened:
    def texts(key: str) -> tuple[Sourced, ...]:
        return tuple(Sourced(str(item.data), item.place) for item in merged.lists.get(key, ()))

    def flag(key: str, default: bool) -> bool:
        value = merged.single.get(key)
        return default if value is None else bool(value.data)

    packages = tuple(
        Sourced(name, item.source) for item in texts("packages") for name in item.text.split()
    )
    scripts = texts("postprocess")
    token = merged.single.get("mutate-os-release")
    passive = {key: plain(value) for key, value in _all(merged) if not FIELDS[key].built}
    return Flattened(
        packages=_first(packages),
        repos=_first(texts("repos")),
        postprocess=scripts,
        overlays=_first(texts("ostree-layers")),
        exclude_packages=tuple(item.text for item in texts("exclude-packages")),
        remove_files=tuple(item.text for item in texts("remove-files")),
        documentation=flag("documentation", True),
        recommends=flag("recommends", True),
        mutate_os_release=str(token.data) if token else "",
        metadata=_plain_mapping(merged.single.get("metadata")),
        passive=passive,
        inputs=tuple(sorted(merged.inputs.items())),
    )


def _all(merged: _Merged) -> Iterator[tuple[str, Value]]:
    yield from merged.single.items()
    for key, values in merged.lists.items():
        yield key, Value(values, values[0].place if values else Place("", 0, 0))


def _first(items: Sequence[Sourced]) -> tuple[Sourced, ...]:
    """Without doubles; the first line that names something is the one that counts."""
    found: dict[str, Sourced] = {}
    for item in items:
        found.setdefault(item.text, item)
    return tuple(found.values())


def plain(value: Value) -> object:
    """A Value without its places."""
    if isinstance(value.data, list):
        return [plain(item) for item in value.data]
    if isinstance(value.data, dict):
        return {key: plain(item) for key, item in value.data.items()}
    return value.data


def _plain_mapping(value: Value | None) -> Mapping[str, object]:
    return {key: plain(item) for key, item in _mapping(value).items()} if value else {}


def _mapping(value: Value) -> dict[str, Value]:
    if not isinstance(value.data, dict):
        raise DefinitionError(
            f"{value.place}: this must be a mapping",
            context={"file": value.place.file, "line": value.place.line},
        )
    return value.data


def _list(value: Value | None) -> list[Value]:
    if value is None or value.data is None:
        return []
    if not isinstance(value.data, list):
        raise DefinitionError(
            f"{value.place}: this must be a list",
            context={"file": value.place.file, "line": value.place.line},
        )
    return value.data


def _names(value: Value | None) -> list[tuple[str, Place]]:
    """A string, or a list of strings."""
    if value is None or value.data is None:
        return []
    items: list[Value] = value.data if isinstance(value.data, list) else [value]
    names = []
    for item in items:
        if not isinstance(item.data, str):
            raise DefinitionError(
                f"{item.place}: this must be text",
                context={"file": item.place.file, "line": item.place.line},
            )
        names.append((item.data, item.place))
    return names


def _check_type(declared: Field, value: Value) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        schema.TEXT: (str,),
        schema.FLAG: (bool,),
        schema.NUMBER: (int,),
        schema.MAPPING: (dict,),
        schema.LIST: (list,),
        schema.STRINGS: (list,),
        schema.SCRIPTS: (list,),
    }
    items = value.data if isinstance(value.data, list) else []
    right = isinstance(value.data, kinds[declared.type])
    if declared.type in (schema.STRINGS, schema.SCRIPTS):
        right = right and all(isinstance(item.data, str) for item in items)
    if not right:
        raise DefinitionError(
            f"{value.place}: {declared.name} must be {declared.type}",
            context={"file": value.place.file, "line": value.place.line, "key": declared.name},
        )


def _unknown_key(key: str, place: Place) -> DefinitionError:
    near = difflib.get_close_matches(key, schema.KNOWN, 1)
    return DefinitionError(
        f"{place}:{place.column}: a treefile has no key {key}",
        hint=f"did you mean {near[0]}?" if near else "see docs/treefiles.md for the keys",
        context={"file": place.file, "line": place.line, "column": place.column, "key": key},
    )
