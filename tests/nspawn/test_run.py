"""`strata run` as a person runs it: JSON for programs, --keep, Ctrl-C, an image from elsewhere."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata, leftovers

pytestmark = pytest.mark.nspawn


def test_a_run_tells_programs_before_and_after(built_store: Path, strata: Strata) -> None:
    common = ("-C", str(SAMPLE), "--store", str(built_store))
    done = json.loads(strata(*common, "run", "node/4.19", "--json").stdout)
    assert done["boot_id"]["before"] == done["boot_id"]["after"]
    assert done["commands"]["before"]["kubectl"] == ""
    assert done["commands"]["after"]["kubectl"].startswith("Client Version")
    assert done["units"]["after"] == {"containerd.service": "active"}
    assert done["failed"] == []
    assert leftovers(built_store / "machines") == []
    assert list((built_store / "machines").iterdir()) == []


def test_ctrl_c_in_a_booted_machine_leaves_nothing(built_store: Path) -> None:
    command = [str(Path(sys.executable).with_name("strata")), "-C", str(SAMPLE)]
    command += ["--store", str(built_store), "run", "node/4.20"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "overlay the node image …" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, rest
    process.stderr.close()
    assert "strata: interrupted; nothing is left running" in rest
    assert leftovers(built_store / "machines") == []
    assert list((built_store / "machines").iterdir()) == []


def test_a_kept_machine_can_be_entered_and_ended(
    built_store: Path, tmp_path: Path, strata: Strata
) -> None:
    # A node image from elsewhere, on a base from elsewhere, with a store of one's own.
    store = tmp_path / "store"
    common = ("-C", str(SAMPLE), "--store", str(store))
    node = f"oci:{built_store}:node/4.19@sample-12"
    base = f"oci:{built_store}:coreos/sample-12"
    try:
        done = strata(*common, "run", node, "--base", base, "--keep")
        line = next(text for text in done.stdout.splitlines() if "look around:" in text)
        enter = line.split("look around:")[1].split()[:-2]
        inside = subprocess.run(
            [*enter, "/usr/bin/systemctl", "is-active", "containerd.service"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert inside.stdout == "active\n"
        assert leftovers(store / "machines")
    finally:
        strata("clean", "--store", str(store))
    assert leftovers(store / "machines") == []
    assert not store.exists()


def test_what_cannot_be_run_says_so(built_store: Path, strata: Strata) -> None:
    common = ("-C", str(SAMPLE), "--store", str(built_store))
    done = strata(*common, "run", "bootc/sample-12", check=False)
    assert done.returncode == 2
    assert "bootc/sample-12 cannot be run" in done.stderr
    done = strata(*common, "run", f"oci:{built_store}:nope", check=False)
    assert done.returncode == 11
    assert "has no tag nope" in done.stderr


def test_an_overlay_that_fails_is_undone_and_says_why(
    built_store: Path, tmp_path: Path, strata: Strata
) -> None:
    definitions = Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))
    # A node image whose systemd-sysusers does not work.
    broken = definitions / "overlay.d/20node/usr/bin/systemd-sysusers"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\necho 'sysusers: broken' >&2\nexit 3\n")
    broken.chmod(0o755)
    script = definitions / "node/common.yaml"
    script.write_text(script.read_text().replace("    systemd-sysusers\n", "    true\n"))
    store = tmp_path / "store"
    base = f"oci:{built_store}:coreos/sample-12"
    store.mkdir()
    (store / "sample").symlink_to((built_store / "sample").resolve())
    common = ("-C", str(definitions), "--store", str(store))
    strata(*common, "build", "node/4.19", "--base", base)
    node = f"oci:{store}:node/4.19@sample-12"
    done = strata(*common, "run", node, "--base", base, check=False)
    assert done.returncode == 14
    assert "strata: the overlay failed in the machine" in done.stderr
    assert "systemd-sysusers failed on the new /usr with status 3" in done.stderr
    assert "/usr and /etc are as they were" in done.stderr
    assert leftovers(store / "machines") == []
