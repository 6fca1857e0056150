"""The agent: the /etc merge by cases, its units, its state, its zipapp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from strata.core.errors import DefinitionError, StrataError, UsageError
from strata.node import etcapply, host
from strata.node.cli import main
from strata.node.config import NodeConfig
from strata.node.etcmerge import FILE, FOLDER, SPECIAL, Entry, plan
from strata.node.pack import agent_modules, build_zipapp
from strata.node.units import (
    HOOK,
    LIVE_MOUNT,
    OVERLAY,
    PULL,
    UNIT_FOLDER,
    Installation,
    unit_files,
    write_units,
)

pytestmark = pytest.mark.unit

A, B, C = (Entry(FILE, 0o644, content=text) for text in "abc")
DIR = Entry(FOLDER, 0o755)
COMMANDS = ("pull", "overlay", "finish", "undo", "status", "verify", "units")


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "action", "kept"),
    [
        (A, A, B, "install", None),
        (A, B, A, None, None),
        (A, B, C, None, "it was changed here"),
        (A, B, B, None, None),
        (None, None, A, "install", None),
        (None, A, None, None, None),
        (None, A, B, None, "it was changed here"),
        (A, A, None, "remove", None),
        (A, None, A, None, None),
        (A, None, B, None, "it was deleted here"),
        (A, B, None, None, "it was changed here"),
        (A, Entry(SPECIAL), B, None, "it is a mount point or a special file here"),
    ],
)
def test_one_path(
    base: Entry | None,
    mine: Entry | None,
    theirs: Entry | None,
    action: str | None,
    kept: str | None,
) -> None:
    trees = [{"x": entry} if entry else {} for entry in (base, mine, theirs)]
    done = plan(*trees)
    assert [item.kind for item in done.actions] == ([action] if action else [])
    assert [item.reason for item in done.kept] == ([kept] if kept else [])


def test_a_folder_with_files_of_this_machine_stays() -> None:
    base = {"d": DIR, "d/default": A}
    mine = {**base, "d/local": B}
    done = plan(base, mine, {})
    assert [(item.path, item.kind) for item in done.actions] == [("d/default", "remove")]
    assert [(item.path, item.reason) for item in done.kept] == [
        ("d", "files of this machine are in it")
    ]


def test_new_files_of_a_folder_deleted_here_stay_away() -> None:
    base = {"d": DIR}
    done = plan(base, {}, {"d": DIR, "d/new": A})
    assert done.actions == ()
    assert [item.path for item in done.kept] == ["d/new"]


def test_removing_goes_from_the_inside_out_and_first() -> None:
    base = {"d": DIR, "d/e": DIR, "d/e/f": A}
    done = plan(base, base, {"d": B})
    assert [(item.kind, item.path) for item in done.actions] == [
        ("remove", "d/e/f"),
        ("remove", "d/e"),
        ("install", "d"),
    ]


def make(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_merge_on_disk_and_its_undoing(tmp_path: Path) -> None:
    before = {"kept": "mine", "same": "1", "gone": "1", "sub/deep": "1", "local": "l"}
    etc = make(tmp_path / "etc", before)
    base = make(tmp_path / "base", {"kept": "0", "same": "1", "gone": "1", "sub/deep": "1"})
    theirs = make(tmp_path / "theirs", {"kept": "2", "same": "2", "sub": "file now", "n/w": "new"})
    decided = plan(*(etcapply.read_tree(top) for top in (base, etc, theirs)))
    backup = tmp_path / "backup"
    etcapply.carry_out(decided, theirs, etc, backup)
    assert contents(tmp_path / "etc") == {
        "kept": "mine",
        "local": "l",
        "n/w": "new",
        "same": "2",
        "sub": "file now",
    }
    assert etcapply.undo(etc, backup)
    assert contents(tmp_path / "etc") == before
    assert not etcapply.undo(etc, backup)


def test_a_merge_that_fails_half_way_is_undone(tmp_path: Path) -> None:
    etc = make(tmp_path / "etc", {"a": "1", "b": "1"})
    base = make(tmp_path / "base", {"a": "1", "b": "1"})
    theirs = make(tmp_path / "theirs", {"a": "2", "b": "2"})
    decided = plan(*(etcapply.read_tree(top) for top in (base, etc, theirs)))
    (tmp_path / "theirs/b").unlink()
    with pytest.raises(StrataError, match="/etc/b could not be changed"):
        etcapply.carry_out(decided, theirs, etc, tmp_path / "backup")
    etcapply.undo(etc, tmp_path / "backup")
    assert contents(tmp_path / "etc") == {"a": "1", "b": "1"}


# --- units, state, zipapp ------------------------------------------------------------------------


def test_units_have_upstreams_names_and_verify(tmp_path: Path) -> None:
    written = write_units(tmp_path, Installation())
    names = [path.name for path in written]
    assert names == [
        "node-image-pull-pre.target",
        "run-strata\\x2dnode-live.mount",
        "node-image-pull.service",
        "node-image-overlay.service",
        "node-image-finish.service",
        "node-image-overlay.target",
        "node-image-overlay-generator",
    ]
    generator = written[-1]
    assert generator.stat().st_mode & 0o777 == 0o755
    assert "--dbpath /usr/lib/sysimage/rpm" in generator.read_text()
    assert "\nopenshift-clients\n" in generator.read_text()
    assert "MountFlags" not in (tmp_path / "etc/systemd/system" / names[3]).read_text().replace(
        "# No MountFlags", ""
    )


def test_units_of_a_ring_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R6.22: systemd would drop one of them, and say so in its journal alone."""
    folder = tmp_path / UNIT_FOLDER
    wants = folder / f"{HOOK}.wants"
    wants.mkdir(parents=True)
    (folder / "dns.service").write_text(f"[Unit]\nAfter={OVERLAY}\nBefore={HOOK}\n")
    (wants / "dns.service").symlink_to("../dns.service")
    assert main(["units", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert "the units wait for each other: " in said.err
    assert "dns.service after node-image-overlay.service" in said.err
    assert said.out == ""
    assert not (folder / OVERLAY).exists()
    (folder / "dns.service").write_text(f"[Unit]\nBefore={HOOK}\n")
    assert main(["units", str(tmp_path), "--assisted", "--arch", "ppc64le"]) == 0
    written = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert written == [HOOK, LIVE_MOUNT, PULL, OVERLAY, "10-architecture.conf"]
    drop_in = (folder / f"{LIVE_MOUNT}.d/10-architecture.conf").read_text()
    assert "size=6G" in drop_in


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Installation(agent="strata-node.pyz"), "does not start the agent from a unit"),
        (Installation(agent="/bin/x\nExecStart=/bin/y"), "does not start the agent from a unit"),
        (Installation(live_size="5 GB"), "is not the size of a tmpfs"),
        (Installation(live_size="0"), "is not the size of a tmpfs"),
    ],
)
def test_what_would_break_a_unit_is_refused(how: Installation, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        unit_files(how)


def test_a_marker_that_is_no_package_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the name of a package"):
        write_units(tmp_path, Installation(marker="a'; rm -rf /"))


def test_the_state_survives_and_damage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "STATE", tmp_path / "state.json")
    assert host.State.load().phase == host.NOTHING
    host.State(image="x", etc_kept=("a",)).at(host.PULLED, pull_seconds=1.5).save()
    assert host.State.load() == host.State("pulled", "x", pull_seconds=1.5, etc_kept=("a",))
    (tmp_path / "state.json").write_text('{"phase": "pulled"}')
    with pytest.raises(DefinitionError, match=r"state\.json is damaged"):
        host.State.load()


