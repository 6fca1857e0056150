"""Images under their tags in a real registry: unique ones stay, moving ones move."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Strata
from publisher import Publisher
from registry import ADDRESS, Registry
from strata.oci.digest import Digest

pytestmark = pytest.mark.tools
MINOR = "12.9"


def test_r3_13_images_are_published_by_the_tag_policy(
    definitions: Path, own_store: Path, tmp_path: Path, strata: Strata
) -> None:
    path = definitions / "strata.toml"
    text = path.read_text().replace("schema = 1\n", "schema = 1\nREGISTRY\n", 1)
    path.write_text(text.replace("REGISTRY", ""))
    where = ("-C", str(definitions), "--store", str(own_store))
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        publish = Publisher(registry, definitions, own_store, tmp_path / "home")
        done = publish("publish", "coreos/sample-12")
        assert done.returncode == 2
        assert "strata.toml names no registry" in done.stderr
        path.write_text(text.replace("REGISTRY", f'registry = "docker://{ADDRESS}/sample"'))
        record = json.loads((own_store / "records/coreos/sample-12.json").read_text())["outputs"]
        told = publish("publish", "coreos/sample-12", "--dry-run", "--json")
        assert [item["unique"] for item in json.loads(told.stdout)] == [
            f"coreos-{record['version']}"
        ]
        assert publish.tags() == {}
        assert publish("publish", "coreos/sample-12").returncode == 0
        base = {f"coreos-{MINOR}": record["index"], f"coreos-{record['version']}": record["index"]}
        assert publish.tags() == base
        # R4.7: a node comes with its extensions, and those have to be of it
        done = publish("publish", "node/4.19")
        assert done.returncode == 2
        assert "extensions/4.19@sample-12 is not in the store" in done.stderr
        assert publish.tags() == base
        node = json.loads((own_store / "records/node/4.20@sample-12.json").read_text())["outputs"]
        assert publish("publish", "node/4.20").returncode == 0
        short = Digest.parse(node["index"]).hex[:12]
        unique = f"4.20-{record['version']}-node-image-{short}"
        assert publish.tags()[unique] == publish.tags()["4.20-12.9-node-image"] == node["index"]
        again = json.loads(publish("publish", "node/4.20", "--json").stdout)
        assert [item["new"] for item in again] == [False]
        # what was swapped by hand is nobody's official image
        mine = tmp_path / "kubectl"
        mine.write_text("mine\n")
        strata(*where, "build", "node/4.20", "--with", f"{mine}:/usr/bin/kubectl")
        done = publish("publish", "node/4.20")
        assert done.returncode == 2
        assert "has components swapped by hand" in done.stderr
        assert publish.tags()["4.20-12.9-node-image"] == node["index"]
        # another image under a unique tag is refused: it is never moved
        link = registry.folder / "data/docker/registry/v2/repositories/sample/_manifests/tags"
        link = link / f"coreos-{record['version']}" / "current/link"
        link.write_text(node["index"])
        done = publish("publish", "coreos/sample-12")
        assert done.returncode == 3
        assert "a unique tag is never moved" in done.stderr
