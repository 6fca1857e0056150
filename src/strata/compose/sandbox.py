"""The sandbox that postprocess scripts and dracut run in: the tree as `/`, no network, fresh
`/var`, `/tmp` and `/run`, and an environment of only what is named (requirements R1.11).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from strata.compose.shebang import interpreter
from strata.core.clock import fake_clock
from strata.core.errors import DefinitionError
from strata.core.process import Completed, environment, run
from strata.core.rooted import resolve
from strata.core.tools import find_tool

_F_SETPIPE_SZ = 1031  # Linux fcntl; Python names it from 3.10 on

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SCRIPT = "/run/postprocess"
_CLOCK = "/run/libfaketime.so"  # gone with the sandbox's /run

# Enough to make a tree (owners, modes, file capabilities) and nothing that reaches outside it.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)


class ScriptError(DefinitionError):
    """A postprocess script failed. Context: script (`file:line`), output (its tail)."""


# Told why before a shell opens in a failed script's sandbox; leaves the terminal to it.
BeforeShell = Callable[[ScriptError], None]


def _prefix(root: Path, env: Mapping[str, str]) -> list[str]:
    argv = ["bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    argv += ["--die-with-parent", "--bind", str(root), "/"]
    argv += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys"]
    argv += ["--tmpfs", "/var", "--dir", "/var/tmp", "--tmpfs", "/run", *_tmp(root)]
    argv += ["--chdir", "/", "--clearenv", "--setenv", "PATH", PATH, "--setenv", "HOME", "/"]
    argv += ["--setenv", "LC_ALL", "C.UTF-8", "--setenv", "PYTHONDONTWRITEBYTECODE", "1"]
    for capability in _CAPABILITIES:
        argv += ["--cap-add", capability]
    clock = fake_clock()
    if clock:
        argv += ["--ro-bind", clock["LD_PRELOAD"], _CLOCK]
        clock["LD_PRELOAD"] = _CLOCK
    for key, value in sorted({**env, **clock}.items()):
        argv += ["--setenv", key, value]
    return argv


def _tmp(root: Path) -> list[str]:
    """An empty /tmp; where a finished tree has a link to the machine's, an empty one of those."""
    if (root / "tmp").is_symlink():
        return ["--tmpfs", "/sysroot", "--perms", "1777", "--dir", "/sysroot/tmp"]
    return ["--tmpfs", "/tmp"]


def run_in_tree(root: Path, command: list[str], *, env: Mapping[str, str]) -> Completed:
    """Run a command inside the tree. Raises ToolFailedError with the output's tail."""
    return run([*_prefix(root, env), "--new-session", "--", *command])


def tell(root: Path, source_date_epoch: int, command: list[str]) -> str:
    """Run a command inside the tree; returns what it printed. Raises ToolFailedError."""
    return run_in_tree(root, command, env={"SOURCE_DATE_EPOCH": str(source_date_epoch)}).stdout


def run_script(
    root: Path,
    text: str,
    *,
    source: str,
    env: Mapping[str, str],
    before_shell: BeforeShell | None = None,
) -> None:
    """Run a postprocess script inside the tree by its shebang line (`/bin/sh` without one).

    source: `file:line` of the script. before_shell: on a failure a shell gets the terminal in the
    same sandbox, with the tree as the script left it. Raises ScriptError; DefinitionError for a
    script that cannot be run.
    """
    words = interpreter(text, source)
    try:
        with _with_script(root, text, env) as (argv, pipe):
            run(
                [*argv, "--new-session", "--", *words, _SCRIPT],
                pass_fds=(pipe,),
                error=lambda output: script_error(source, output),
            )
    except ScriptError as error:
        if before_shell is not None:
            before_shell(error)
            _shell(root, text, env)
        raise


def _shell(root: Path, text: str, env: Mapping[str, str]) -> None:
    bash = "/bin/bash" if resolve(root, "bin/bash").exists() else "/bin/sh"
    terminal = {"TERM": os.environ.get("TERM", "linux")}
    with _with_script(root, text, {**env, **terminal}) as (argv, pipe):
        # No session of its own: it has the terminal, and with it job control.
        command = [find_tool(argv[0]), *argv[1:], "--", bash]
        subprocess.call(command, env=environment(), pass_fds=(pipe,))


@contextmanager
def _with_script(root: Path, text: str, env: Mapping[str, str]) -> Iterator[tuple[list[str], int]]:
    """A sandbox's command line with the script in it, and the pipe that it comes through.

    So the script is never a file of the tree.
    """
    read_end, write_end = os.pipe()
    try:
        with os.fdopen(write_end, "wb") as stream:
            data = text.encode()
            fcntl.fcntl(stream.fileno(), _F_SETPIPE_SZ, max(4096, len(data) + 1))
            stream.write(data)
        yield [*_prefix(root, env), "--perms", "0555", "--file", str(read_end), _SCRIPT], read_end
    finally:
        os.close(read_end)


def script_error(source: str, output: str) -> ScriptError:
    """The error of a script that failed. output: its end."""
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return ScriptError(
        f"the postprocess script at {source} failed: {last}",
        hint="it ran with the tree as /, without network, as root",
        context={"script": source, "output": output},
    )
