"""A virtual machine under QEMU: its console, its monitor, ssh into it, and power cut or off.

QEMU belongs to this process and ends with it. Its monitor (QMP) is a socket pair, so no path and no
port is taken; ssh goes through a port of the loopback that QEMU chooses. The machine reaches
the host's loopback at HOST.
Sources: qemu(1); QEMU's QMP specification.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from strata.core.errors import MachineError, ToolMissingError
from strata.core.process import Completed, end_group, environment, run
from strata.core.tools import find_tool

HOST = "10.0.2.2"
TCG, KVM = "tcg", "kvm"
BIOS, UEFI = FIRMWARES = ("bios", "uefi")
_OVMF = (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd"))
_TAIL_LINES = 40
_MONITOR_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 20.0
_FORWARD = re.compile(r"HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+22\b")


@dataclass(frozen=True)
class Hardware:
    """What a machine has. accelerator: TCG, or KVM where `kvm_works`."""

    memory_mib: int = 2048
    cpus: int = 2
    firmware: str = BIOS
    accelerator: str = TCG


@dataclass(frozen=True)
class Disk:
    """A disk that is booted from, or with `data` one that is only there. It is written to, unless
    it is data."""

    path: Path
    format: str
    data: bool = False

    def arguments(self, number: int) -> list[str]:
        """QEMU's."""
        read_only = ",readonly=on" if self.data else ""
        drive = f"if=none,id=disk{number},format={self.format},file={_escaped(self.path)}"
        device = f"virtio-blk-pci,drive=disk{number},serial=strata{number}"
        boot = "" if self.data else f",bootindex={number}"
        return ["-drive", drive + read_only, "-device", device + boot]


@dataclass(frozen=True)
class CD:
    """A CD that is booted from; SCSI, since that is what cloud kernels know."""

    path: Path

    def arguments(self, number: int) -> list[str]:
        """QEMU's."""
        drive = f"if=none,id=cd{number},format=raw,media=cdrom,readonly=on"
        return [
            *("-device", f"virtio-scsi-pci,id=scsi{number}"),
            *("-drive", f"{drive},file={_escaped(self.path)}"),
            *("-device", f"scsi-cd,bus=scsi{number}.0,drive=cd{number},bootindex={number}"),
        ]


@dataclass(frozen=True)
class Kernel:
    """A kernel and its initramfs, as a boot over the network loads them."""

    kernel: Path
    initramfs: Path
    arguments_of_kernel: str

    def arguments(self, number: int) -> list[str]:
        """QEMU's."""
        loaded = ["-kernel", str(self.kernel), "-initrd", str(self.initramfs)]
        return [*loaded, "-append", self.arguments_of_kernel]


Medium = Disk | CD | Kernel


