"""Machines without booting one: what counts as running, and what an overlay is blamed for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import SAMPLE
from strata.cli.main import main
from strata.core.errors import MachineError
from strata.machine.facts import Facts, complaints
from strata.machine.nspawn import RECORD, Known, running, stop_detached

pytestmark = pytest.mark.unit

BEFORE = Facts("b", "Sample", ("bash-5.2-1.x86_64",), {}, {}, ("old.service",))
AFTER = replace(BEFORE, packages=("bash-5.2-1.x86_64", "kubernetes-client-1:1.20-1.x86_64"))


def test_an_overlay_that_did_what_it_should_has_no_complaints() -> None:
    assert complaints(BEFORE, AFTER, "kubernetes-client") == ()


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (replace(AFTER, boot_id="c"), "the machine was rebooted"),
        (
            replace(AFTER, failed=("b.service", "old.service", "a.service")),
            "a.service, b.service failed",
        ),
        (BEFORE, "the package kubernetes-client is still absent"),
        (
            replace(AFTER, packages=("kubernetes-client-extra-1-1.noarch",)),
            "the package kubernetes-client is still absent",
        ),
    ],
)
def test_what_an_overlay_is_blamed_for(after: Facts, said: str) -> None:
    assert complaints(BEFORE, after, "kubernetes-client") == (said,)


def test_a_marker_that_nobody_names_is_not_missed() -> None:
    assert complaints(BEFORE, BEFORE, None) == ()


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_a_machine_that_runs_is_known_by_its_processes(tmp_path: Path) -> None:
    pid = os.getpid()
    known = Known(pid, start_time(pid), pid, start_time(pid))
    known.save(tmp_path)
    assert running(tmp_path) == known
    assert known.power_off_command()[1:] == [
        *("--target", str(pid), "--all", "--"),
        *("/usr/bin/systemctl", "poweroff"),
    ]


def test_a_machine_whose_pid_1_outlived_its_nspawn_still_runs(tmp_path: Path) -> None:
    pid = os.getpid()
    Known(2**22 - 1, "1", pid, start_time(pid)).save(tmp_path)
    assert running(tmp_path) is not None


def test_the_record_of_a_machine_that_went_down_is_removed(tmp_path: Path) -> None:
    # The numbers are another process's by now.
    Known(os.getpid(), "1", os.getpid(), "1").save(tmp_path)
    assert running(tmp_path) is None
    assert not (tmp_path / RECORD).exists()
    Known(os.getpid(), "1", os.getpid(), "1").save(tmp_path)
    assert not stop_detached(tmp_path)
    assert not (tmp_path / RECORD).exists()


def test_a_record_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"nspawn": 1}')
    with pytest.raises(MachineError, match=r"machine\.json is no record of a machine"):
        running(tmp_path)


def test_a_base_takes_no_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["-C", str(SAMPLE), "--store", str(tmp_path)]
    assert main([*common, "run", "coreos/sample-12", "--base", "oci:/x:y"]) == 2
    assert "coreos/sample-12 is a base itself" in capsys.readouterr().err
