"""One door for processes: no shell, a minimal environment, an own process group, the output's
tail in the error, and nothing left running when the caller is interrupted.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from strata.core.clock import fake_clock
from strata.core.errors import NoSpaceError, NotRootError, StrataError, ToolFailedError
from strata.core.tools import TOOLS, find_tool

TAIL_LINES = 40
_KEPT = (
    "HOME",
    "LANG",
    "PATH",
    "SOURCE_DATE_EPOCH",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    # Where gpg finds the key that signs commits.
    "GNUPGHOME",
    # Where skopeo finds registries, credentials, policies and stores.
    "REGISTRY_AUTH_FILE",
    "CONTAINERS_CONF",
    "CONTAINERS_POLICY_JSON",
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_STORAGE_CONF",
    "DOCKER_CONFIG",
    "DOCKER_HOST",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
)


@dataclass(frozen=True)
class Completed:
    """What a finished process left: arguments, status, stdout (whole) and stderr (tail)."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The minimal environment every child gets, with `extra` on top."""
    env = {key: os.environ[key] for key in _KEPT if key in os.environ}
    env["LC_ALL"] = "C.UTF-8"
    env["PATH"] = env.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
    env.update(fake_clock())
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout_s: float | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    error: Callable[[str], StrataError | None] | None = None,
    pass_fds: Iterable[int] = (),
) -> Completed:
    """Run a tool to its end and return what it printed.

    env: added to the minimal environment. stdin: text for its standard input (else /dev/null).
    on_line: called with each line of stderr as it comes. error: may turn the output of a failed
    run into a better error than ToolFailedError.

    Raises ToolMissingError, ToolFailedError (or what `error` made of it), NoSpaceError. When the
    wait is interrupted, the whole process group is ended before the exception goes on.
    """
    command = (find_tool(argv[0]), *argv[1:])
    # start_new_session makes the child its own process group, so ending it ends its children.
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    out: list[bytes] = []
    readers = [
        threading.Thread(target=_read_lines, args=(process.stderr, tail, on_line), daemon=True),
        threading.Thread(target=_read_all, args=(process.stdout, out), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        if stdin is not None and process.stdin is not None:
            try:
                process.stdin.write(stdin.encode())
                process.stdin.close()
            except BrokenPipeError:
                pass
        status = process.wait(timeout=timeout_s)
        for reader in readers:
            reader.join()
    except subprocess.TimeoutExpired:
        end_group(process)
        raise ToolFailedError(
            f"{argv[0]} did not finish within {timeout_s:g} s",
            hint=f"to repeat it: {shlex.join(argv)}",
            context={"command": shlex.join(argv), "output": "\n".join(tail)},
        ) from None
    except BaseException:
        end_group(process)
        raise
    finally:
        for stream in (process.stdout, process.stderr, process.stdin):
            if stream is not None and not any(reader.is_alive() for reader in readers):
                stream.close()
    stdout = b"".join(out).decode("utf-8", "replace")
    done = Completed(tuple(argv), status, stdout, "\n".join(tail))
    if check and status != 0:
        raise _failure(done, error)
    return done


def _failure(done: Completed, error: Callable[[str], StrataError | None] | None) -> StrataError:
    output = (done.stderr + "\n" + "\n".join(done.stdout.splitlines()[-TAIL_LINES:])).strip()
    if "No space left on device" in output:
        return NoSpaceError(
            f"no space left on the device while running {done.argv[0]}",
            hint="free some space, or put the store on a larger disk with --store",
            context={"command": shlex.join(done.argv)},
        )
    better = error(output) if error else None
    return better or ToolFailedError(
        f"{done.argv[0]} {_why(done.status)}",
        hint=f"to repeat it: {shlex.join(done.argv)}",
        context={"command": shlex.join(done.argv), "status": done.status, "output": output},
    )


def _why(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    if status == 127:
        return "could not start (status 127)"
    return f"failed with status {status}"


def _read_lines(stream: IO[bytes], tail: deque[str], on_line: Callable[[str], None] | None) -> None:
    for raw in stream:
        line = raw.decode("utf-8", "replace").rstrip()
        tail.append(line)
        if on_line:
            on_line(line)


def _read_all(stream: IO[bytes], out: list[bytes]) -> None:
    out.append(stream.read())


def end_group(process: subprocess.Popen[bytes], grace_s: float = 5.0) -> None:
    """End a process started in its own session, and everything in its group: TERM, then KILL."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=grace_s)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    try:
        # Also when the leader is gone: a child of it may still hold a mount.
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


_versions: dict[str, str] = {}


def tool_version(name: str) -> str:
    """First line of the tool's `--version`, probed once per process and kept."""
    if name not in _versions:
        tool = TOOLS.get(name)
        done = run([name, *(tool.version_args if tool else ("--version",))], check=False)
        text = (done.stdout or done.stderr).strip()
        _versions[name] = text.splitlines()[0] if text else "unknown"
    return _versions[name]


def require_root(what: str) -> None:
    """Raise NotRootError unless the effective user is root. what: e.g. "building a tree"."""
    if os.geteuid() != 0:
        raise NotRootError(f"{what} needs root", hint="run the same command with sudo")


def os_error(error: OSError, doing: str) -> StrataError:
    """An OSError as one of ours: a full disk becomes NoSpaceError. doing: "writing the blob"."""
    path = error.filename  # a number when the call was on an open file
    where = f" ({os.fsdecode(path)})" if isinstance(path, (str, bytes)) and path else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            f"no space left on the device while {doing}{where}",
            hint="free some space, or put the store on a larger disk with --store",
        )
    return StrataError(f"{error.strerror or error} while {doing}{where}")
