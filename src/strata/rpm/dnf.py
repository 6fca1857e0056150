"""The edge to dnf: its Python API, in a process of dnf's own interpreter (`dnf_worker.py`)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from strata.core.clock import REAL_CLOCK
from strata.core.errors import ToolFailedError
from strata.core.process import run
from strata.core.tools import find_tool
from strata.rpm.inventory import RPMDB_FOLDER

WORKER = Path(__file__).with_name("dnf_worker.py")


def interpreter() -> str:
    """The Python that dnf itself runs under, from the first line of its command."""
    with open(find_tool("dnf"), "rb") as stream:
        first = stream.readline(256).decode("utf-8", "replace").strip()
    if not first.startswith("#!"):
        raise ToolFailedError(
            "dnf is not a Python program here, so its solver cannot be asked",
            hint="install dnf 4",
        )
    return first[2:].split()[0]


def call(
    task: Mapping[str, object],
    *,
    env: Mapping[str, str] | None = None,
    macros: Mapping[str, str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Give the worker one task and return its answer. macros: of rpm, beside ours.

    Raises ToolFailedError.
    """

    def line(text: str) -> None:
        if on_progress and text.startswith("progress "):
            on_progress(int(text.split()[1]))

    with tempfile.TemporaryDirectory(prefix="strata-dnf.") as home:
        # Where the host's rpm keeps its database (Debian: under HOME) is no business of the root:
        # this macro file is read after the host's and decides for dnf and librpm alike.
        wanted = {"_dbpath": f"/{RPMDB_FOLDER}", **(macros or {})}
        text = "".join(f"%{name} {value}\n" for name, value in wanted.items())
        Path(home, ".rpmmacros").write_text(text, encoding="utf-8")
        argv = [interpreter(), "-I", str(WORKER)]
        task_env = {**(env or {}), "HOME": home}
        if task["task"] == "solve":
            task_env.update(REAL_CLOCK)
        done = run(argv, stdin=json.dumps(task), env=task_env, on_line=line)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ToolFailedError(
            "dnf's solver gave no answer", context={"output": done.stderr or done.stdout}
        ) from None
    if not isinstance(answer, dict):
        raise ToolFailedError("dnf's solver gave no answer", context={"output": done.stdout})
    return answer
