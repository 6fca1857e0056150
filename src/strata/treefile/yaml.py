"""The edge to YAML: text becomes plain values that remember their line, read as rpm-ostree reads.

rpm-ostree reads treefiles with serde_yaml, which follows YAML 1.2's core schema: only true and
false are booleans, so `no` and `on` stay text. Bounded in size, depth and nodes: an alias may not
blow up.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from strata.core.errors import DefinitionError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_DIGITS = 20  # of a 64-bit number

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_STR_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True)
class Place:
    """Where a value stands: file, line and column, counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Value:
    """A YAML value with its place. data: None, bool, int, float, str, list or dict of Values."""

    data: object
    place: Place


def parse_yaml(text: str, file: str) -> Value:
    """Read one YAML document. Raises DefinitionError with file, line and column."""
    if len(text.encode()) > MAX_BYTES:
        raise DefinitionError(f"{file} is larger than {MAX_BYTES} bytes", context={"file": file})
    try:
        node = YAML(pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise DefinitionError(
            f"{file}:{line}:{column}: {error.problem or 'this is not YAML'}",
            context={"file": file, "line": line, "column": column},
        ) from error
    except RecursionError as error:
        raise _too_deep(text, file) from error
    except (YAMLError, ValueError) as error:
        raise DefinitionError(f"{file} is not YAML: {error}", context={"file": file}) from error
    if node is None:
        return Value(None, Place(file, 1, 1))
    return _Builder(file).value(node, 0)


def definition_error(
    place: Place | None, problem: str, hint: str | None = None, *, key: str = ""
) -> DefinitionError:
    """The error for what stands at a place, or nowhere. key: the field that it is about."""
    context: dict[str, object] = {"file": place.file, "line": place.line} if place else {}
    if key:
        context["key"] = key
    return DefinitionError(f"{place}: {problem}" if place else problem, hint=hint, context=context)


def unknown_key(
    key: str, place: Place, known: Iterable[str], *, document: str, hint: str
) -> DefinitionError:
    """The error for a key that a document may not have, with the nearest one it may.

    document: in words, `a treefile`. hint: what to say when no key is near.
    """
    near = difflib.get_close_matches(key, list(known), 1)
    return DefinitionError(
        f"{place}:{place.column}: {document} has no key {key}",
        hint=f"did you mean {near[0]}?" if near else hint,
        context={"file": place.file, "line": place.line, "column": place.column, "key": key},
    )


def reformat(text: str, file: str) -> str:
    """The document with comments kept and its layout made uniform: lists indented by two, no line
    folded. Raises DefinitionError, also should the result not say the same."""
    before = parse_yaml(text, file)
    if before.data is None:
        return text
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    yaml.width = MAX_BYTES
    yaml.explicit_start = text.startswith("---")
    sink = io.StringIO()
    try:
        yaml.dump(yaml.load(text), sink)
    except (YAMLError, ValueError) as error:
        raise DefinitionError(
            f"{file} cannot be formatted: {error}", context={"file": file}
        ) from error
    done = sink.getvalue()
    if not _same(before, parse_yaml(done, file)) or _comments(done) != _comments(text):
        raise DefinitionError(
            f"{file} cannot be formatted without changing what it says", context={"file": file}
        )
    return done


def _same(one: Value, other: Value) -> bool:
    """Whether two values are equal, their places apart."""
    a, b = one.data, other.data
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def _comments(text: str) -> list[str]:
    """What stands behind `#` in lines of their own, scripts included."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.count = 0

    def value(self, node: Node, depth: int) -> Value:
        place = Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            raise _error(place, "the document is too deep or too large")
        if isinstance(node, ScalarNode):
            return Value(_scalar(node, place), place)
        if isinstance(node, SequenceNode):
            return Value([self.value(item, depth + 1) for item in node.value], place)
        if isinstance(node, MappingNode):
            return Value(self._mapping(node, depth), place)
        raise _error(place, "this is not a value a treefile can hold")

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        for key, item in node.value:
            place = Place(self.file, key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, ScalarNode):
                raise _error(place, "a key must be text")
            if key.value in mapping:
                raise _error(place, f"the key {key.value} stands twice")
            value = self.value(item, depth + 1)
            # The place of a member is where its key stands: that is the line a person looks for.
            mapping[key.value] = Value(value.data, place)
        return mapping


def _error(place: Place, problem: str) -> DefinitionError:
    return DefinitionError(
        f"{place}: {problem}",
        context={"file": place.file, "line": place.line, "column": place.column},
    )


def _too_deep(text: str, file: str) -> DefinitionError:
    """Where a document that the composer cannot hold goes too deep: events come without a stack."""
    depth = 0
    for event in YAML(pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            mark = event.start_mark
            place = Place(file, mark.line + 1, mark.column + 1)
            return _error(place, "the document is too deep or too large")
    return DefinitionError(f"{file} is not YAML", context={"file": file})


def _scalar(node: ScalarNode, place: Place) -> object:
    text: str = node.value
    if node.style is not None or (node.tag is not None and str(node.tag) == _STR_TAG):
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise _error(place, f"this number has {len(text)} digits")
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
