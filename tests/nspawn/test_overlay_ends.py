"""An overlay that fails, is stopped or is killed on a running system: what is left, what goes on.

One machine for all of it. systemd-tmpfiles is made to hang on a pipe among its configuration, when
/etc is merged, /usr is mounted over and the users are made; each test ends the overlay there in a
way of its own. The last one lets it through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strata.compose.workspace import Workspace
from strata.core.events import silent
from strata.machine.nspawn import NspawnMachine
from strata.machine.session import GO, agent_status, booted, stored_images
from strata.node.units import AGENT
from strata.oci.reference import ImageReference

pytestmark = [pytest.mark.nspawn, pytest.mark.usefixtures("nothing_left_running")]

UNIT = "node-image-overlay.service"
PIPE = "/etc/tmpfiles.d/00-hang.conf"

# Inside the machine: what an overlay may change. Everything of /etc with type, mode, owner and
# content, which /usr it is, and every mount outside of /run (where the store is shown).
_LOOK = """
import hashlib, json, os, stat
etc = {}
for top, dirs, files in os.walk("/etc"):
    for name in [*dirs, *files]:
        path = top + "/" + name
        status = os.lstat(path)
        row = [status.st_mode, status.st_uid, status.st_gid, ""]
        if stat.S_ISLNK(status.st_mode):
            row[3] = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as stream:
                row[3] = hashlib.sha256(stream.read()).hexdigest()
        etc[path] = row
usr = os.stat("/usr")
points = [line.split()[4] for line in open("/proc/1/mountinfo")]
mounts = sorted(point for point in points if not point.startswith("/run/"))
with open("/etc/passwd") as stream:
    users = [line.split(":")[0] for line in stream]
print(json.dumps({"etc": etc, "usr": [usr.st_dev, usr.st_ino], "mounts": mounts, "users": users}))
"""


@dataclass(frozen=True)
class Pulled:
    """A machine that pulls its node image, and how it looked before any overlay."""

    machine: NspawnMachine
    before: dict[str, Any]

    def agent(self, command: str) -> str:
        """Run the agent; returns what it says."""
        return self.machine.run(AGENT, command).stderr

    def look(self) -> dict[str, Any]:
        """How the machine looks now."""
        return look(self.machine)

    def start_overlay(self) -> None:
        """Start the overlay's unit, and return when it hangs in systemd-tmpfiles."""
        self.machine.run("systemctl", "reset-failed", UNIT, check=False)
        self.machine.run("systemctl", "--no-block", "start", UNIT)
        self.machine.wait_until(
            "pgrep", "-x", "systemd-tmpfile", timeout_s=60, what="systemd-tmpfiles"
        )
        hanging = self.look()
        assert hanging["usr"] != self.before["usr"]
        assert "openvswitch" in hanging["users"]
        assert agent_status(self.machine)["phase"] == "pulled"

    def wait_for_the_end(self) -> str:
        """Wait until the overlay's unit failed; returns its journal."""
        self.machine.wait_until(
            "systemctl", "is-failed", UNIT, timeout_s=30, what="the end of the overlay"
        )
        return self.machine.run("journalctl", "-o", "cat", "-u", UNIT).stdout


def look(machine: NspawnMachine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run("python3", "-I", "-c", _LOOK).stdout)
    return found


@pytest.fixture(scope="module")
def pulled(container_store: Path) -> Iterator[Pulled]:
    workspace = Workspace.create(container_store)
    node = ImageReference("oci", str(container_store), "node/4.19@sample-12")
    images = stored_images(workspace, node, None, arch="x86_64", reporter=silent())
    with booted(
        workspace, images, "test-ends", marker="kubernetes-client", reporter=silent()
    ) as machine:
        machine.run("sh", "-ec", f"mkdir -p /etc/tmpfiles.d; mkfifo {PIPE}")
        machine.wait_until("systemctl", "is-active", "ssh.service", timeout_s=60, what="ssh's keys")
        before = look(machine)
        machine.run("touch", GO)  # the boot goes on, with the pull and the first overlay
        yield Pulled(machine, before)


