"""A hermetic build knows the repositories of one .repo file, and no others (R2.15)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conftest import Strata

pytestmark = pytest.mark.tools

PROJECT = """\
schema = 1
repos = ["r.repo"]
[stream.s-1]
version = "1.2"
arches = ["x86_64"]
coreos = { treefile = "coreos.yaml" }
"""


def test_r2_15_the_repositories_are_those_of_one_file_alone(tmp_path: Path, strata: Strata) -> None:
    definitions, prefetched = tmp_path / "definitions", tmp_path / "prefetched"
    for folder in (definitions, prefetched):
        folder.mkdir()
    subprocess.run(["createrepo_c", "-q", "--revision", "1700000000", prefetched], check=True)
    (definitions / "strata.toml").write_text(PROJECT)
    (definitions / "coreos.yaml").write_text("repos: [r]\n")
    (definitions / "r.repo").write_text(f"[r]\nbaseurl=file://{tmp_path}/gone\ngpgcheck=0\n")
    file = tmp_path / "cachi2.repo"
    file.write_text(f"[r]\nbaseurl=file://{prefetched}\ngpgcheck=0\n")

    def build(*options: str) -> subprocess.CompletedProcess[str]:
        where = ("-C", str(definitions), "--store", str(tmp_path / "store"), "--dry-run")
        return strata(*where, "build", "coreos/s-1", *options, check=False)

    assert f"repository r cannot be read at file://{tmp_path}/gone" in build().stderr
    done = build("--hermetic", str(file))
    assert done.returncode == 0, done.stderr
    assert "would build" in done.stdout
    # What only the definitions have is not there.
    with open(definitions / "r.repo", "a", encoding="utf-8") as stream:
        stream.write(f"[more]\nbaseurl=file://{prefetched}\ngpgcheck=0\n")
    (definitions / "coreos.yaml").write_text("repos: [r, more]\n")
    done = build("--hermetic", str(file))
    assert done.returncode == 3
    assert "coreos.yaml:1: no repository is called more" in done.stderr
    assert f"{file} has: r" in done.stderr
    done = build("--hermetic", str(tmp_path / "none.repo"))
    assert done.returncode == 2
    assert f"there is no file {tmp_path}/none.repo" in done.stderr
