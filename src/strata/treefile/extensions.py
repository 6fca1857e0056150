"""Extensions files: packages beside the node image, for a machine to install on top of it.

The format is upstream's `extensions/ID-VERSION_ID.yaml` (requirement R4.1). An `os-extension` is
meant to be installed on the node and brings what it depends on; a `development` one is only there
to be taken, as it is. Repositories of one extension are looked in for all of them, where the
architecture has that extension: so does rpm-ostree.

Source: rpm-ostree's docs/extensions.md and rust/src/extensions.rs, also as it was with `modules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile.fields import ARCHES
from strata.treefile.shapes import TEXT, TEXTS, Choice, ListOf, MapOf, Record, Shape, require
from strata.treefile.sources import Sources
from strata.treefile.treefile import Sourced, without_doubles
from strata.treefile.yaml import Place, Value, definition_error, parse_yaml, unknown_key

OS_EXTENSION, DEVELOPMENT = "os-extension", "development"

_MODULES = Record({"enable": TEXTS, "install": TEXTS})
_TOP: Mapping[str, Shape] = {"repos": TEXTS, "modules": _MODULES, "extensions": MapOf()}
_EXTENSION: Mapping[str, Shape] = {
    "packages": ListOf(TEXT, 1),
    "architectures": ListOf(Choice(ARCHES), 1),
    "repos": TEXTS,
    "kind": Choice((OS_EXTENSION, DEVELOPMENT)),
    "match-base-evr": TEXT,
    "modules": _MODULES,
}


@dataclass(frozen=True)
class Extension:
    """One extension. architectures: empty for all.

    match_base_evr: the package of the node whose epoch, version and release these have, or None.
    """

    name: str
    place: Place
    kind: str
    packages: tuple[Sourced, ...]
    architectures: tuple[str, ...]
    repos: tuple[Sourced, ...]
    match_base_evr: Sourced | None

    def is_for(self, arch: str) -> bool:
        """Whether an architecture has it."""
        return not self.architectures or arch in self.architectures


@dataclass(frozen=True)
class Extensions:
    """An extensions file. repos: for all architectures. modules: where `modules` stands, which
    nothing acts on. digest: of the file's bytes."""

    file: str
    digest: str
    repos: tuple[Sourced, ...]
    extensions: tuple[Extension, ...]
    modules: tuple[Place, ...]

    def on(self, arch: str) -> tuple[Extension, ...]:
        """The extensions of an architecture."""
        return tuple(item for item in self.extensions if item.is_for(arch))

    def repos_on(self, arch: str) -> tuple[Sourced, ...]:
        """The repositories of an architecture, the first mention of each."""
        own = (repo for item in self.on(arch) for repo in item.repos)
        return without_doubles((*self.repos, *own))


def load_extensions(folder: Path, name: str) -> Extensions:
    """Read an extensions file of the definitions in a folder. Raises DefinitionError."""
    sources = Sources(folder)
    where = sources.name(folder / name)
    try:
        text = sources.text(where)
    except FileNotFoundError:
        raise DefinitionError(f"there is no file {where}", context={"file": where}) from None
    return parse_extensions(text, where, sources.inputs[where])


def parse_extensions(text: str, file: str, sha256: str = "") -> Extensions:
    """Read an extensions file's text. Raises DefinitionError with file, line and column."""
    document = parse_yaml(text, file)
    top = _checked(document, _TOP, "an extensions file")
    if "extensions" not in top:
        raise DefinitionError(f"{file}: extensions is missing", context={"file": file})
    modules = [top["modules"].place] if "modules" in top else []
    extensions = []
    for name, value in _members(top["extensions"]).items():
        members = _checked(value, _EXTENSION, "an extension")
        if "packages" not in members:
            raise definition_error(value.place, f"extension {name} has no packages", key=name)
        modules += [members["modules"].place] if "modules" in members else []
        extensions.append(_extension(name, value.place, members))
    return Extensions(
        file, f"sha256:{sha256}", _texts(top.get("repos")), tuple(extensions), tuple(modules)
    )


def _extension(name: str, place: Place, members: Mapping[str, Value]) -> Extension:
    matched = members.get("match-base-evr")
    kind = members.get("kind")
    return Extension(
        name,
        place,
        str(kind.data) if kind else OS_EXTENSION,
        _texts(members["packages"]),
        tuple(item.text for item in _texts(members.get("architectures"))),
        _texts(members.get("repos")),
        Sourced(str(matched.data), matched.place) if matched else None,
    )


def _checked(value: Value, known: Mapping[str, Shape], document: str) -> dict[str, Value]:
    """A mapping's members, each known and of its shape. Raises DefinitionError."""
    members = _members(value)
    for key, item in members.items():
        if key not in known:
            hint = f"known: {', '.join(known)}"
            raise unknown_key(key, item.place, known, document=document, hint=hint)
        require(known[key], key, item)
    return members


def _members(value: Value) -> dict[str, Value]:
    if not isinstance(value.data, dict):
        raise definition_error(value.place, "this must be a mapping")
    return value.data


def _texts(value: Value | None) -> tuple[Sourced, ...]:
    return tuple(_each(value)) if value else ()


def _each(value: Value) -> Iterator[Sourced]:
    for item in value.data if isinstance(value.data, list) else ():
        yield Sourced(str(item.data), item.place)