def test_a_machine_that_was_not_booted_from_ostree_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "BOOTED", tmp_path / "none")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert main(["pull", "--image", "oci:/x:y"]) == 1
    told = capsys.readouterr().err
    assert "strata-node: this machine was not booted from an OSTree deployment" in told


def test_without_an_image_the_configuration_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.json"
    monkeypatch.setattr(NodeConfig.load, "__defaults__", (path,))
    assert main(["pull"]) == 3
    assert "no image is named" in capsys.readouterr().err
    path.write_text("[]")
    assert main(["pull"]) == 3
    assert "node.json is not an object" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: strata-node {command}")


def test_the_zipapp_is_reproducible_and_runs_isolated(tmp_path: Path) -> None:
    one, two = build_zipapp(tmp_path / "1.pyz"), build_zipapp(tmp_path / "2.pyz")
    assert one.read_bytes() == two.read_bytes()
    argv = [sys.executable, "-I", "-S", str(one), "units", str(tmp_path / "u"), "--marker", "x"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "node-image-pull.service" in done.stdout
    rooms = {path.parent.name for path in agent_modules()}
    assert rooms == {"strata", "core", "oci", "ostree", "node", "container", "units"}
    status = subprocess.run(
        [sys.executable, "-I", "-S", str(one), "status", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(status.stdout)["phase"] == "nothing"