def _start_silently(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that goes on beside us, ended with `end_group`; it reads and says nothing."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )


def _escaped(path: Path) -> str:
    """A path as a value among QEMU's options."""
    return str(path).replace(",", ",,")


class QemuMachine:
    """A virtual machine. Use as a context manager: it is shut down at the end of a block that ends
    well, and cut off otherwise.

    ignition: a config given by the firmware, for images of the platform `qemu`. key: of ssh.
    on_terminal: the console is this process's terminal, too. network_namespace: where QEMU, and so
    the loopback that HOST is, and ssh run; this process's when None.
    """

    def __init__(
        self,
        folder: Path,
        media: Sequence[Medium],
        hardware: Hardware,
        *,
        ignition: Path | None = None,
        key: Path | None = None,
        on_terminal: bool = False,
        network_namespace: Path | None = None,
    ) -> None:
        self.folder = folder
        self.console = folder / "console.log"
        self.key = key
        self.port = 0
        self._media = tuple(media)
        self._hardware = hardware
        self._ignition = ignition
        self._on_terminal = on_terminal
        self._inside = (
            [find_tool("nsenter"), f"--net={network_namespace}"] if network_namespace else []
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self._connection: Connection | None = None
        self._read_bytes = 0

    def __enter__(self) -> QemuMachine:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self.running:
                self.power_off()
        finally:
            self.cut_power()

    # --- start and end ---------------------------------------------------------------------

    def start(self) -> None:
        """Switch it on. Raises MachineError, ToolMissingError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.console.write_bytes(b"")
        self._read_bytes = 0
        ours, theirs = socket.socketpair()
        with theirs, open(self.folder / "qemu.log", "wb") as log_file:
            self._process = subprocess.Popen(
                self._command(theirs.fileno()),
                stdin=None if self._on_terminal else subprocess.DEVNULL,
                stdout=None if self._on_terminal else subprocess.DEVNULL,
                stderr=log_file,
                env=environment(),
                pass_fds=[theirs.fileno()],
                # On a terminal QEMU must be in its foreground group to read from it.
                start_new_session=not self._on_terminal,
            )
        try:
            self._monitor = Monitor(ours)
            found = _FORWARD.search(str(self._monitor.human("info usernet")))
            if not found:
                raise MachineError("QEMU does not say which port leads to the machine's ssh")
            self.port = int(found[1])
        except BaseException as error:
            self.cut_power()
            log = (self.folder / "qemu.log").read_text(errors="replace").strip()
            if isinstance(error, MachineError) and log:
                raise MachineError(
                    f"QEMU did not start: {log.splitlines()[-1]}", context={"output": log}
                ) from error
            raise

    def _command(self, monitor: int) -> list[str]:
        hardware = self._hardware
        accelerator = "tcg,thread=multi" if hardware.accelerator == TCG else hardware.accelerator
        argv = [*self._inside, find_tool("qemu-system-x86_64"), "-nodefaults", "-display", "none"]
        cpu = "host" if hardware.accelerator == KVM else "max"
        argv += ["-machine", "q35", "-accel", accelerator, "-cpu", cpu]
        argv += ["-m", str(hardware.memory_mib), "-smp", str(hardware.cpus)]
        kind = "stdio,signal=off" if self._on_terminal else "null"
        console = f"{kind},id=console,logfile={_escaped(self.console)},logappend=on"
        argv += ["-chardev", console, "-serial", "chardev:console"]
        argv += ["-chardev", f"socket,id=monitor,fd={monitor}"]
        argv += ["-mon", "chardev=monitor,mode=control"]
        argv += ["-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22"]
        argv += ["-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"]
        if hardware.firmware == UEFI:
            argv += self._uefi()
        if self._ignition:
            config = f"name=opt/com.coreos/config,file={_escaped(self._ignition)}"
            argv += ["-fw_cfg", config]
        for number, medium in enumerate(self._media, 1):
            argv += medium.arguments(number)
        return argv

    def _uefi(self) -> list[str]:
        code, variables = _OVMF
        if not code.is_file():
            raise ToolMissingError("firmware for UEFI is missing", hint="apt install ovmf")
        own = self.folder / "efivars.fd"
        if not own.exists():
            shutil.copyfile(variables, own)
        return [
            *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"),
            *("-drive", f"if=pflash,unit=1,format=raw,file={_escaped(own)}"),
        ]

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor. Raises MachineError when the machine is off."""
        if self._monitor is None:
            raise MachineError("the machine is not switched on")
        return self._monitor

    def power_off(self, timeout_s: float = 180.0) -> None:
        """Press the power button and wait until it is off. Raises MachineError."""
        self.monitor.execute("system_powerdown")
        self.wait(timeout_s)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it is off, whoever switches it off. Raises MachineError."""
        if self._process is None:
            return
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failure(f"the machine is not off after {timeout_s:g} s") from None
        if status != 0:
            log = (self.folder / "qemu.log").read_text(errors="replace").strip()
            raise self._failure(f"QEMU ended with status {status}: {log}")

    def reset(self) -> None:
        """Push the reset button: what was not written to the disk is lost. What is on the console
        already is passed over by `wait_for`."""
        self._hang_up()
        self._read_bytes = self.console.stat().st_size
        self.monitor.execute("system_reset")

    def reboot(self, timeout_s: float) -> None:
        """Have it boot again by itself, and wait for ssh. Raises MachineError."""
        before = self.boot_id()
        self.sh("systemctl reboot", check=False)
        self._hang_up()
        self.wait_for_ssh(timeout_s, after=before)

    def boot_id(self) -> str:
        """What the kernel calls this boot; empty when ssh does not work."""
        return self.sh("cat /proc/sys/kernel/random/boot_id", check=False).stdout.strip()

    def cut_power(self) -> None:
        """End it at once."""
        self._hang_up()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._process is not None and self._process.poll() is None:
            if self._on_terminal:
                self._process.kill()  # it is in our own group
                self._process.wait()
            else:
                end_group(self._process)

    # --- what it says, and talking to it -------------------------------------------------------

    def console_text(self) -> str:
        """All that was on its console since it was switched on."""
        return self.console.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[bytes]:
        """Wait until a pattern is on the console, after what was found before.

        Raises MachineError with the console's end, also when the machine ends or is in an
        emergency shell.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            ended = not self.running
            text = self.console.read_bytes()[self._read_bytes :]
            found = re.search(pattern.encode(), text)
            if found:
                self._read_bytes += found.end()
                return found
            self._check_booting()
            if ended:
                raise self._failure(f"the machine ended before {pattern!r} was on its console")
            if time.monotonic() > deadline:
                raise self._failure(f"{pattern!r} is not on the console after {timeout_s:g} s")
            time.sleep(0.2)

    def _check_booting(self) -> None:
        """Raise MachineError when it waits in an emergency shell or has panicked."""
        text = self.console_text()
        if "emergency mode" in text or "Kernel panic" in text:
            raise self._failure("the machine did not boot")

    def ssh_command(self, *more: str) -> list[str]:
        """The command that opens a shell in it, as root; append a command to run that instead.

        more: options of ssh.
        """
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": "30",
            "IdentitiesOnly": "yes",
        }
        argv = [*self._inside, "ssh", "-p", str(self.port)]
        argv += ["-i", str(self.key)] if self.key else []
        for name, value in options.items():
            argv += ["-o", f"{name}={value}"]
        return [*argv, *more, "root@127.0.0.1"]

    def sh(self, command: str, *, check: bool = True, timeout_s: float = 120.0) -> Completed:
        """Run a shell command in it, as root, by ssh. Raises ToolFailedError when check is set."""
        shared = self._connection.options if self._connection else ()
        return run([*self.ssh_command(*shared), command], check=check, timeout_s=timeout_s)

    def run(self, *argv: str, check: bool = True, timeout_s: float = 120.0) -> Completed:
        """Run a command in it, as root, by ssh. Raises ToolFailedError when check is set."""
        return self.sh(shlex.join(argv), check=check, timeout_s=timeout_s)

    def wait_for_ssh(self, timeout_s: float, *, after: str = "") -> None:
        """Wait until ssh works, in another boot than `after` when given.

        Raises MachineError with the console's end.
        """
        deadline = time.monotonic() + timeout_s
        while self.boot_id() in ("", after):
            self._check_booting()
            if not self.running or time.monotonic() > deadline:
                raise self._failure(f"ssh does not work after {timeout_s:g} s")
            time.sleep(1)
        if self._connection is None:
            self._connection = Connection(self.ssh_command)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failure(self, what: str) -> MachineError:
        tail = "\n".join(self.console_text().splitlines()[-_TAIL_LINES:])
        return MachineError(
            what, hint=f"its console is in {self.console}", context={"console": tail}
        )


class Connection:
    """One ssh connection that commands share: emulated, each handshake takes seconds. While it is
    not there, or when it ends, they make their own.

    ssh: gives the command for a shell, with options. Its socket has a short path of its own: the
    machine's folder may be deeper than a socket's name can be.
    """

    def __init__(self, ssh: Callable[..., list[str]]) -> None:
        self._folder = tempfile.mkdtemp(prefix="strata-ssh.")
        self.options = ("-o", f"ControlPath={self._folder}/s")
        self._process = _start_silently(ssh(*self.options, "-o", "ControlMaster=yes", "-N"))

    def close(self) -> None:
        """End it."""
        end_group(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


class Monitor:
    """QEMU's monitor protocol on a connected socket: one command, one answer."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_MONITOR_TIMEOUT_S)
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._answer("QMP")
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command; returns its result. Raises MachineError."""
        request = {"execute": command, "arguments": arguments}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise MachineError(f"QEMU does not listen to {command}: {error}") from error
        answer = self._answer("return", "error")
        if "error" in answer:
            raise MachineError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def human(self, command: str) -> Any:
        """Run a command of the monitor for people; returns its text."""
        return self.execute("human-monitor-command", **{"command-line": command})

    def _answer(self, *keys: str) -> dict[str, Any]:
        """The next message with one of the keys; events between are passed over."""
        while True:
            try:
                line = self._stream.readline()
            except OSError as error:
                raise MachineError(f"QEMU does not answer: {error}") from error
            if not line:
                raise MachineError("QEMU ended")
            message = json.loads(line)
            if any(key in message for key in keys):
                return dict(message)

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._connection.close()


def kvm_works(kernel: Path, folder: Path) -> bool:
    """Whether a kernel says something under KVM: the device can be there and still hang a guest."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    log = folder / "probe.log"
    argv = [find_tool("qemu-system-x86_64"), "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-accel", KVM, "-cpu", "host", "-m", "512", "-serial", f"file:{_escaped(log)}"]
    argv += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    log.write_bytes(b"")
    process = _start_silently(argv)
    try:
        # Without a root it panics, and with panic=-1 that is the end of it.
        return process.wait(_PROBE_TIMEOUT_S) == 0 and b"Kernel panic" in log.read_bytes()
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            end_group(process)
