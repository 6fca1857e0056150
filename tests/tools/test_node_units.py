"""The agent's units held against systemd itself: escaping, verification, ordering cycles."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from strata.core.errors import DefinitionError
from strata.core.systemd import find_cycle, parse_unit
from strata.node.host import LIVE
from strata.node.units import (
    HOOK,
    LIVE_MOUNT,
    OVERLAY,
    PULL,
    TARGET,
    UNIT_FOLDER,
    Installation,
    escape_path,
    write_units,
)
from strata.node.units.order import read_units, require_order

pytestmark = pytest.mark.tools


def analyze(root: Path, *units: str) -> str:
    """What `systemd-analyze verify` says of units below a root, above the host's own."""
    folder = root / UNIT_FOLDER
    argv = ["systemd-analyze", "verify", "--man=no", *(str(folder / unit) for unit in units)]
    env = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{folder}:"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    return done.stderr


@pytest.mark.parametrize(
    "path", [str(LIVE), "/", "/a b/.c", "/.hidden/x", "/ä/b:c", "//double//", "/a-b/c_d.e"]
)
def test_paths_are_escaped_as_systemd_does(path: str) -> None:
    argv = ["systemd-escape", "--path", path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert escape_path(path) == done.stdout.strip()


@pytest.mark.parametrize("assisted", [False, True])
def test_systemd_has_nothing_to_say_against_the_units(tmp_path: Path, assisted: bool) -> None:
    agent = tmp_path / "agent.pyz"
    agent.write_text("#!/bin/sh\n")
    agent.chmod(0o755)
    how = Installation(agent=str(agent), architecture="ppc64le", assisted=assisted)
    written = write_units(tmp_path / "root", how)
    units = [path.name for path in written if path.parent.name == "system"]
    said = [line for line in analyze(tmp_path / "root", *units).splitlines() if "node-" in line]
    assert said == []
    require_order(read_units(tmp_path / "root"))
    # And it would have said something.
    agent.unlink()
    assert "agent.pyz" in analyze(tmp_path / "root", *units)


@pytest.mark.parametrize(
    ("name", "text", "ring"),
    [
        (
            "dns.service",
            f"[Unit]\nAfter={OVERLAY}\nBefore={HOOK}\n[Service]\nExecStart=/bin/true\n"
            f"[Install]\nWantedBy={HOOK}\n",
            {"dns.service", OVERLAY, PULL, HOOK},
        ),
        (
            "hosts.service",
            f"[Unit]\nAfter={TARGET}\nBefore=basic.target\n[Service]\nExecStart=/bin/true\n"
            f"[Install]\nWantedBy={TARGET}\n",
            {"hosts.service", "basic.target"},
        ),
    ],
)
def test_a_set_with_a_cycle_is_refused_as_systemd_finds_it(
    tmp_path: Path, name: str, text: str, ring: set[str]
) -> None:
    write_units(tmp_path, Installation(agent="/bin/true"))
    target = text.rpartition("WantedBy=")[2].strip()
    (tmp_path / UNIT_FOLDER / name).write_text(text)
    wants = tmp_path / UNIT_FOLDER / f"{target}.wants"
    wants.mkdir()
    (wants / name).symlink_to(f"../{name}")
    # systemd itself, and ours with its names.
    assert "ordering cycle" in analyze(tmp_path, TARGET)
    with pytest.raises(DefinitionError, match="wait for each other") as caught:
        require_order(read_units(tmp_path))
    assert set(str(caught.value.context["units"]).split()) >= ring


def test_a_hook_before_the_pull_is_no_cycle_for_either(tmp_path: Path) -> None:
    write_units(tmp_path, Installation(agent="/bin/true"))
    text = f"[Unit]\nBefore={HOOK} network-online.target\n[Service]\nExecStart=/bin/true\n"
    (tmp_path / UNIT_FOLDER / "dns.service").write_text(text)
    wants = tmp_path / UNIT_FOLDER / f"{HOOK}.wants"
    wants.mkdir()
    (wants / "dns.service").symlink_to("../dns.service")
    assert "cycle" not in analyze(tmp_path, TARGET)
    require_order(read_units(tmp_path))


def test_units_that_do_not_start_are_in_nobodys_way(tmp_path: Path) -> None:
    """Not enabled, or masked: for systemd there is no cycle, and so there is none for ours."""
    write_units(tmp_path, Installation(agent="/bin/true"))
    folder = tmp_path / UNIT_FOLDER
    service = f"[Unit]\nAfter={OVERLAY}\nBefore={HOOK}\n[Service]\nExecStart=/bin/true\n"
    (folder / "dns.service").write_text(f"{service}[Install]\nWantedBy={HOOK}\n")
    masked = tmp_path / "usr/lib/systemd/system/masked.service"
    masked.parent.mkdir(parents=True)
    masked.write_text(service)
    (folder / masked.name).symlink_to("/dev/null")
    wants = folder / f"{HOOK}.wants"
    wants.mkdir()
    (wants / masked.name).symlink_to(f"../{masked.name}")
    assert "cycle" not in analyze(tmp_path, TARGET)
    require_order(read_units(tmp_path))
    (folder / masked.name).unlink()
    with pytest.raises(DefinitionError, match=r"masked\.service"):
        require_order(read_units(tmp_path))


def test_the_host_has_no_cycles_by_our_reading_either() -> None:
    units = read_units(Path("/"))
    assert len(units) > 50
    assert find_cycle(units, ["multi-user.target"]) == []


def test_the_agent_is_relabelled_only_under_selinux(tmp_path: Path) -> None:
    """R6.2: the command as systemd runs it, with the kernel's file and chcon replaced."""
    agent = tmp_path / "agent.pyz"
    agent.touch()
    write_units(tmp_path, Installation(agent=str(agent)))
    text = (tmp_path / UNIT_FOLDER / PULL).read_text()
    line = next(row for row in text.splitlines() if row.startswith("ExecStartPre="))
    command = line.partition("'")[2].rstrip("'")
    assert "/sys/fs/selinux/enforce" in command
    (tmp_path / "bin").mkdir()
    chcon = tmp_path / "bin/chcon"
    chcon.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    chcon.chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:/bin"}
    enforce = tmp_path / "enforce"
    command = command.replace("/sys/fs/selinux/enforce", str(enforce))
    subprocess.run(["/bin/sh", "-c", command], env=env, check=True)
    assert not (tmp_path / "called").exists()
    enforce.touch()
    subprocess.run(["/bin/sh", "-c", command], env=env, check=True)
    assert (tmp_path / "called").read_text() == f"--reference=/usr/bin/ostree {agent}\n"
    chcon.write_text("#!/bin/sh\nexit 1\n")
    assert subprocess.run(["/bin/sh", "-c", command], env=env, check=False).returncode != 0


def test_the_live_mount_is_for_live_systems_only(tmp_path: Path) -> None:
    write_units(tmp_path, Installation(live_size="5G"))
    text = (tmp_path / UNIT_FOLDER / LIVE_MOUNT).read_text()
    assert "ConditionPathExists=/run/ostree-live\n" in text
    assert f"Where={LIVE}\n" in text
    assert "size=5G" in text
    pull = parse_unit(PULL, (tmp_path / UNIT_FOLDER / PULL).read_text())
    assert LIVE_MOUNT in pull.pulls & pull.after
