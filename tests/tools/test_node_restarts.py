"""Which services an overlay would leave with old files, from real processes' maps."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from strata.core.events import silent
from strata.core.process import Completed, run
from strata.node import finish, host, reconcile, restarts
from strata.node.config import NodeConfig
from strata.node.restarts import Restart, plan, unit_of

pytestmark = pytest.mark.tools

CGROUP = "0::/system.slice/{}\n"


@dataclass
class Running:
    """A process that runs from a folder in the place of /usr, as one of a service."""

    usr: Path
    new: Path
    proc: Path

    def changed(self) -> dict[str, set[str]]:
        return restarts.changed_files(str(self.usr), str(self.new), self.proc)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    usr, new, proc = tmp_path / "usr", tmp_path / "new", tmp_path / "proc"
    (usr / "bin").mkdir(parents=True)
    binary = shutil.copy("/usr/bin/sleep", usr / "bin/a tool")
    subprocess.run(["cp", "-al", usr, new], check=True)
    with subprocess.Popen([binary, "600"]) as process:
        real = Path(f"/proc/{process.pid}")
        folder = proc / str(process.pid)
        folder.mkdir(parents=True)
        for name in ("maps", "map_files", "root"):
            (folder / name).symlink_to(real / name)
        (folder / "cgroup").write_text(CGROUP.format("tool.service"))
        (proc / "self").mkdir()
        while "a tool" not in (real / "maps").read_text():
            pass
        yield Running(usr, new, proc)
        process.kill()


def test_a_service_on_the_same_files_is_not_found(running: Running) -> None:
    assert running.changed() == {}
    # Another inode with the same bytes is the same file.
    shutil.copy(running.usr / "bin/a tool", running.new / "bin/copy")
    (running.new / "bin/copy").rename(running.new / "bin/a tool")
    assert not (running.usr / "bin/a tool").samefile(running.new / "bin/a tool")
    assert running.changed() == {}


def test_a_service_whose_binary_changed_or_went_is_found(running: Running) -> None:
    there = running.new / "bin/a tool"
    data = bytearray(there.read_bytes())
    data[-1] ^= 1
    there.unlink()
    there.write_bytes(data)
    assert running.changed() == {"tool.service": {"bin/a tool"}}
    there.unlink()
    assert running.changed() == {"tool.service": {"bin/a tool"}}


def test_a_file_that_was_removed_below_the_process_is_still_compared(running: Running) -> None:
    (running.usr / "bin/a tool").unlink()
    assert running.changed() == {}
    (running.new / "bin/a tool").unlink()
    (running.new / "bin/a tool").write_bytes(b"another")
    assert running.changed() == {"tool.service": {"bin/a tool"}}


def test_a_container_is_not_looked_at(running: Running, tmp_path: Path) -> None:
    (running.new / "bin/a tool").unlink()
    pid = next(path for path in running.proc.iterdir() if path.name != "self")
    (pid / "root").unlink()
    (pid / "root").symlink_to(tmp_path)
    assert running.changed() == {}


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ssh.service", "ssh.service"),
        ("0::/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("0::/system.slice/podman.service/libpod-1", "podman.service"),
        ("0::/user.slice/user-0.slice/session-1.scope", ""),
        ("12:pids:/system.slice/a.service\n0::/system.slice/a.service", "a.service"),
        ("", ""),
    ],
)
def test_a_service_is_known_by_its_cgroup(cgroup: str, unit: str) -> None:
    assert unit_of(cgroup) == unit


def test_rules_decide_and_sshd_is_restarted_without_one() -> None:
    """Requirements R6.11 and R6.13."""
    config = NodeConfig(
        keep=("agent*.service",),
        restart={"chronyd.service": "leave", "c*.service": "restart", "node-*": "restart"},
    )
    units: tuple[str, ...] = ("agent1.service", "chronyd.service", "crio.service", "sshd.service")
    units += ("dbus.service", "node-image-overlay.service")
    planned = plan({unit: ["lib/b", "lib/a"] for unit in units}, config)
    assert {item.unit: item.action for item in planned} == {
        "agent1.service": "leave",
        "chronyd.service": "leave",
        "crio.service": "restart",
        "dbus.service": "leave",
        "node-image-overlay.service": "leave",
        "sshd.service": "restart",
    }
    assert planned[0] == Restart(
        "agent1.service", "leave", "node.json keeps it", ("lib/a", "lib/b")
    )
    kept = plan({"sshd.service": ["x"]}, NodeConfig(restart={"sshd.service": "leave"}))
    assert kept[0].action == "leave"


def test_the_system_is_told_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SELINUX", tmp_path)
    monkeypatch.setattr(host, "UDEV", tmp_path)
    monkeypatch.setattr(host, "ETC", str(tmp_path))
    monkeypatch.setattr(restarts, "changed_files", lambda usr, new: {"ssh.service": {"lib/x"}})
    ran: list[list[str]] = []

    def record(argv: list[str], *, check: bool = True) -> Completed:
        ran.append(argv)
        return run(["true"])

    done = reconcile.tell_the_system(record, NodeConfig(), silent())
    assert [item.unit for item in done] == ["ssh.service"]
    assert [argv[0] for argv in ran[:3]] == ["systemd-sysusers", "systemd-tmpfiles", "ldconfig"]
    assert ran[3:] == [
        ["load_policy"],
        ["udevadm", "control", "--reload"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "--no-block", "try-restart", "ssh.service"],
    ]


def test_keys_stay_where_a_group_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ETC", str(tmp_path / "etc"))
    monkeypatch.setattr(host, "USR", str(tmp_path / "usr"))
    key = tmp_path / "etc/ssh/ssh_host_ed25519_key"
    key.parent.mkdir(parents=True)
    key.touch(0o640)
    os.chmod(key, 0o640)
    (tmp_path / "etc/group").write_text("root:x:0:\nssh_keys:x:101:\n")
    assert reconcile.tighten_host_keys() == []
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    assert reconcile.tighten_host_keys() == [key]
    assert key.stat().st_mode & 0o777 == 0o600


def test_kept_units_survive_the_isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirement R6.11."""
    monkeypatch.setattr(finish, "RUNTIME_UNITS", tmp_path)
    ran: list[str] = []

    def answer(argv: list[str]) -> Completed:
        ran.append(argv[1])
        return Completed((), 0, "agent.service loaded active running Agent\nx.service y\n", "")

    monkeypatch.setattr(finish, "run", answer)
    finish.keep_through_isolate(NodeConfig(keep=("agent*",)))
    assert ran == ["list-units", "daemon-reload"]
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.conf")}
    assert found == {"agent.service.d/50-strata-keep.conf": "[Unit]\nIgnoreOnIsolate=yes\n"}