def test_an_overlay_whose_tool_fails_is_undone(pulled: Pulled) -> None:
    pulled.start_overlay()
    pulled.machine.run("pkill", "-KILL", "-x", "systemd-tmpfile")
    said = pulled.wait_for_the_end()
    assert "systemd-tmpfiles failed on the new /usr with status -9" in said
    assert "/usr and /etc are as they were; run it again" in said
    assert pulled.look() == pulled.before


def test_an_overlay_that_is_stopped_is_undone(pulled: Pulled) -> None:
    pulled.start_overlay()
    pulled.machine.run("systemctl", "kill", "--kill-who=main", "--signal=TERM", UNIT)
    said = pulled.wait_for_the_end()
    assert "interrupted; nothing is left half-done, run it again" in said
    assert pulled.look() == pulled.before


def kill(pulled: Pulled) -> dict[str, Any]:
    """Kill the agent in the middle of an overlay; returns how that leaves the machine."""
    pulled.start_overlay()
    pulled.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT)
    pulled.wait_for_the_end()
    left = pulled.look()
    assert left["usr"] != pulled.before["usr"]
    assert left["etc"] != pulled.before["etc"]
    return left


def test_a_pull_takes_back_an_overlay_that_was_killed(pulled: Pulled) -> None:
    kill(pulled)
    # The unit, which has mounts of its own: what it takes back is the machine's all the same.
    pulled.machine.run("systemctl", "restart", "node-image-pull.service", timeout_s=120)
    said = pulled.machine.run("journalctl", "-o", "cat", "-u", "node-image-pull.service").stdout
    assert "an earlier overlay was ended half-way; /usr and /etc are as before it" in said
    assert pulled.look() == pulled.before
    assert agent_status(pulled.machine)["phase"] == "pulled"


def test_an_overlay_takes_back_one_that_was_killed_and_goes_through(pulled: Pulled) -> None:
    left = kill(pulled)
    pulled.machine.run("rm", PIPE)
    assert "an earlier overlay was ended half-way" in pulled.agent("overlay")
    status, after = agent_status(pulled.machine), pulled.look()
    assert status["phase"] == "overlaid"
    assert after["usr"] != pulled.before["usr"]
    # One overlay's mounts, though it is the fourth: nothing lies on top of what was left.
    assert after["mounts"] == left["mounts"]
    # The merge knew the booted defaults from the node image's: the node layer's are there.
    assert isinstance(status["etc_changed"], int)
    assert status["etc_changed"] > 10
    read = pulled.machine.run
    assert read("cat", "/etc/motd").stdout == "Sample CoreOS with the node layer.\n"
    assert "version = 2" in read("cat", "/etc/containerd/config.toml").stdout
    assert after["users"].count("openvswitch") == 1
    changed = {
        path.removesuffix("-")
        for path in pulled.before["etc"]
        if pulled.before["etc"][path] != after["etc"].get(path)
    }
    accounts = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
    assert changed - {PIPE} <= {
        *("/etc/motd", "/etc/issue", "/etc/ld.so.cache"),
        *("/etc/systemd/system", "/etc/systemd/system-preset"),
        *(f"/etc/{name}" for name in accounts),
    }
    verified = json.loads(read(AGENT, "verify", "--json").stdout)
    assert verified["differences"] == []
    assert verified["files"] > 3000
    pulled.agent("finish")
    pulled.machine.wait_until(
        "systemctl", "is-active", "containerd.service", timeout_s=60, what="containerd"
    )


def test_an_overlay_is_undone_when_asked(pulled: Pulled) -> None:
    said = pulled.agent("undo")
    assert "/usr is the booted one again, and /etc is as it was before the overlay" in said
    now = pulled.look()
    assert {key: now[key] for key in ("usr", "mounts", "users")} == {
        key: pulled.before[key] for key in ("usr", "mounts", "users")
    }
    assert agent_status(pulled.machine)["phase"] == "pulled"
