"""Errors, processes, events, files and clock."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from pathlib import Path

import pytest

from strata.core import clock, events, files, process
from strata.core.errors import (
    NoSpaceError,
    NotRootError,
    StrataError,
    ToolFailedError,
    ToolMissingError,
    UsageError,
)
from strata.core.tools import TOOLS, find_tool, install_hint

pytestmark = pytest.mark.unit


# --- processes -----------------------------------------------------------------------------------


def test_a_missing_tool_names_the_install_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(ToolMissingError) as caught:
        find_tool("skopeo")
    expected = "skopeo is not installed, which carries images to and from registries"
    assert caught.value.message == expected
    assert caught.value.hint == "apt install skopeo   (or: dnf install skopeo)"


def test_every_tool_says_what_it_is_for_and_how_to_get_it() -> None:
    for tool in TOOLS.values():
        assert tool.purpose
        assert "apt install" in install_hint(tool)


def test_a_failed_process_shows_its_status_its_output_and_how_to_repeat_it() -> None:
    with pytest.raises(ToolFailedError) as caught:
        process.run(["sh", "-c", "echo told >&2; exit 3"])
    assert caught.value.message == "sh failed with status 3"
    assert caught.value.hint == "to repeat it: sh -c 'echo told >&2; exit 3'"
    assert caught.value.context["output"] == "told"


def test_a_process_ended_by_a_signal_says_which() -> None:
    with pytest.raises(ToolFailedError, match="was ended by SIGKILL"):
        process.run(["sh", "-c", "kill -KILL $$"])


def test_a_full_disk_is_named_whatever_tool_met_it() -> None:
    with pytest.raises(NoSpaceError, match="no space left on the device while running sh"):
        process.run(["sh", "-c", "echo 'cp: No space left on device' >&2; exit 1"])


def test_the_environment_of_a_child_is_minimal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    done = process.run(["env"], env={"EXTRA": "1"})
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert "SECRET_TOKEN" not in names
    assert {"PATH", "LC_ALL", "EXTRA"} <= names


def test_a_timeout_ends_the_whole_process_group() -> None:
    with pytest.raises(ToolFailedError, match=r"did not finish within 0\.3 s"):
        process.run(["sh", "-c", "sleep 4242 & wait"], timeout_s=0.3)
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            commands.append(path.read_bytes())
    assert b"sleep\x004242\x00" not in commands


def test_stdin_and_lines_of_stderr_reach_their_places() -> None:
    lines: list[str] = []
    done = process.run(
        ["sh", "-c", "cat; echo a >&2; echo b >&2"], stdin="in", on_line=lines.append
    )
    assert (done.stdout, lines) == ("in", ["a", "b"])


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotRootError) as caught:
        process.require_root("building trees")
    assert caught.value.message == "building trees needs root"
    assert caught.value.hint == "run the same command with sudo"


def test_an_os_error_becomes_one_of_ours() -> None:
    full = process.os_error(OSError(28, "No space left on device", "/x"), "writing a blob")
    assert isinstance(full, NoSpaceError)
    assert full.message == "no space left on the device while writing a blob (/x)"
    other = process.os_error(OSError(13, "Permission denied", "/x"), "writing a blob")
    assert other.message == "Permission denied while writing a blob (/x)"


# --- events --------------------------------------------------------------------------------------


def test_plain_lines_nest_and_end_with_what_came_out() -> None:
    stream = io.StringIO()
    reporter = events.Reporter(events.plain(stream))
    with reporter.step("outer"), reporter.step("inner") as step:
        step.detail("3 files")
    reporter.warn("mind this")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["outer …", "  inner …"]
    assert lines[2].startswith("  inner done in 0.0 s: 3 files")
    assert lines[3].startswith("outer done in 0.0 s")
    assert lines[4] == "warning: mind this"


def test_json_lines_are_one_object_each() -> None:
    stream = io.StringIO()
    reporter = events.Reporter(events.json_lines(stream))
    with pytest.raises(ValueError, match="x"), reporter.step("work") as step:
        step.progress(1, 2)
        raise ValueError("x")
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["event"] for row in rows] == ["StepBegin", "Progress", "StepEnd"]
    assert rows[2]["ok"] is False
    assert rows[1] == {"event": "Progress", "id": 1, "done": 1, "total": 2, "unit": "bytes"}


def test_steps_of_threads_do_not_nest_in_each_other() -> None:
    seen: list[events.Event] = []
    reporter = events.Reporter(seen.append)

    def work() -> None:
        with reporter.step("inside"):
            pass

    with reporter.step("outside"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    begins = {event.title: event for event in seen if isinstance(event, events.StepBegin)}
    assert begins["inside"].parent == 0
    assert {timing.title for timing in reporter.timings} == {"inside", "outside"}


def test_a_finished_step_keeps_its_time_and_the_bytes_it_counted() -> None:
    reporter = events.silent()
    with reporter.step("bytes") as step:
        step.progress(70, 100)
        step.progress(30, 100)  # threads may tell late
    with reporter.step("packages") as step:
        step.progress(7, 9, "packages")
    assert [(timing.title, timing.size_bytes) for timing in reporter.timings] == [
        ("bytes", 70),
        ("packages", 0),
    ]
    assert all(timing.seconds >= 0 for timing in reporter.timings)


# --- files ---------------------------------------------------------------------------------------


def test_an_atomic_write_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    files.atomic_write(path, b"old")

    def broken(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(OSError, match="No space"):
        files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["state"]


def test_a_held_lock_is_named(tmp_path: Path) -> None:
    with files.locked(tmp_path / "lock", "the store"):
        with (
            pytest.raises(StrataError, match="another process is using the store"),
            files.locked(tmp_path / "lock", "the store", wait=False),
        ):
            pass


def test_a_scratch_folder_is_gone_however_the_block_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), files.scratch_dir(tmp_path, "try") as scratch:
        (scratch / "file").write_text("x")
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_removing_a_tree_does_not_follow_links_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    files.remove_tree(inside)
    assert (outside / "file").exists()
    files.remove_tree(inside)  # what is not there is removed already


# --- clock ----------------------------------------------------------------------------------------


def test_source_date_epoch_is_a_number_or_an_error() -> None:
    assert clock.source_date_epoch({}) is None
    assert clock.source_date_epoch({"SOURCE_DATE_EPOCH": "86400"}) == 86400
    with pytest.raises(UsageError, match="'soon', which is not a number"):
        clock.source_date_epoch({"SOURCE_DATE_EPOCH": "soon"})


def test_times_are_written_in_utc_and_read_back() -> None:
    assert clock.rfc3339(872879442) == "1997-08-29T18:30:42Z"
    assert clock.parse_rfc3339("1997-08-29T18:30:42.5Z") == 872879442
    assert clock.date8(872879442) == "19970829"


def test_mount_points_are_read_with_their_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 0:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:1 / /a\\040b rw - ext4 /dev/a rw\n"
        "3 2 0:1 / /a\\040b/c\\134040é rw - ext4 /dev/a rw\n"
        "4 1 0:1 / /ab rw - ext4 /dev/a rw\n"
    )
    real = open
    monkeypatch.setattr(
        "builtins.open",
        lambda name, *rest, **kw: real(
            table if name == "/proc/self/mountinfo" else name, *rest, **kw
        ),
    )
    assert files.mount_points("/a b") == ["/a b", "/a b/c\\040é"]
    assert len(files.mount_points()) == 4
