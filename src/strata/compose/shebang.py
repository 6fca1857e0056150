"""A script's first line says what runs it."""

from __future__ import annotations

import shlex

from strata.core.errors import DefinitionError


def interpreter(text: str, source: str) -> list[str]:
    """The command of a script's shebang line, `/bin/sh` without one. Raises DefinitionError."""
    first = text.partition("\n")[0].rstrip()
    if not first.startswith("#!"):
        return ["/bin/sh"]
    try:
        words = shlex.split(first[2:])
    except ValueError as error:
        raise _shebang_error(source, first, str(error)) from error
    if not words or "\0" in first:
        raise _shebang_error(source, first, "it names no interpreter")
    return words


def _shebang_error(source: str, line: str, why: str) -> DefinitionError:
    return DefinitionError(
        f"the postprocess script at {source} starts with {line!r}, which cannot be run: {why}",
        hint="start it with a line like #!/usr/bin/bash",
        context={"script": source},
    )
