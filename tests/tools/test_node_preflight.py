"""Preflight on a machine of folders: what it says, what it refuses, and that it changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fake_disk import Disk, make_disk
from importlab import make_lab
from layertar import Tar
from strata.core.errors import ArchitectureError, DefinitionError, NoSpaceError
from strata.core.events import Noted, Reporter, silent
from strata.core.process import Completed, run
from strata.node import cli, finish, host, preflight
from strata.node.host import State
from strata.node.overlay import overlay
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A machine on disk that has pulled nothing, and an image for it."""
    lab = make_lab(tmp_path / "lab")
    lab.derive(Tar().add("usr/bin/new", os.urandom(300_000)).bytes())
    repo = Repo.init(tmp_path / "machine/repo")
    return make_disk(lab, tmp_path / "machine", repo, monkeypatch)


def test_a_pull_says_first_what_is_here_and_what_comes(disk: Disk) -> None:
    """Requirements R6.24 and R6.28."""
    said: list[object] = []
    state = disk.pull(Reporter(said.append))
    notes = [event.message for event in said if isinstance(event, Noted)]
    assert notes[:2] == [
        "currently on CoreOS version 12.9.1",
        f"the target node image is {disk.image}, {state.manifest_digest}",
    ]
    assert notes[2].startswith(f"this is a system on disk, kernel {os.uname().release}; ")
    assert "layers to fetch" in notes[2]


def test_a_dry_run_names_the_bytes_and_changes_nothing(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    before = disk.files()
    assert cli.main(["pull", "--image", disk.image, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert disk.files() == before
    assert [item["phase"] for item in planned["phases"]] == ["preflight", "pull", "checkout"]
    assert planned["needed_bytes"] == 2 * planned["fetched_bytes"] > 600_000
    state = disk.pull()
    assert (state.fetched_bytes, state.image_bytes) == (
        planned["fetched_bytes"],
        planned["image_bytes"],
    )
    assert cli.main(["pull", "--image", disk.image, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"0 of {planned['layers']} layers to fetch, 0.0 of " in out
    assert "would go through preflight: look whether this machine can take it; pull: " in out


def test_the_other_commands_have_dry_runs(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["finish", "--dry-run"]) == 1
    assert "the node image is not overlaid" in capsys.readouterr().err
    assert cli.main(["overlay", "--dry-run"]) == 1
    assert "there is no pulled node image" in capsys.readouterr().err
    State(phase=host.OVERLAID).save()
    assert cli.main(["finish", "--dry-run"]) == 0
    assert "would go through finish: switch to multi-user.target" in capsys.readouterr().out
    assert State.load().phase == host.OVERLAID


@pytest.mark.parametrize(
    ("free", "memory", "told"),
    [
        ((100_000, 1000), 1 << 30, r"needs about 1 MB of disk below .*, and 0 MB are there"),
        ((1 << 30, 2), 1 << 30, r"the checkout needs \d+ inodes, and 2 are free in "),
        ((1 << 30, 1000), 50 << 20, r"needs about 168 MB of memory to work in, and 52 MB are"),
    ],
)
def test_what_does_not_fit_is_refused_with_numbers(
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    free: tuple[int, int],
    memory: int,
    told: str,
) -> None:
    """Requirement R6.18."""
    monkeypatch.setattr(preflight, "free_in", lambda path: free)
    monkeypatch.setattr(host, "available_memory_bytes", lambda: memory)
    with pytest.raises(NoSpaceError, match=told):
        disk.pull()
    assert State.load().phase == host.NOTHING
    assert not host.CHECKOUT.exists()
    if "inodes" not in told:
        assert disk.repo.refs() == {}, "something was fetched before the refusal"


def test_another_architecture_is_refused(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "architecture", lambda: "aarch64")
    with pytest.raises(ArchitectureError):
        disk.pull()


def test_foreign_images_in_the_repository_are_left_alone(disk: Disk) -> None:
    """Requirement R6.7: the image that was pulled is found by its digest, not by being alone."""
    there = disk.lab.pull(disk.repo, "base").merge_commit
    foreign = "ostree/container/image/docker_3A__2F__2F_other_2F_os_3A_1"
    with writing(disk.repo, sync=False) as writer:
        writer.set_ref(foreign, there)
    state = disk.pull()
    assert state.merge_commit != there
    assert disk.repo.resolve(foreign) == there
    assert (host.CHECKOUT / "usr/bin/new").exists()


def test_a_machine_that_booted_the_node_image_has_nothing_to_do(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted = disk.lab.pull(disk.repo).merge_commit
    monkeypatch.setattr(host, "booted_commit", lambda: Checksum(booted))
    state = disk.pull()
    assert (state.phase, state.fetched_bytes) == (host.BOOTED_NODE, 0)
    assert not host.CHECKOUT.exists()
    assert overlay(silent()).phase == host.BOOTED_NODE
    ran: list[list[str]] = []

    def record(argv: list[str]) -> Completed:
        ran.append(argv)
        return run(["true"])

    monkeypatch.setattr(finish, "run", record)
    assert finish.finish(silent()).phase == host.BOOTED_NODE
    assert ran == [["systemctl", "--no-block", "isolate", "multi-user.target"]]


def test_units_that_wait_for_each_other_are_named(disk: Disk) -> None:
    """Requirement R6.22."""
    units = disk.root / "etc/systemd/system"
    units.mkdir(parents=True)
    wants = "[Unit]\nWants=a.service b.service\n"
    (units / "node-image-overlay.target").write_text(wants)
    for name, after in (("a", "b"), ("b", "a")):
        text = f"[Unit]\nAfter={after}.service\n[Service]\nExecStart=true\n"
        (units / f"{name}.service").write_text(text)
    with pytest.raises(DefinitionError, match="the units wait for each other: "):
        disk.pull()
    assert disk.repo.refs() == {}


def test_success_is_recorded_before_the_isolate(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requirement R6.10: the isolate may end the unit that asks for it."""
    State(phase=host.OVERLAID).save()
    recorded: list[str] = []

    def isolate(argv: list[str]) -> Completed:
        recorded.append(State.load().phase)
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "run", isolate)
    with pytest.raises(KeyboardInterrupt):
        finish.finish(silent())
    assert recorded == [host.FINISHED]
    assert State.load().phase == host.FINISHED
