"""Containerfiles: which stages there are, on which images, with which mounts and secrets.

The text becomes instructions and nothing is run: comments, continued lines and the bodies of
heredocs are seen through, variables are replaced where an image is named, and the rest of an
instruction is kept as it is written. What buildah would refuse is an error with its line.

Source: the Dockerfile reference, as buildah's imagebuilder reads it.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from strata.core.errors import DefinitionError
from strata.treefile.yaml import Place, definition_error

MAX_BYTES = 1 << 20
MAX_VALUE = 4096  # of a variable, after replacing
NO_IMAGE = "scratch"

_KNOWN = (
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_DIRECTIVE = re.compile(r"#\s*([a-z]+)\s*=\s*(\S+)\s*", re.IGNORECASE)
_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+|$)")
_FROM = re.compile(r"(\S+)(?:\s+as\s+(\S+))?", re.IGNORECASE)
_HEREDOC = re.compile(r"""(?:^|\s)\d*<<(-?)(["']?)([^\s<>"']+)\2(?=\s|$)""")
_ARGUMENT = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)(=("[^"]*"|'[^']*'|[^\s"']*))?(?:\s+|$)""")
_VARIABLE = re.compile(
    r"\\(\$)|\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^{}]*))?\}|(\{))"
)
_WHOLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::[-+][^{}]*)?\})")


@dataclass(frozen=True)
class Mount:
    """A `RUN --mount`. kind: bind, cache, secret, ssh or tmpfs; options: as they are written."""

    kind: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Instruction:
    """An instruction. name: in capitals; text: what follows the flags, without heredocs' bodies."""

    name: str
    flags: tuple[tuple[str, str], ...]
    text: str
    place: Place

    def flag(self, name: str) -> str:
        """A flag's value, the last one's; empty for none."""
        return dict(self.flags).get(name, "")

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What a RUN mounts."""
        found = []
        for name, value in self.flags:
            if name == "mount":
                parts = [part.partition("=") for part in value.split(",")]
                options = {key.strip().lower(): text for key, _, text in parts}
                found.append(Mount(options.get("type", "bind"), options))
        return tuple(found)


@dataclass(frozen=True)
class Named:
    """A name that stands in a Containerfile. argument: the ARG that it wholly is; empty for
    none."""

    text: str
    place: Place
    argument: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage. name: empty when it has none; image: what it is FROM, an earlier stage's name too.

    arguments: the ARGs that the stage declares, with their values.
    """

    name: str
    image: Named
    platform: str
    instructions: tuple[Instruction, ...]
    arguments: Mapping[str, str]


@dataclass(frozen=True)
class Containerfile:
    """A Containerfile. arguments: the ARGs before the first FROM, with their values."""

    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]

    @property
    def images(self) -> tuple[Named, ...]:
        """The images it takes from elsewhere, in order; not its own stages, and not `scratch`."""
        found: dict[Named, None] = {}
        earlier = {NO_IMAGE}
        for number, stage in enumerate(self.stages):
            for named in (stage.image, *_sources(stage, self.arguments)):
                if named.text.lower() not in earlier:
                    found[named] = None
            earlier |= {stage.name.lower(), str(number)}
        return tuple(found)

    @property
    def secrets(self) -> tuple[Named, ...]:
        """The ids of secrets that a RUN mounts, in order."""
        found = []
        for stage in self.stages:
            for instruction in stage.instructions:
                for mount in instruction.mounts:
                    if mount.kind == "secret":
                        found.append(Named(_secret_id(mount), instruction.place))
        return tuple(dict.fromkeys(found))


