"""The command line: help that reads well, errors as JSON, doctor."""

from __future__ import annotations

import json

import pytest

from strata.cli.main import main, make_parser

pytestmark = pytest.mark.unit

COMMANDS = (
    ["build"],
    ["run"],
    ["serve"],
    ["lint"],
    ["image"],
    *(["image", verb] for verb in ("inspect", "ls", "owner", "diff", "lint")),
    *(["image", verb] for verb in ("encapsulate", "import", "copy", "index", "prune")),
    ["image", "simulate"],
    *(["image", "index", verb] for verb in ("create", "add", "replace", "show")),
    ["sample"],
    ["sample", "repos"],
    ["ignition"],
    *(["ignition", verb] for verb in ("bootstrap", "check")),
    ["doctor"],
    ["clean"],
)


def help_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        make_parser().parse_args([*command, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_says_what_strata_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of([], capsys)
    assert "three layers" in text
    assert "strata -C definitions/sample build node/4.19" in text
    for command in ("build", "run", "sample", "doctor", "clean"):
        assert command in text


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_the_common_options(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    assert "-C DIR" in text
    assert "--store DIR" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_an_error_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-C", "/nonexistent", "--json", "build", "node/4.19"]) == 3
    document = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert document["code"] == "definition"
    assert document["hint"] == "say where the definitions are with -C DIR"


def test_a_traceback_is_shown_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-C", "/nonexistent", "build", "node/4.19"]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert main(["-C", "/nonexistent", "--debug", "build", "node/4.19"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_doctor_names_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    assert main(["doctor"]) == 4
    text = capsys.readouterr().out
    assert "apt install apt bubblewrap" in text
    assert "dnf install apt bubblewrap" in text
    assert main(["doctor", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["tools"]["skopeo"] is None
