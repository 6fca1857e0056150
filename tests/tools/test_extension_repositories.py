"""`strata lint --repositories`: what extensions' repositories have on every architecture (R4.3)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import Strata
from rpmrepo import make_repository

pytestmark = pytest.mark.tools

TOML = """\
schema = 1
repos = ["r.repo"]
[stream.s-1]
version = "1.0"
arches = ["x86_64", "aarch64"]
coreos = { treefile = "coreos.yaml" }
[release."4.19".node.s-1]
primary = true
treefile = "node.yaml"
extensions = "x.yaml"
"""
EXTENSIONS = """\
repos:
  - all
extensions:
  tool:
    packages: [tool]
  late:
    architectures: [x86_64]
    repos: [some]
    packages: [late]
"""


def test_r4_3_repositories_are_looked_up_on_every_architecture(
    tmp_path: Path, strata: Strata
) -> None:
    store, folder = tmp_path / "store", tmp_path / "definitions"
    make_repository(store / "x86_64/all", {"tool 2": ""})
    make_repository(store / "aarch64/all", {"tool 1": ""})
    make_repository(store / "x86_64/some", {"late 1": ""})
    folder.mkdir()
    (folder / "strata.toml").write_text(TOML)
    (folder / "coreos.yaml").write_text("")
    (folder / "node.yaml").write_text("repos: [all]\n")
    (folder / "x.yaml").write_text(EXTENSIONS)
    text = "[{0}]\nname={0}\nbaseurl=file://$store/$basearch/{0}\ngpgcheck=0\n"
    (folder / "r.repo").write_text(text.format("all") + text.format("some"))
    lint = ("-C", str(folder), "--store", str(store), "lint", "--json")

    def rules(*options: str) -> dict[str, tuple[str, str]]:
        done = strata(*lint, *options, check=False)
        return {row["rule"]: (row["place"], row["message"]) for row in json.loads(done.stdout)}

    assert set(rules()) == {"repository-on-some"}
    found = rules("--repositories")
    assert set(found) == {"repository-on-some", "version-skew"}
    assert found["version-skew"] == (
        "x.yaml:5",
        "tool is another one by architecture: 2-1 on x86_64, 1-1 on aarch64",
    )
    make_repository(store / "aarch64/some", {"late 1": ""})
    place, message = rules("--repositories")["repository-available"]
    assert place == "x.yaml:8"
    assert message.startswith("some is only looked in on x86_64, and is there on aarch64 too: name")
    shutil.rmtree(store / "aarch64/all")
    done = strata(*lint, "--repositories", check=False)
    assert done.returncode == 1
    place, message = rules("--repositories")["repository-missing"]
    assert place == "x.yaml:2"
    assert message.startswith("all is not there on aarch64, where extensions are looked for: repos")