def parse_containerfile(
    text: str, file: str, arguments: Mapping[str, str] | None = None
) -> Containerfile:
    """Read a Containerfile's text. arguments: build arguments, for the ARGs that it declares.

    Raises DefinitionError with file and line.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise DefinitionError(f"{file} is larger than {MAX_BYTES} bytes", context={"file": file})
    reader = _Reader(file, arguments or {})
    for instruction in _instructions(text, file):
        reader.take(instruction)
    return reader.finish()


@dataclass
class _Open:
    """A stage that is being read."""

    name: str
    image: Named
    platform: str
    instructions: list[Instruction] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)


class _Reader:
    def __init__(self, file: str, given: Mapping[str, str]) -> None:
        self.file, self.given = file, given
        self.arguments: dict[str, str] = {}
        self.stages: list[_Open] = []
        self.names: set[str] = set()

    def take(self, instruction: Instruction) -> None:
        """One instruction after the other."""
        if instruction.name == "FROM":
            self.stages.append(self._stage(instruction))
        elif instruction.name == "ARG":
            self._declare(instruction)
        elif not self.stages:
            raise definition_error(
                instruction.place, f"{instruction.name} stands before the first FROM"
            )
        if self.stages and instruction.name != "FROM":
            self.stages[-1].instructions.append(instruction)

    def finish(self) -> Containerfile:
        """What was read."""
        if not self.stages:
            raise DefinitionError(f"{self.file} has no FROM", context={"file": self.file})
        stages = tuple(
            Stage(one.name, one.image, one.platform, tuple(one.instructions), one.arguments)
            for one in self.stages
        )
        return Containerfile(stages, self.arguments)

    def _stage(self, instruction: Instruction) -> _Open:
        match = _FROM.fullmatch(instruction.text.strip())
        if not match:
            raise definition_error(
                instruction.place, "FROM takes an image, and may give it a name with AS"
            )
        image = _named(match[1], instruction.place, self.arguments)
        if not image.text:
            raise definition_error(
                instruction.place,
                f"{match[1]} has no value",
                "say it in the build-args file, or give its ARG a default",
            )
        name = match[2] or ""
        if name.lower() in self.names:
            raise definition_error(instruction.place, f"two stages are called {name}")
        self.names |= {name.lower()} - {""}
        platform = replaced(instruction.flag("platform"), self.arguments, instruction.place)
        return _Open(name, image, platform)

    def _declare(self, instruction: Instruction) -> None:
        into = self.stages[-1].arguments if self.stages else self.arguments
        known = ChainMap(into, self.arguments)
        position = 0
        while position < len(instruction.text):
            match = _ARGUMENT.match(instruction.text, position)
            if not match:
                raise definition_error(
                    instruction.place, f"ARG {instruction.text} is not NAME or NAME=VALUE"
                )
            position = match.end()
            name, default = match[1], match[3]
            if name in self.given:
                into[name] = self.given[name]
            elif default is not None:
                text = (
                    default if default[:1] == "'" else replaced(default, known, instruction.place)
                )
                into[name] = text[1:-1] if default[:1] in ("'", '"') else text
            elif self.stages and name in self.arguments:
                into[name] = self.arguments[name]


def replaced(text: str, variables: Mapping[str, str], place: Place) -> str:
    """A text with `$name`, `${name}`, `${name:-other}` and `${name:+other}` replaced.

    What has no value is empty. Raises DefinitionError.
    """

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        if match[6]:
            raise definition_error(place, f"{text} has a ${{…}} of an unknown form")
        found = variables.get(match[2] or match[3], "")
        if match[4] == "-":
            return found or replaced(match[5], variables, place)
        if match[4] == "+":
            return replaced(match[5], variables, place) if found else ""
        return found

    result = _VARIABLE.sub(value, text) if len(text) <= MAX_VALUE else text
    if len(result) > MAX_VALUE:
        raise definition_error(place, f"a value is longer than {MAX_VALUE} characters")
    return result


def _named(text: str, place: Place, variables: Mapping[str, str]) -> Named:
    whole = _WHOLE.fullmatch(text)
    argument = (whole[1] or whole[2]) if whole else ""
    return Named(replaced(text, variables, place), place, argument)


def _sources(stage: Stage, arguments: Mapping[str, str]) -> Iterator[Named]:
    """What a stage takes files from: `COPY --from` and mounts."""
    known = {**arguments, **stage.arguments}
    for instruction in stage.instructions:
        wanted = [instruction.flag("from")] if instruction.name == "COPY" else []
        wanted += [mount.options.get("from", "") for mount in instruction.mounts]
        for text in wanted:
            named = _named(text, instruction.place, known)
            if named.text:
                yield named


def _secret_id(mount: Mount) -> str:
    targets = [mount.options.get(key, "") for key in ("target", "dst", "destination")]
    return mount.options.get("id") or PurePosixPath(next(filter(None, targets), "")).name


# --- from text to instructions -------------------------------------------------------------------


def _instructions(text: str, file: str) -> Iterator[Instruction]:
    lines = text.splitlines()
    escape, number = _directives(lines, file)
    while number < len(lines):
        line = lines[number]
        if not line.strip() or line.lstrip().startswith("#"):
            number += 1
            continue
        place = Place(file, number + 1, len(line) - len(line.lstrip()) + 1)
        joined, number = _joined(lines, number, escape)
        match = _INSTRUCTION.fullmatch(joined)
        name = match[1].upper() if match else ""
        if not match or name not in _KNOWN:
            word = (joined.split() or [""])[0][:40]
            raise definition_error(place, f"{word!r} is no instruction of a Containerfile")
        rest = (match[2] or "").strip()
        if name in _WITH_HEREDOCS:
            number = _after_heredocs(lines, number, rest, place)
        flags, rest = _flags(rest)
        if not rest and not flags:
            raise definition_error(place, f"{name} says nothing")
        yield Instruction(name, flags, rest, place)


def _directives(lines: Sequence[str], file: str) -> tuple[str, int]:
    """The escape character, and the line after the directives that may stand at the top."""
    escape, seen = "\\", 0
    for number, line in enumerate(lines):
        match = _DIRECTIVE.fullmatch(line.strip())
        if not match or match[1].lower() not in ("syntax", "escape", "check"):
            break
        seen = number + 1
        if match[1].lower() == "escape":
            if match[2] not in ("\\", "`"):
                raise definition_error(
                    Place(file, seen, 1), f"escape is {match[2]}, and not \\ or `"
                )
            escape = match[2]
    return escape, seen


def _joined(lines: Sequence[str], number: int, escape: str) -> tuple[str, int]:
    """A line with those that continue it, and the number of the next one.

    Comments and empty lines in between do not end it.
    """
    parts: list[str] = []
    goes_on = True
    while goes_on and number < len(lines):
        line = lines[number]
        number += 1
        if parts and (not line.strip() or line.lstrip().startswith("#")):
            continue
        stripped = line.rstrip()
        goes_on = stripped.endswith(escape)
        parts.append(stripped[:-1] if goes_on else line)
    return "".join(parts), number


def _after_heredocs(lines: Sequence[str], number: int, text: str, place: Place) -> int:
    """The number of the line after the bodies of an instruction's heredocs."""
    for match in _HEREDOC.finditer(text):
        tabs, end = match[1], match[3]
        while number < len(lines):
            line = lines[number].lstrip("\t") if tabs else lines[number]
            number += 1
            if line == end:
                break
        else:
            raise definition_error(place, f"the heredoc {end} is not ended")
    return number


def _flags(text: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """The `--name=value` at the start of an instruction, and the rest."""
    found = []
    position = 0
    while match := _FLAG.match(text, position):
        found.append((match[1], match[2] or ""))
        position = match.end()
    return tuple(found), text[position:]
