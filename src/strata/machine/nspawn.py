"""Booting a deployment under systemd-nspawn, running commands in it, and leaving nothing behind.

The machine gets its own network namespace (loopback only, or one given), so that its services
meet neither the host's network nor its ports. `/usr` is bound read-only: a write through it would
go through hard links into the repository. `/run/ostree-booted` is there from the first moment, as
the initramfs would have made it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from strata.bootimage.sysroot import Deployment
from strata.core.errors import MachineError
from strata.core.files import atomic_write, pretty_json
from strata.core.process import Completed, end_group, environment, run
from strata.core.tools import find_tool

BOOT_TIMEOUT_S = 120.0
RECORD = "machine.json"


@dataclass(frozen=True)
class Bind:
    """A folder of the host shown inside the machine."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Known:
    """A started machine as its folder's record tells it: two processes, named by id and start.

    leader: the machine's PID 1, as the host numbers it.
    """

    nspawn: int
    nspawn_started: str
    leader: int
    leader_started: str

    def save(self, folder: Path) -> None:
        """Write the record."""
        atomic_write(folder / RECORD, pretty_json(asdict(self)))

    @staticmethod
    def load(folder: Path) -> Known | None:
        """Read a folder's record; None when there is none. Raises MachineError."""
        path = folder / RECORD
        try:
            return Known(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise MachineError(
                f"{path} is no record of a machine: {error}",
                hint="end the machine if it still runs, and remove the file",
            ) from error

    def processes(self) -> dict[int, str]:
        """Those of the two that still run, and not others under their numbers."""
        both = {self.nspawn: self.nspawn_started, self.leader: self.leader_started}
        return {pid: started for pid, started in both.items() if _start_time(pid) == started != ""}

    def power_off_command(self) -> list[str]:
        """The command that ends the machine."""
        return [*enter_command(self.leader), "/usr/bin/systemctl", "poweroff"]


def enter_command(leader: int) -> list[str]:
    """The command that runs something in the machine whose PID 1 is given."""
    return [find_tool("nsenter"), "--target", str(leader), "--all", "--"]


class NspawnMachine:
    """A booted deployment. Use as a context manager, or `detach()` to leave it running.

    Raises MachineError when it does not boot; the console is kept in `console`.
    """

    def __init__(
        self,
        deployment: Deployment,
        folder: Path,
        *,
        binds: tuple[Bind, ...] = (),
        network_namespace: Path | None = None,
    ) -> None:
        self.deployment = deployment
        self.folder = folder
        self.console = folder / "console.log"
        self._binds = binds
        self._network_namespace = network_namespace
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> NspawnMachine:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(gently=kind is None)

    def _command(self) -> list[str]:
        deployment = self.deployment
        booted = self.folder / "ostree-booted"
        booted.parent.mkdir(parents=True, exist_ok=True)
        booted.touch()
        argv = [find_tool("systemd-nspawn"), "--directory", str(deployment.root), "--boot"]
        argv += ["--register=no", "--keep-unit", "--quiet", "--console=read-only"]
        argv += ["--machine=strata", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        argv += ["--kill-signal=SIGRTMIN+3"]
        argv += [f"--bind={deployment.sysroot}:/sysroot", f"--bind={deployment.sysroot}/boot:/boot"]
        argv += [f"--bind={deployment.var}:/var", f"--bind-ro={deployment.root}/usr:/usr"]
        argv += [f"--bind-ro={booted}:/run/ostree-booted"]
        for bind in self._binds:
            flag = "--bind-ro" if bind.read_only else "--bind"
            argv.append(f"{flag}={bind.source}:{bind.target}")
        if self._network_namespace:
            argv.append(f"--network-namespace-path={self._network_namespace}")
        else:
            argv.append("--private-network")
        return argv

    def start(self) -> None:
        """Boot, and return when PID 1 runs inside. Raises MachineError."""
        command = self._command()
        with open(self.console, "wb") as console:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment({"SYSTEMD_LOG_LEVEL": "warning"}),
                start_new_session=True,
            )
        try:
            self._leader = self._wait_for_leader(time.monotonic() + BOOT_TIMEOUT_S)
        except BaseException:
            self.stop(gently=False)
            raise
        pid = self._process.pid
        Known(pid, _start_time(pid), self._leader, _start_time(self._leader)).save(self.folder)

    def _wait_for_leader(self, deadline: float) -> int:
        process = self._running()
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise self._failure(f"systemd-nspawn ended with status {process.returncode}")
            for pid in _descendants(process.pid):
                if _inner_pid(pid) == 1 and _comm(pid) == "systemd":
                    return pid
            time.sleep(0.05)
        raise self._failure("systemd did not start")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise MachineError("the machine is not started")
        return self._process

    def _failure(self, what: str) -> MachineError:
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        tail = "\n".join(text.splitlines()[-40:])
        return MachineError(
            f"the machine did not boot: {what}",
            hint=f"its console is in {self.console}",
            context={"console": tail},
        )

    @property
    def leader(self) -> int:
        """The machine's PID 1, as the host numbers it."""
        return self._leader

    def enter_command(self) -> list[str]:
        """The command that runs something inside: append the command itself."""
        return enter_command(self._leader)

    def run(self, *argv: str, check: bool = True, timeout_s: float = 60.0) -> Completed:
        """Run a command inside the machine, as root. Raises ToolFailedError when check is set."""
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root"}
        prefix = self.enter_command()
        return run(["nsenter", *prefix[1:], *argv], check=check, timeout_s=timeout_s, env=env)

    def wait_until(self, *argv: str, timeout_s: float, what: str) -> None:
        """Run a command inside until it succeeds. Raises MachineError with the journal's end."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._running().poll() is not None:
                raise self._failure("it went down")
            if self.run(*argv, check=False).status == 0:
                return
            if time.monotonic() > deadline:
                journal = self.run("journalctl", "-n", "60", "--no-pager", check=False).stdout
                raise MachineError(
                    f"{what} did not happen within {timeout_s:g} s",
                    hint=f"the machine's console is in {self.console}",
                    context={"journal": journal},
                )
            time.sleep(0.1)

    def detach(self) -> None:
        """Leave the machine running when this process ends."""
        self._process = None

    def stop(self, *, gently: bool = True) -> None:
        """Power the machine off (or, not gently, end it at once). Removes its machine.json."""
        process = self._process
        if process is None:
            return
        self._process = None
        inside = _family(process.pid)
        if gently:
            power_off(process, self._leader)
        if process.poll() is None:
            inside |= _family(process.pid)  # what it started to go down with, too
            end_group(process, grace_s=2.0)
        _end(inside)
        (self.folder / RECORD).unlink(missing_ok=True)


def power_off(process: subprocess.Popen[bytes], leader: int, grace_s: float = 10.0) -> None:
    """Ask the machine's systemd to power off, and give it time."""
    if leader and process.poll() is None:
        try:
            os.kill(leader, signal.SIGRTMIN + 4)  # systemd: start poweroff.target
            process.wait(timeout=grace_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


def running(folder: Path) -> Known | None:
    """The machine that `detach()` left running in a folder, if it still runs.

    The record of one that was powered off meanwhile is removed.
    """
    known = Known.load(folder)
    if known is None or known.processes():
        return known
    (folder / RECORD).unlink()
    return None


def stop_detached(folder: Path) -> bool:
    """End a machine that `detach()` left running; returns whether there was one."""
    known = running(folder)
    if known is None:
        return False
    processes = known.processes()
    family = {**_family(known.nspawn), **processes} if known.nspawn in processes else processes
    if known.leader in processes:
        os.kill(known.leader, signal.SIGRTMIN + 4)
    deadline = time.monotonic() + 10
    while known.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    _end(family)
    (folder / RECORD).unlink()
    return True


def _family(pid: int) -> dict[int, str]:
    """A process's descendants with their start times, to be found again when it is gone."""
    return {child: _start_time(child) for child in _descendants(pid)}


def _end(processes: dict[int, str], grace_s: float = 60.0) -> None:
    """End what is left of some processes: a machine's PID 1 outlives a killed systemd-nspawn.

    Raises MachineError when they do not end.
    """
    left = processes
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        left = {pid: started for pid, started in left.items() if _start_time(pid) == started != ""}
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02 if left else 0)
    if left:
        raise MachineError(f"processes of the machine do not end: {', '.join(map(str, left))}")


def _start_time(pid: int) -> str:
    """A process's start time in clock ticks: with its id, it names a process for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _descendants(pid: int) -> list[int]:
    found, queue = [], [pid]
    while queue:
        current = queue.pop()
        try:
            children = Path(f"/proc/{current}/task/{current}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [int(child) for child in children]
        queue += [int(child) for child in children]
    return found


def _inner_pid(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def shell(machine: NspawnMachine) -> int:
    """Give the terminal to a login shell inside the machine; returns its status."""
    command = [*machine.enter_command(), "/bin/bash", "-l"]
    env = {"TERM": os.environ.get("TERM", "linux"), "HOME": "/root", "USER": "root"}
    env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    return subprocess.call(command, env=env)
