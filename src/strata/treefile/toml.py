"""TOML with places: tomllib reads the values, a scan of the text finds the line of a key."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tomllib

from strata.core.errors import DefinitionError
from strata.treefile.schema import Key

_AT = re.compile(r"\(at line (\d+), column (\d+)\)")
_HEADER = re.compile(r"^\s*\[\[?\s*(.+?)\s*\]\]?\s*(#.*)?$")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(?:\.|$)""")
_KEY = re.compile(r"""^\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*=""")

MAX_DEPTH = 32  # of brackets; only looked at where the parser gave up

Path = tuple[str, ...]


class TomlDocument:
    """A TOML file: its values, and errors that name the line a key stands on."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            match = _AT.search(str(error))
            line, column = (int(part) for part in match.groups()) if match else (1, 1)
            raise _syntax_error(file, line, column, _AT.sub("", str(error)).strip()) from error
        except RecursionError as error:
            place = _too_deep(text)
            raise _syntax_error(file, *place, "arrays and tables are too deep here") from error
        except ValueError as error:  # what tomllib leaves to int() and the calendar
            place = _longest_number(text)
            raise _syntax_error(file, *place, "this number has too many digits") from error

    def line_of(self, path: Path) -> int:
        """The line of a key or of the table that holds it; the nearest enclosing one is found."""
        best, best_depth = 1, 0
        table: Path = ()
        arrays: dict[Path, int] = {}
        for number, line in enumerate(self.text.splitlines(), 1):
            header = _HEADER.match(line)
            if header:
                table = _parts(header[1])
                if line.lstrip().startswith("[["):
                    index = arrays.get(table, -1) + 1
                    arrays[table] = index
                    table = (*table, str(index))
                here = table
            else:
                key = _KEY.match(line)
                if not key:
                    continue
                here = (*table, next(part for part in key.groups() if part is not None))
            # A key inside the wanted table, or the table's header, points to it as well.
            depth = len(here) if here == path[: len(here)] else 0
            if here[: len(path)] == path:
                depth = len(path)
            if depth > best_depth:
                best, best_depth = number, depth
        return best

    def place(self, path: Path) -> str:
        """`file:line` of a key, or of the table that holds it."""
        return f"{self.file}:{self.line_of(path)}"

    def error(self, path: Path, problem: str, hint: str | None = None) -> DefinitionError:
        """An error at a key: `file:line: key problem`."""
        line = self.line_of(path)
        key = ".".join(path)
        return DefinitionError(
            f"{self.file}:{line}: {key} {problem}",
            hint=hint,
            context={"file": self.file, "line": line, "key": key},
        )

    def check(self, table: Mapping[str, Any], keys: Sequence[Key], path: Path) -> None:
        """Hold a table against its declared keys: unknown, missing and wrongly typed ones raise."""
        known = {key.name: key for key in keys}
        for name, value in table.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise self.error((*path, name), "is not a key of strata.toml", hint)
            self._check_value(known[name], value, (*path, name))
        for key in keys:
            if key.required and key.name not in table:
                raise self.error(path or (key.name,), f"needs the key {key.name}: {key.doc}")

    def _check_value(self, key: Key, value: Any, path: Path) -> None:
        right = {
            "text": isinstance(value, str) and value != "",
            "integer": isinstance(value, int) and not isinstance(value, bool),
            "flag": isinstance(value, bool),
            "date": isinstance(value, datetime.date),
            "texts": isinstance(value, list) and all(isinstance(item, str) for item in value),
            "table": isinstance(value, dict | list),
            "mapping": isinstance(value, dict)
            and all(isinstance(item, str) for item in value.values()),
        }[key.type]
        if not right:
            wanted = {"texts": "a list of texts", "mapping": "a table of texts"}
            raise self.error(path, f"must be {wanted.get(key.type, key.type)}: {key.doc}")
        if key.table:
            if not isinstance(value, dict):
                raise self.error(path, f"must be a table: {key.doc}")
            self.check(value, key.table, path)


def _parts(text: str) -> Path:
    return tuple(next((part for part in match if part), "") for match in _PART.findall(text))


def _syntax_error(file: str, line: int, column: int, what: str) -> DefinitionError:
    return DefinitionError(
        f"{file}:{line}:{column}: {what}",
        context={"file": file, "line": line, "column": column},
    )


def _place(text: str, position: int) -> tuple[int, int]:
    """Line and column of a position, counted from 1."""
    line_start = text.rfind("\n", 0, position) + 1
    return text.count("\n", 0, position) + 1, position - line_start + 1


def _too_deep(text: str) -> tuple[int, int]:
    """Where brackets nest deeper than MAX_DEPTH; those in texts and comments count too."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if depth > MAX_DEPTH:
            return _place(text, position)
    return 1, 1


def _longest_number(text: str) -> tuple[int, int]:
    longest = max(re.finditer(r"\d[\d_]*", text), key=lambda match: len(match[0]), default=None)
    return _place(text, longest.start() if longest else 0)
