"""image.yaml: what boot images are made of, as coreos-assembler reads it (requirement R1.20).

`include` names one file this one builds on. A value of the includer wins; of lists (`extra-kargs`)
the includer's items come first, then those of the included file that are not there yet. `{stream}`
in a text is the stream's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile.sources import Sources
from strata.treefile.treefile import plain
from strata.treefile.yaml import Place, definition_error, parse_yaml

MAX_INCLUDES = 16
WHERE = "usr/share/coreos-assembler/image.json"


@dataclass(frozen=True)
class BootImageConfig:
    """The merged values; inputs: every file read, with the sha256 of its bytes."""

    values: Mapping[str, object]
    inputs: tuple[tuple[str, str], ...]


def read_image_config(path: Path, *, root: Path, stream: str) -> BootImageConfig:
    """Read an image.yaml and what it includes, all of it below `root`. Raises DefinitionError."""
    sources = Sources(root)
    values: dict[str, object] = {}
    current, at = path, ""
    while True:
        name = sources.name(current, at)
        if name in sources.inputs or len(sources.inputs) >= MAX_INCLUDES:
            raise DefinitionError(
                f"{at}{name} includes itself, or too many files", context={"file": name}
            )
        try:
            text = sources.text(name, at)
        except FileNotFoundError as error:
            raise DefinitionError(
                f"{at}{name} cannot be read: {error}", context={"file": name}
            ) from error
        include = _merge(values, text, name)
        if include is None:
            break
        wanted, place = include
        current, at = (sources.top / name).parent / wanted, f"{place}: "
    formatted = {key: _formatted(value, stream) for key, value in sorted(values.items())}
    return BootImageConfig(formatted, sources.digests())


def _merge(values: dict[str, object], text: str, name: str) -> tuple[str, Place] | None:
    """Add what is not there yet; returns the file that is included, and where it is named."""
    document = parse_yaml(text, name)
    if document.data is None:
        return None
    if not isinstance(document.data, dict):
        raise definition_error(document.place, "this must be a mapping")
    include = None
    for key, value in document.data.items():
        found = plain(value)
        if key == "include":
            if not isinstance(found, str):
                raise definition_error(value.place, "include must be text")
            include = found, value.place
        elif key not in values:
            values[key] = found
        elif isinstance(values[key], list) or isinstance(found, list):
            mine = values[key]
            if not isinstance(mine, list) or not isinstance(found, list):
                raise definition_error(
                    value.place, f"{key} is a list in one file and none in the other"
                )
            values[key] = [*mine, *(item for item in found if item not in mine)]
    return include


def _formatted(value: object, stream: str) -> object:
    if isinstance(value, str):
        return value.replace("{stream}", stream)
    if isinstance(value, list):
        return [_formatted(item, stream) for item in value]
    return value
