"""A CoreOS layer on a bootc image that somebody else made, and what is laid over it by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Strata, make_store
from publisher import Publisher
from registry import ADDRESS, Registry
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Manifest
from tinydist import COREOS, TARGET, tiny_definitions

pytestmark = pytest.mark.tools
COREOS_TARGET = "coreos/tiny-1"


def on_foreign(folder: Path, reference: str) -> Path:
    """Definitions whose CoreOS layer stands on an image."""
    definitions = tiny_definitions(folder)
    path = definitions / "strata.toml"
    text = path.read_text().replace(
        'bootc = { treefile = "bootc.yaml" }', f'bootc = {{ from = "{reference}" }}'
    )
    text = text.replace('coreos = { treefile = "bootc.yaml" }', _COREOS)
    path.write_text(
        text.replace("schema = 1\n", f'schema = 1\nregistry = "docker://{ADDRESS}/x"\n')
    )
    (definitions / "coreos.yaml").write_text(COREOS)
    (definitions / "bootc.yaml").unlink()
    return definitions


_COREOS = 'coreos = { treefile = "coreos.yaml" }\ntag = "coreos-{version}"'


def outputs(store: Path) -> dict[str, object]:
    record = json.loads((store / f"records/{COREOS_TARGET}.json").read_text())
    found: dict[str, object] = record["outputs"]
    return found


def label(store: Path) -> str | None:
    layout = Layout.open(store)
    digest = Digest.parse(str(outputs(store)["manifest"]))
    manifest = Manifest.parse(layout.read(layout.resolve(digest=digest)))
    return ImageConfig.parse(layout.read(manifest.config)).labels.get("strata.with")


def test_r2_1_a_coreos_layer_stands_on_a_bootc_image_by_digest(
    tmp_path: Path, sample_repos: Path, strata: Strata
) -> None:
    theirs = make_store(tmp_path / "theirs", sample_repos)
    strata("-C", str(tiny_definitions(tmp_path / "bootc")), "--store", str(theirs), "build", TARGET)
    below = json.loads((theirs / f"records/{TARGET}.json").read_text())["outputs"]
    mine = make_store(tmp_path / "mine", sample_repos)
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        digest = registry.push(f"oci:{theirs}:{TARGET}", "os/bootc:1")
        reference = f"docker://{ADDRESS}/os/bootc@{digest}"
        definitions = on_foreign(tmp_path / "definitions", reference)
        inside = Publisher(registry, definitions, mine, tmp_path / "home")
        built = inside("build", COREOS_TARGET, "--verify", "--json")
        assert built.returncode == 0, built.stderr[-3000:]
        (row,) = json.loads(built.stdout)  # the layer below is nobody's to build here
        assert row["verified"]["equal"]
        record = json.loads((mine / f"records/{COREOS_TARGET}.json").read_text())
        # encapsulated, the commit is in the image: what it is based on is that very one
        (base,) = (item for item in record["inputs"] if item["name"] == "bootc commit")
        assert base["digest"] == below["commit"]
        assert int(row["outputs"]["packages"]) > int(below["packages"])
        told = inside("publish", COREOS_TARGET, "--dry-run")
        assert told.returncode == 0, told.stderr
        # by digest, what is here is not asked for again
        registry.stop()
        again = inside("build", COREOS_TARGET, "--json")
        assert [row["status"] for row in json.loads(again.stdout)] == ["up to date"]
        assert label(mine) is None
        # what is laid over it by hand is told, labelled, and not published
        overlay = definitions / "overrides/rootfs/usr/lib"
        overlay.mkdir(parents=True)
        (overlay / "by-hand").write_text("x\n")
        changed = inside("build", COREOS_TARGET)
        assert changed.returncode == 0, changed.stderr
        assert f"{COREOS_TARGET}: overrides/rootfs is laid over the tree" in changed.stderr
        rows = json.loads(label(mine) or "[]")
        assert [(one["path"], one["of"]) for one in rows] == [("/", "overrides/rootfs")]
        assert outputs(mine)["with"] == rows
        shown = strata("image", "ls", f"oci:{mine}:{COREOS_TARGET}", "/usr/lib/by-hand")
        assert shown.stdout.startswith("-rw-r--r--")
        refused = inside("publish", COREOS_TARGET)
        assert refused.returncode == 2
        assert (
            f"{COREOS_TARGET} has components swapped by hand: / (overrides/rootfs)\n"
            in refused.stderr
        )


@pytest.mark.parametrize(
    "reference", ["docker://registry.example/os/bootc:1", "oci:somewhere:bootc/tiny-1"]
)
def test_a_moving_tag_is_no_bootc_image(tmp_path: Path, strata: Strata, reference: str) -> None:
    definitions = on_foreign(tmp_path / "definitions", reference)
    done = strata("-C", str(definitions), "build", COREOS_TARGET, check=False)
    assert done.returncode == 3
    told = "stream.tiny-1.bootc must name its image by digest (@sha256:…)"
    assert f"strata: strata.toml:7: {told}\n" in done.stderr


def test_an_image_that_is_not_there_is_told(
    tmp_path: Path, sample_repos: Path, strata: Strata
) -> None:
    store = make_store(tmp_path / "store", sample_repos)
    reference = f"oci:{store}@sha256:{'0' * 64}"
    definitions = on_foreign(tmp_path / "definitions", reference)
    done = strata(
        "-C", str(definitions), "--store", str(store), "build", COREOS_TARGET, check=False
    )
    assert done.returncode == 11
    assert "0000" in done.stderr[done.stderr.rindex("strata: ") :]
    assert list((store / "work").iterdir()) == []
