"""A postprocess script that failed: the shell in its sandbox, and the command that opens it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from strata.cli.context import Context
from strata.compose.sandbox import BeforeShell, ScriptError
from strata.core.network import offline
from strata.core.text import shown

_OUTPUT_LINES = 12


def before_shell(context: Context) -> BeforeShell:
    """Says why a shell opens, and where; live progress leaves the terminal to it."""

    def before(error: ScriptError) -> None:
        context.pause()
        output = str(error.context["output"]).splitlines()[-_OUTPUT_LINES:]
        sys.stderr.writelines(f"{shown(line)}\n" for line in (error.message, *output))
        sys.stderr.write(
            "A shell in the script's sandbox: / is the tree as the script left it.\n"
            "  run it again:  bash -x /run/postprocess\n"
            "  leave:         exit   (the build ends, and nothing of it is kept)\n"
        )
        sys.stderr.flush()

    return before


@contextmanager
def shell_hint(
    context: Context,
    targets: Sequence[str],
    *,
    base: str | None,
    swaps: Sequence[str],
    options: Sequence[str] = (),
) -> Iterator[None]:
    """Give a script's failure the build that opens a shell where it failed, as its hint.

    That is the native engine's, also for a script that buildah ran. options: further ones of it.
    """
    try:
        yield
    except ScriptError as error:
        where = [] if context.definitions == Path(".") else ["-C", str(context.definitions)]
        words = ["strata", *where, "--store", str(context.store), "build", *targets, *options]
        words += ["--base", base] if base else []
        for swap in swaps:
            words += ["--with", swap]
        words += ["--offline"] if offline() else []
        command = shlex.join([*words, "--shell"])
        error.hint = f"to look around in its sandbox, and run it again there: {command}"
        raise
