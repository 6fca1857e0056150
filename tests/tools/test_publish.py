"""Images under their tags in a real registry: unique ones stay, moving ones move."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import pytest

from conftest import Strata
from publisher import Publisher
from registry import ADDRESS, Registry
from strata.core.clock import today
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
        assert "has components swapped by hand: /usr/bin/kubectl (--with)\n" in done.stderr
        assert publish.tags()["4.20-12.9-node-image"] == node["index"]
        # another image under a unique tag is refused: it is never moved
        publish.link(f"coreos-{record['version']}").write_text(node["index"])
        done = publish("publish", "coreos/sample-12")
        assert done.returncode == 3
        assert "a unique tag is never moved" in done.stderr


def with_registry(definitions: Path, text: str = "") -> None:
    """Say where images go, and add to strata.toml."""
    path = definitions / "strata.toml"
    registry = f'schema = 1\nregistry = "docker://{ADDRESS}/sample"\n'
    path.write_text(path.read_text().replace("schema = 1\n", registry, 1) + text)


def test_r4_7_extensions_are_there_before_the_tag_that_says_a_node_is_ready(
    definitions: Path, own_store: Path, tmp_path: Path, strata: Strata
) -> None:
    with_registry(definitions)
    where = ("-C", str(definitions), "--store", str(own_store))
    strata(*where, "build", "extensions/4.19")
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        publish = Publisher(registry, definitions, own_store, tmp_path / "home")
        done = publish("publish", "node/4.19", "--json")
        assert done.returncode == 0, done.stderr
        extensions, node = json.loads(done.stdout)
        assert extensions["target"] == "extensions/4.19@sample-12"
        assert extensions["moving"] == f"4.19-{MINOR}-node-image-extensions"
        order = [extensions["unique"], extensions["moving"], node["unique"], node["moving"]]
        tags = publish.tags()
        assert tags == {
            tag: row["digest"]
            for row in (extensions, node)
            for tag in (row["unique"], row["moving"])
        }
        made = {tag: publish.link(tag).stat().st_mtime_ns for tag in tags}
        assert sorted(made, key=lambda tag: made[tag]) == order
        # extensions that cannot be pushed leave the node's tags where they were
        for tag in (node["unique"], node["moving"]):
            shutil.rmtree(publish.link(tag).parent.parent)
        publish.link(extensions["unique"]).write_text(node["digest"])
        refused = publish("publish", "node/4.19")
        assert refused.returncode == 3
        assert "a unique tag is never moved" in refused.stderr
        assert publish.tags().keys() == {extensions["unique"], extensions["moving"]}


def test_r3_13_a_hotfix_is_published_under_tags_of_its_own(
    definitions: Path, own_store: Path, tmp_path: Path, strata: Strata
) -> None:
    fixed = definitions / "kubectl"
    fixed.write_text("fixed\n")
    later = today() + datetime.timedelta(days=30)
    with_registry(definitions, _HOTFIX.format(expires=later))
    where = ("-C", str(definitions), "--store", str(own_store))
    target, name = "hotfix/case-0042", "hotfix-case-0042"
    strata(*where, "build", target)
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        publish = Publisher(registry, definitions, own_store, tmp_path / "home")
        assert publish("publish", "node/4.20").returncode == 0
        official = publish.tags()
        (first,) = json.loads(publish("publish", target, "--json").stdout)
        assert first["moving"] == name
        assert first["unique"] == f"{name}-{Digest.parse(first['digest']).hex[:12]}"
        theirs = {first["moving"]: first["digest"], first["unique"]: first["digest"]}
        assert publish.tags() == {**official, **theirs}
        # a second one: the moving tag follows, the first stays under its own
        fixed.write_text("fixed better\n")
        strata(*where, "build", target)
        (second,) = json.loads(publish("publish", target, "--json").stdout)
        assert second["digest"] != first["digest"]
        tags = publish.tags()
        assert (tags[name], tags[second["unique"]]) == (second["digest"],) * 2
        assert tags[first["unique"]] == first["digest"]
        # something swapped beside what the hotfix says is nobody's
        strata(*where, "build", target, "--with", f"{fixed}:/usr/bin/other")
        refused = publish("publish", target)
        assert refused.returncode == 2
        assert "components swapped by hand: /usr/bin/other (--with)\n" in refused.stderr
        strata(*where, "build", target)
        # never under an official tag, nor once its day has come
        path = definitions / "strata.toml"
        text = path.read_text()
        path.write_text(text.replace('tag = "4.20-{stream-version}-node-image"', f'tag = "{name}"'))
        refused = publish("publish", target)
        assert refused.returncode == 3
        assert f"{target} and node/4.20@sample-12 would both be {name}" in refused.stderr
        path.write_text(text.replace(str(later), str(today())))
        refused = publish("publish", target)
        assert refused.returncode == 3
        assert "hotfix case-0042 expired on" in refused.stderr
        assert publish.tags() == {**tags, **official}


_HOTFIX = """
[[hotfix]]
name = "case-0042"
target = "node/4.19"
files = {{ "/usr/bin/kubectl" = "kubectl" }}
expires = {expires}
reason = "customer case 42"
"""
