"""The /etc merge on disk: what hostile names, mounts and flags make of it, and its undoing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, leftovers
from fake_etc import KEY, NAMES
from strata.core.text import shown

pytestmark = pytest.mark.tools

SKIPPED = {
    "bound": "it is a mount point or a special file here",
    "fifo": "it is a mount point or a special file here",
    "frozen/inside": "/etc/frozen is immutable here",
    "growing": "it is immutable here",
    "immutable": "it is immutable here",
    "mounted/inside": "/etc/mounted is a mount point or a special file here",
}
CONFLICTS = {"mine", "dangling"}


def hostile(folder: Path, policy: str) -> dict[str, Any]:
    driver = str(ROOT / "tests/fake_etc.py")
    argv = ["unshare", "--mount", sys.executable, driver, str(folder / "machine"), policy]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert leftovers(folder) == []
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("policy", ["mine", "theirs"])
def test_a_hostile_etc_is_merged_told_and_restored(tmp_path: Path, policy: str) -> None:
    done = hostile(tmp_path, policy)
    assert [done[name]["status"] for name in ("dry", "overlay", "undo")] == [0, 0, 0]
    assert done["untouched"], "the dry run changed something"
    assert done["undone"], "the undoing left something"
    before, after = done["before"]["etc"], done["after"]["etc"]
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    accounts = {"passwd", "passwd-", "shadow", "shadow-", ".pwd.lock", KEY}
    ordinary = {*NAMES, "link", "same", "gone", "old", "old/file"}
    ordinary |= {"new", "new/deep", "new/deep/file"}
    assert changed - accounts == ordinary | (CONFLICTS if policy == "theirs" else set())
    assert done["after"]["litter"] == []
    # Requirement R6.14: the image's sshd has no group that may read the key.
    assert f"mode={0o640}" in before[KEY]
    assert f"mode={0o600}" in after[KEY]
    # The dry run and the overlay's own words tell the same.
    planned = json.loads(done["dry"]["out"])
    assert {item["path"] for item in planned["changed"]} == {
        shown(path) for path in changed - accounts
    }
    assert {item["path"]: item["reason"] for item in planned["kept"] if not item["conflict"]} == (
        SKIPPED
    )
    kept = {item["path"] for item in planned["kept"] if item["conflict"]}
    assert kept == (CONFLICTS if policy == "mine" else set())
    for path, reason in SKIPPED.items():
        assert f"kept /etc/{path}: {reason}\n" in done["overlay"]["err"]
    assert "\x1b" not in done["overlay"]["err"] + done["dry"]["out"]
    told = "took the image's /etc/{}: it was changed here\n"
    for path in CONFLICTS:
        assert (told.format(path) in done["overlay"]["err"]) == (policy == "theirs")
    state = json.loads(done["state"]["out"])
    assert set(state["etc_kept"]) == SKIPPED.keys() | kept


def test_a_merge_with_conflicts_is_refused_when_asked(tmp_path: Path) -> None:
    done = hostile(tmp_path, "fail")
    assert (done["dry"]["status"], done["overlay"]["status"]) == (1, 1)
    for told in (done["dry"]["err"], done["overlay"]["err"]):
        assert "both changed 2 paths of /etc: /etc/dangling, /etc/mine" in told
        assert '"etc": "mine" or "theirs" in node.json' in told
    assert "/usr and /etc are as they were" in done["overlay"]["err"]
    assert done["after"] == done["before"]
