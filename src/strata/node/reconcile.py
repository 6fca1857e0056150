"""Reconcile: the running system is told of its new /usr, as a boot would have been.

Users, folders, the linker's cache, udev, SELinux where it is on, systemd, sshd's keys; then the
services that run from files which are others now (`restarts`). What is written is in /etc, and was
saved by the merge phase; `undo` restores it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from strata.core.errors import StrataError
from strata.core.events import Reporter
from strata.core.process import Completed
from strata.core.text import shortened
from strata.node import host, restarts
from strata.node.config import RESTART, NodeConfig
from strata.node.restarts import Restart

# Single lines of tmpfiles.d failed, and the rest was done.
TMPFILES_PARTLY = (65, 73)
KEY_GROUP = b"ssh_keys:"
Run = Callable[..., Completed]


def tell_the_system(run: Run, config: NodeConfig, reporter: Reporter) -> tuple[Restart, ...]:
    """Do all of it; returns what became of running services. Raises StrataError."""
    for title, command in _commands():
        with reporter.step(title):
            _accept(command, run(command, check=False))
    for key in tighten_host_keys():
        reporter.note(f"{key}: its mode is 0600 now, as the image's sshd asks for")
    with reporter.step("look for services that use changed files") as step:
        changed = restarts.changed_files(host.USR, host.USR)
        planned = restarts.plan(changed, config)
        step.detail(f"{len(planned)} found")
    restarts.carry_out(planned, run)
    for item in planned:
        what = "restarted" if item.action == RESTART else "left running as it is"
        reporter.note(f"{item.unit} {what} ({item.reason}): {shortened(item.files, 3)} changed")
    return planned


def _commands() -> list[tuple[str, list[str]]]:
    commands = [
        ("make users", ["systemd-sysusers"]),
        ("make folders", ["systemd-tmpfiles", "--create", "--exclude-prefix=/dev"]),
        ("renew the linker's cache", ["ldconfig", "-X"]),
    ]
    if host.SELINUX.exists():
        commands.append(("load the SELinux policy", ["load_policy"]))
    if host.UDEV.exists():
        commands.append(("reload udev's rules", ["udevadm", "control", "--reload"]))
    commands.append(("reload systemd", ["systemctl", "daemon-reload"]))
    return commands


def _accept(command: list[str], done: Completed) -> None:
    partly = command[0] == "systemd-tmpfiles" and done.status in TMPFILES_PARTLY
    if done.status != 0 and not partly:
        raise StrataError(
            f"{command[0]} failed on the new /usr with status {done.status}",
            context={"output": done.stderr},
        )


def host_keys() -> list[Path]:
    """sshd's private keys that others than their owner may read."""
    return [
        path
        for path in sorted(Path(host.ETC, "ssh").glob("ssh_host_*_key"))
        if stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_mode & 0o077
    ]


def tighten_host_keys() -> list[Path]:
    """Make private keys 0600 where the new system has no group that may read them: its sshd, of
    another major version, refuses them otherwise (requirement R6.14). Returns those."""
    for path in (Path(host.ETC, "group"), Path(host.USR, "lib/group")):
        text = path.read_bytes() if path.exists() else b""
        if any(line.startswith(KEY_GROUP) for line in text.splitlines()):
            return []
    found = host_keys()
    for path in found:
        os.chmod(path, 0o600)
    return found
