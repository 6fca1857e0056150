"""What is said when a treefile cannot be applied inside of a container."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from strata.compose import apply
from strata.compose.applyerror import error_text, read_error
from strata.compose.buildah import step_error
from strata.compose.sandbox import ScriptError, script_error
from strata.core.errors import NoSpaceError, PackageError, StrataError, UsageError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "error",
    [
        script_error(
            "node/common.yaml:8", "one\n\n  hint: not ours\nstrata-apply: nor this\nno such luck\n"
        ),
        PackageError("no package is called x", hint="look\nagain", context={"output": "a\nb"}),
        UsageError("no hint, no output"),
    ],
)
def test_an_error_comes_out_of_a_container_as_it_went_in(error: StrataError) -> None:
    text = f"STEP 1/2: FROM x\n{error_text(error)}Error: building at STEP\nexit status 3\n"
    told = read_error(text)
    assert type(told) is type(error)
    assert told is not None
    assert told.message == error.message
    assert told.hint == (error.hint.replace("\n", " ") if error.hint else None)
    output = str(error.context.get("output", ""))
    assert told.context["output"] == "\n".join(output.splitlines())
    assert told.context.get("script") == error.context.get("script")


def test_the_last_error_counts_and_half_of_one_does_not() -> None:
    first, last = UsageError("first"), UsageError("last")
    told = read_error(error_text(first) + error_text(last))
    assert told is not None
    assert told.message == "last"
    whole = error_text(last)
    assert read_error(whole[: whole.index("  code")]) is None
    assert read_error("strata-apply: error: unrecognized arguments: --streem\n") is None


def test_a_failed_step_is_named_with_what_it_said() -> None:
    output = (
        "usage: tool\ntool: bad option\nsubprocess exited with status 2\n"
        'Error: building at STEP "RUN tool": exit status 2\n'
        "[1/2] STEP 1/2: FROM x AS y\n--> 0123\n[2/2] STEP 2/3: RUN tool " + "x" * 80 + "\n"
    )
    error = step_error("node/Containerfile", output)
    assert error.message == f"node/Containerfile: step 2/3 failed: RUN tool {'x' * 51}…"
    assert error.context["output"] == "usage: tool\ntool: bad option"
    error = step_error("node/Containerfile", "Error: no FROM statement found\n")
    assert error.message == "node/Containerfile: no FROM statement found"


def test_a_bad_clock_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert apply.main(["apply", str(tmp_path), "nope.yaml"]) == UsageError.exit_status
    told = read_error(capsys.readouterr().err)
    assert told is not None
    assert told.message == "SOURCE_DATE_EPOCH is 'yesterday', which is not a number of seconds"


def test_a_full_disk_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(root: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/usr/share/x")

    monkeypatch.setattr(apply, "write_package_list", full)
    assert apply.main(["metadata"]) == NoSpaceError.exit_status
    told = read_error(capsys.readouterr().err)
    assert isinstance(told, NoSpaceError)
    assert told.message == "no space left on the device while applying the treefile (/usr/share/x)"


def test_a_script_s_error_is_one_of_a_script() -> None:
    assert isinstance(read_error(error_text(script_error("a:1", "x"))), ScriptError)
