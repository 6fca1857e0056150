"""A layer's definition: which repository an id means, and where overlays lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.compose.definitions import Definition, load_definition
from strata.core.errors import DefinitionError
from strata.core.events import silent
from strata.treefile.project import load_project

pytestmark = pytest.mark.unit

TOML = """\
schema = 1
repos = ["base/a.repo", "node/a.repo", "extra.repo"]
[stream.s-1]
version = "1.0"
arches = ["x86_64"]
coreos = { treefile = "base/base.yaml" }
[release."1".node.s-1]
primary = true
treefile = "node/node.yaml"
"""
FILES = {
    "strata.toml": TOML,
    "base/base.yaml": "repos: [os]\nostree-layers: [overlay.d/own]\ninclude: inner/more/m.yaml\n",
    "base/inner/more/m.yaml": "ostree-layers: [overlay/both, overlay/theirs]\n",
    "base/a.repo": "[os]\nbaseurl=https://mirror.example/os\n",
    "node/node.yaml": "repos: [os, extra]\n",
    "node/a.repo": "[os]\nbaseurl=https://composes.example/os\n",
    "extra.repo": "[extra]\nbaseurl=file:///extra\n",
    "base/overlay.d/own/etc/a": "",
    "base/overlay.d/both/etc/b": "",
    "base/inner/overlay.d/both/etc/b": "",
    "base/inner/overlay.d/theirs/etc/c": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def load(folder: Path, treefile: str) -> Definition:
    return load_definition(
        load_project(folder),
        treefile,
        variables={},
        arch="x86_64",
        store=folder / "store",
        reporter=silent(),
    )


def test_a_layer_means_the_repositories_beside_its_treefile(folder: Path) -> None:
    base, node = load(folder, "base/base.yaml"), load(folder, "node/node.yaml")
    assert [(repo.baseurl, repo.source) for repo in base.repos] == [
        ("https://mirror.example/os", "base/a.repo")
    ]
    assert [(repo.baseurl, repo.source) for repo in node.repos] == [
        ("https://composes.example/os", "node/a.repo"),
        ("file:///extra", "extra.repo"),
    ]


def test_an_id_of_two_places_is_an_error_where_nothing_decides(folder: Path) -> None:
    (folder / "top.yaml").write_text("repos: [os]\n")
    (folder / "strata.toml").write_text(TOML.replace("base/base.yaml", "top.yaml"))
    with pytest.raises(DefinitionError, match=r"os is another one in node/a\.repo than in base/a"):
        load(folder, "top.yaml")
    (folder / "top.yaml").write_text("repos: [extra]\n")  # it is not asked
    assert load(folder, "top.yaml").repos[0].id == "extra"
    (folder / "top.yaml").write_text("repos: [os]\n")
    (folder / "top.repo").write_text("[os]\nbaseurl=https://third.example/os\n")
    toml = (folder / "strata.toml").read_text()
    (folder / "strata.toml").write_text(toml.replace("extra.repo", "top.repo"))
    assert load(folder, "top.yaml").repos[0].baseurl == "https://third.example/os"
    (folder / "strata.toml").write_text(toml)
    (folder / "node/a.repo").write_text(FILES["base/a.repo"])
    assert load(folder, "top.yaml").repos[0].source == "base/a.repo"


def test_r1_12_overlays_lie_by_the_treefile_or_by_the_one_that_names_them(folder: Path) -> None:
    found = dict(load(folder, "base/base.yaml").overlays)
    assert {name: str(path.relative_to(folder)) for name, path in found.items()} == {
        "overlay.d/own": "base/overlay.d/own",
        "overlay/both": "base/overlay.d/both",
        "overlay/theirs": "base/inner/overlay.d/theirs",
    }
    (folder / "base/base.yaml").write_text("repos: [os]\nostree-layers: [overlay/theirs]\n")
    with pytest.raises(DefinitionError, match="there is no overlay overlay/theirs"):
        load(folder, "base/base.yaml")
