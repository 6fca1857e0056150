"""Shapes: what a value of a treefile may be; checks and the JSON schema derive from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from strata.core.errors import DefinitionError
from strata.treefile.yaml import Place, Value


class Shape(Protocol):
    """A kind of value."""

    @property
    def doc(self) -> str:
        """In words: `a list of text`."""

    def problem(self, value: Value) -> Place | None:
        """Where a value is not of this shape; None when it is."""

    def json_schema(self) -> dict[str, object]:
        """The same as a JSON schema (draft 2020-12)."""


@dataclass(frozen=True)
class Scalar:
    """One value of a Python type."""

    doc: str
    python: type
    json: str

    def problem(self, value: Value) -> Place | None:
        """See Shape. A bool is no number."""
        right = type(value.data) is self.python
        return None if right else value.place

    def json_schema(self) -> dict[str, object]:
        """See Shape."""
        return {"type": self.json}


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def doc(self) -> str:
        """See Shape."""
        return "one of " + ", ".join(self.words)

    def problem(self, value: Value) -> Place | None:
        """See Shape."""
        return None if value.data in self.words else value.place

    def json_schema(self) -> dict[str, object]:
        """See Shape."""
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Anything:
    """Whatever YAML can say."""

    doc: str = "any value"

    def problem(self, value: Value) -> Place | None:
        """See Shape."""
        return None

    def json_schema(self) -> dict[str, object]:
        """See Shape."""
        return {}


@dataclass(frozen=True)
class ListOf:
    """A list. least: how many items it has at the least."""

    item: Shape
    least: int = 0

    @property
    def doc(self) -> str:
        """See Shape."""
        return "a list" if isinstance(self.item, Anything) else f"a list of {self.item.doc}"

    def problem(self, value: Value) -> Place | None:
        """See Shape."""
        if not isinstance(value.data, list) or len(value.data) < self.least:
            return value.place
        return _first(self.item.problem(item) for item in value.data)

    def json_schema(self) -> dict[str, object]:
        """See Shape."""
        shape: dict[str, object] = {"type": "array", "items": self.item.json_schema()}
        return {**shape, "minItems": self.least} if self.least else shape


@dataclass(frozen=True)
class MapOf:
    """A mapping of free keys to one kind of value."""

    value: Shape = field(default_factory=Anything)

    @property
    def doc(self) -> str:
        """See Shape."""
        return "a mapping" if isinstance(self.value, Anything) else f"a mapping to {self.value.doc}"

    def problem(self, value: Value) -> Place | None:
        """See Shape."""
        if not isinstance(value.data, dict):
            return value.place
        return _first(self.value.problem(item) for item in value.data.values())

    def json_schema(self) -> dict[str, object]:
        """See Shape."""
        return {"type": "object", "additionalProperties": self.value.json_schema()}


@dataclass(frozen=True)
class Record:
    """A mapping of known keys. needed: those that must be there."""

    members: Mapping[str, Shape]
    needed: tuple[str, ...] = ()

    @property
    def doc(self) -> str:
        """See Shape."""
        return "a mapping of " + ", ".join(self.members)

    def problem(self, value: Value) -> Place | None:
        """See Shape."""
        if not isinstance(value.data, dict) or not set(self.needed) <= set(value.data):
            return value.place
        return _first(
            self.members[key].problem(item) if key in self.members else item.place
            for key, item in value.data.items()
        )

    def json_schema(self) -> dict[str, object]:
        """See Shape."""
        return {
            "type": "object",
            "properties": {key: shape.json_schema() for key, shape in self.members.items()},
            "required": list(self.needed),
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Either:
    """One of several shapes."""

    shapes: tuple[Shape, ...]

    @property
    def doc(self) -> str:
        """See Shape."""
        return " or ".join(shape.doc for shape in self.shapes)

    def problem(self, value: Value) -> Place | None:
        """See Shape: of the shape that comes closest, so that the place is the innermost."""
        places = [shape.problem(value) for shape in self.shapes]
        if None in places:
            return None
        return max((place for place in places if place), key=lambda at: (at.line, at.column))

    def json_schema(self) -> dict[str, object]:
        """See Shape."""
        return {"anyOf": [shape.json_schema() for shape in self.shapes]}


TEXT = Scalar("text", str, "string")
FLAG = Scalar("true or false", bool, "boolean")
NUMBER = Scalar("a number", int, "integer")
TEXTS = ListOf(TEXT)
VARIABLE = Either((FLAG, NUMBER, TEXT))


def require(shape: Shape, key: str, value: Value) -> None:
    """Hold a key's value against its shape. Raises DefinitionError at the innermost wrong place."""
    problem = shape.problem(value)
    if problem is not None:
        raise DefinitionError(
            f"{problem}: {key} must be {shape.doc}",
            context={"file": problem.file, "line": problem.line, "key": key},
        )


def _first(places: Iterator[Place | None]) -> Place | None:
    return next((place for place in places if place is not None), None)
