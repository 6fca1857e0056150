"""The agent's overlay on real mounts: ended at every step in every way, and run again.

The steps are those of `fake_machine`; what systemd makes of it is shown in `tests/nspawn`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, leftovers

pytestmark = pytest.mark.tools


def on_a_fake_machine(mode: str, folder: Path, *more: str) -> dict[str, Any]:
    driver = str(ROOT / "tests/fake_machine.py")
    argv = ["unshare", "--mount", sys.executable, driver, mode, str(folder / "machine"), *more]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert leftovers(folder) == []
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_an_overlay_that_ends_at_any_step_is_taken_back_whole(tmp_path: Path) -> None:
    done = on_a_fake_machine("end", tmp_path)
    assert done["steps"] > 50
    assert done["failed"] > 1.8 * done["steps"]  # a full disk, Ctrl-C
    assert done["undone"] > 15
    assert done["wrong"] == []
    # And what was compared is what an overlay does.
    machine = tmp_path / "machine"
    assert done["before"]["mounts"] == []
    assert done["after"]["mounts"] == sorted(
        [
            f"{machine}/sysroot/ostree/node-image/usr/lib/modules",
            f"{machine}/usr",
            f"{machine}/usr/lib/modules",
        ]
    )
    assert (done["before"]["usr"], done["after"]["usr"]) == ("booted", "node")
    changed = {
        path
        for path in done["before"]["etc"] | done["after"]["etc"]
        if done["before"]["etc"].get(path) != done["after"]["etc"].get(path)
    }
    assert changed == {
        *("same", "gone", "old", "old/file", "new", "new/deep", "new/deep/file"),
        *("passwd", "passwd-", "shadow", "shadow-", ".pwd.lock"),
    }


def test_nothing_is_imported_once_usr_may_be_another_pythons(tmp_path: Path) -> None:
    done = on_a_fake_machine("imports", tmp_path)
    assert done["statuses"] == [0, 1]
    assert done["after"]["usr"] == "booted"
    assert done["late"] == []


def test_a_healthy_machine_stays_overlaid(tmp_path: Path) -> None:
    # The probe sees the new /usr.
    who = f"{tmp_path}/machine/usr/who"
    done = on_a_fake_machine("probe", tmp_path, "/bin/grep", "-q", "node", who)
    assert done["told"] == {"status": 0}
    assert (done["after"]["usr"], done["after"]["phase"]) == ("node", "overlaid")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["/bin/sh", "-c", "echo no kubelet >&2; exit 3"], "/bin/sh failed with status 3"),
        (["/bin/sleep", "30"], "/bin/sleep did not finish within 0.5 s"),
        (["/no/such/probe"], "/no/such/probe is not installed"),
    ],
)
def test_an_overlay_that_leaves_no_healthy_machine_is_undone(
    tmp_path: Path, command: list[str], told: str
) -> None:
    done = on_a_fake_machine("probe", tmp_path, *command)
    assert done["told"]["message"] == f"the machine is not healthy with the node image: {told}"
    assert "/usr and /etc are as they were" in done["told"]["hint"]
    assert done["as before"]
    if "sh" in command[0]:
        assert "no kubelet" in done["told"]["context"]["output"]
