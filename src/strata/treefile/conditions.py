"""Conditions of a conditional-include: a variable, an operator and a value.

As rpm-ostree has them: variables are text, numbers or true/false; a value has to be of its
variable's kind; text is compared by == and != only. Source: rust/src/treefile.rs, IncludeCondition.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Union

from strata.core.errors import UsageError
from strata.treefile.yaml import Place, definition_error

Variable = Union[str, int, bool]
_CONDITION = re.compile(
    r"""\s*([A-Za-z0-9_]+)\s*(\S+?)\s*(?:(true|false)|([0-9]+)|"(.*)"|'(.*)')\s*""", re.DOTALL
)
_EQUAL: dict[str, Callable[[object, object], bool]] = {"==": operator.eq, "!=": operator.ne}
_ORDER: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """One condition and where it stands."""

    text: str
    variable: str
    operator: str
    value: Variable
    place: Place

    @staticmethod
    def parse(text: str, place: Place) -> Condition:
        """Read one. Raises DefinitionError."""
        match = _CONDITION.fullmatch(text)
        if not match or match[2] not in (*_EQUAL, *_ORDER):
            raise definition_error(
                place,
                f'{text!r} is not a condition like osversion == "rhel-9.8"',
                "operators: ==, != and, of numbers, <, <=, >, >=; text stands in quotes",
            )
        word, number = match[3], match[4]
        value: Variable
        if word:
            value = word == "true"
        elif number:
            value = int(number[:20])
        else:
            value = match[5] if match[5] is not None else match[6]
        return Condition(text.strip(), match[1], match[2], value, place)

    def holds(self, variables: Mapping[str, Variable]) -> bool:
        """Whether it holds. Raises DefinitionError for a variable that is not set, or another kind
        of value."""
        if self.variable not in variables:
            raise definition_error(
                self.place,
                f"the variable {self.variable} is not set",
                f"known: {', '.join(sorted(variables))}",
            )
        found, wanted = variables[self.variable], self.value
        if type(found) is not type(wanted):
            raise definition_error(
                self.place,
                f"{self.variable} is {show(found)}, which cannot be compared to {show(wanted)}",
                "both have to be text, numbers or true/false",
            )
        if self.operator in _EQUAL:
            return _EQUAL[self.operator](found, wanted)
        if type(found) is not int or type(wanted) is not int:
            raise definition_error(
                self.place, f"{self.operator} compares numbers, and {self.variable} is none", ""
            )
        return _ORDER[self.operator](found, wanted)


def show(value: Variable) -> str:
    """A variable's value as a condition writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def parse_variable(text: str) -> tuple[str, Variable]:
    """`name=value` of a command line; quotes make text of what looks like a number or a word.

    Raises UsageError.
    """
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise UsageError(f"{text!r} is not NAME=VALUE", hint='e.g. --var stream="rhel-9.8"')
    if value in ("true", "false"):
        return name, value == "true"
    if value.isascii() and value.isdigit():
        return name, int(value[:20])
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return name, value
