"""A build makes again what follows from what changed, and the rest it takes as it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import Strata, make_store
from tinydist import TARGET, tiny_definitions

pytestmark = pytest.mark.tools

INSTALLED, TAKEN = "install packages", "take what the step install made before"


@pytest.fixture
def store(tmp_path: Path, sample_repos: Path) -> Path:
    """An empty store with the sample's repositories."""
    return make_store(tmp_path / "store", sample_repos)


def build(
    strata: Strata, definitions: Path, store: Path, target: str, *more: str
) -> tuple[dict[str, bool], set[str], Mapping[str, object]]:
    """Build: which steps are the same as before, what was done, and what came out."""
    where = ("-C", str(definitions), "--store", str(store), "--json")
    row = json.loads(strata(*where, "build", target, *more).stdout)[-1]
    record = json.loads((store / f"records/{row['target']}.json").read_text())
    same = {step["step"]: step["same"] for step in row["steps"]}
    return same, {step["title"] for step in record["steps"]}, row["outputs"]


def test_a_script_makes_the_tree_again_and_takes_the_packages_as_they_were(
    tmp_path: Path, store: Path, strata: Strata
) -> None:
    definitions = tiny_definitions(tmp_path / "one", "date -r /usr/bin/bash +%s.%N > /usr/lib/age")
    same, done, _ = build(strata, definitions, store, TARGET)
    assert same == {"install": False, "tree": False, "image": False}
    assert INSTALLED in done
    treefile = definitions / "bootc.yaml"
    treefile.write_text(treefile.read_text() + "  - |\n    #!/bin/sh\n    echo 2 > /usr/lib/two\n")
    # Built again from nothing, in another store, it is the same to the byte.
    same, done, _ = build(strata, definitions, store, TARGET, "--verify")
    assert same == {"install": True, "tree": False, "image": False}
    assert TAKEN in done
    assert INSTALLED not in done
    text = strata("-C", str(definitions), "--store", str(store), "--dry-run", "build", TARGET)
    assert "up to date" in text.stdout


def test_packages_are_installed_again_when_they_or_how_they_are_installed_change(
    tmp_path: Path, store: Path, strata: Strata
) -> None:
    definitions = tiny_definitions(tmp_path / "one")
    build(strata, definitions, store, TARGET)
    treefile = definitions / "bootc.yaml"
    (first,) = (store / "cache/steps" / TARGET).iterdir()
    treefile.write_text(treefile.read_text().replace("documentation: false", "documentation: true"))
    same, done, _ = build(strata, definitions, store, TARGET)
    assert same == {"install": False, "tree": False, "image": False}
    assert INSTALLED in done
    # Of each step only the last is kept.
    (second,) = (store / "cache/steps" / TARGET).iterdir()
    assert second != first
    second.unlink()
    treefile.write_text(treefile.read_text() + "  - |\n    #!/bin/sh\n    true\n")
    same, done, _ = build(strata, definitions, store, TARGET)
    assert same["install"]
    assert INSTALLED in done


def test_a_node_layers_script_goes_on_from_its_installed_packages(
    definitions: Path, own_store: Path, strata: Strata
) -> None:
    node = "node/4.19@sample-12"
    build(strata, definitions, own_store, node)
    manifest = definitions / "node/manifest.yaml"
    manifest.write_text(manifest.read_text() + "  - |\n    #!/bin/sh\n    rm /usr/bin/kubectl\n")
    same, done, outputs = build(strata, definitions, own_store, node, "--verify")
    assert same == {"install": True, "tree": False, "image": False}
    assert TAKEN in done
    assert INSTALLED not in done
    command = ("--store", str(own_store), "image", "owner", f"oci:{own_store}:{node}")
    assert strata(*command, "/usr/bin/kubectl", check=False).returncode != 0
    # The base is not touched.
    assert (own_store / f"records/{node}.json").exists()
    assert outputs["base_layers"] == 65
