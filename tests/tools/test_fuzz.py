"""A short run of every fuzz target; `make fuzz` runs them for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tools

FUZZ = Path(__file__).parent.parent / "fuzz"
NAMES = ("tar", "compressed", "objects", "documents", "references", "archive")
SECONDS = 5


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_our_errors_comes_out(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZ / "fuzz.py"), name, f"-max_total_time={SECONDS}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # what breaks a target is written here
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Done" in done.stderr
    executed = int(done.stderr.rpartition("Done ")[2].split()[0])
    assert executed > 100
