"""Build-args files: what a variant of a stream is, as openshift/os and rhel-coreos-config say it.

`KEY=VALUE` lines and `#` comments, as `podman build --build-arg-file` reads them
(requirement R1.18).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile.conditions import Variable
from strata.treefile.yaml import Place, definition_error

NEEDED = (
    "ID",
    "NAME",
    "STREAM",
    "DESCRIPTION",
    "VERSION",
    "MUTATE_OS_RELEASE",
    "BUILDER_IMG",
    "MANIFEST",
    "IMAGE_CONFIG",
)
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_PINNED = re.compile(r"[^@]+:[^@:/]+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class BuildArgs:
    """A variant's values, all of them in `values`. sha256: of the file's bytes. lines: where each
    value stands."""

    values: Mapping[str, str]
    sha256: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, key: str) -> tuple[str, int]:
        """A value, empty when it is not there, and the line it stands on."""
        return self.values.get(key, ""), self.lines.get(key, 0)

    @property
    def manifest(self) -> str:
        """The treefile, relative to the file."""
        return self.values["MANIFEST"]

    @property
    def variables(self) -> dict[str, Variable]:
        """What conditions may ask of a base: deriving, id, stream, osversion."""
        identity, version = self.values["ID"], self.values["VERSION"]
        return {
            "deriving": False,
            "id": identity,
            "stream": self.values["STREAM"],
            "osversion": osversion(identity, version),
        }


def osversion(identity: str, version: str) -> str:
    """How conditions name an OS release: `rhel-9.8`, and by the major elsewhere: `centos-10`."""
    return f"{identity}-{version if identity == 'rhel' else version.partition('.')[0]}"


def parse_values(text: str, file: str) -> dict[str, str]:
    """The lines of a build-args file. Raises DefinitionError."""
    return {key: value for key, (value, _) in parse_lines(text, file).items()}


def parse_lines(text: str, file: str) -> dict[str, tuple[str, int]]:
    """The values of a build-args file with the lines they stand on. Raises DefinitionError."""
    values: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if not match:
            raise definition_error(Place(file, number, 1), f"{stripped!r} is not KEY=VALUE")
        if match[1] in values:
            raise definition_error(Place(file, number, 1), f"{match[1]} stands twice")
        values[match[1]] = (match[2], number)
    return values


def read_arguments(path: Path, file: str) -> dict[str, str]:
    """The KEY=VALUE lines of any build-args file. Raises DefinitionError."""
    try:
        return parse_values(path.read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} cannot be read: {error}") from error


def load_build_args(path: Path, file: str) -> BuildArgs:
    """Read a base's build-args file. file: its name in messages. Raises DefinitionError."""
    try:
        data = path.read_bytes()
        found = parse_build_args(data.decode("utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} cannot be read: {error}") from error
    return replace(found, sha256=hashlib.sha256(data).hexdigest())


def parse_build_args(text: str, file: str) -> BuildArgs:
    """A base's build-args file. Raises DefinitionError, also when a value is missing or an image is
    not named by tag and digest."""
    lines = parse_lines(text, file)
    values = {key: value for key, (value, _) in lines.items()}
    missing = [key for key in NEEDED if not values.get(key)]
    if missing:
        raise DefinitionError(
            f"{file} lacks {', '.join(missing)}",
            hint=f"needed are {', '.join(NEEDED)}",
            context={"file": file},
        )
    if not _PINNED.fullmatch(values["BUILDER_IMG"]):
        raise DefinitionError(
            f"{file}: BUILDER_IMG is {values['BUILDER_IMG']}, which is not NAME:TAG@sha256:DIGEST",
            hint="a moving tag would build another system tomorrow",
            context={"file": file, "key": "BUILDER_IMG"},
        )
    return BuildArgs(values, lines={key: line for key, (_, line) in lines.items()})
