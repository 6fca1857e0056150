"""Encapsulating with the image of the earlier build: what did not change is not written again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Strata
from strata.container.labels import COMPONENTS, CONTENT
from strata.oci.layout import Layout
from strata.oci.model import Manifest
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

PACKAGES = 12
LAYERS = "8"


class Releases:
    """A system of twelve packages in a repository, encapsulated again and again."""

    def __init__(self, folder: Path, strata: Strata) -> None:
        self.folder, self.strata = folder, strata
        self.root = folder / "root"
        self.repo = Repo.init(folder / "repo")
        for number in range(PACKAGES):
            self.write(f"p{number:02}", f"{number}" * (1000 << number % 6))

    def write(self, package: str, text: str) -> None:
        path = self.root / "usr/lib" / package / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def encapsulate(self, tag: str, *options: str) -> dict[str, str]:
        """Commit what is there and make an image; its layers by components."""
        with writing(self.repo) as writer:
            commit = commit_directory(self.repo, writer, str(self.root), timestamp=1)
        meta = self.folder / "meta.json"
        mapping: dict[Checksum, str] = {}
        for path, checksum in Tree.load(self.repo, commit).walk_files():
            mapping[checksum] = path.split("/")[3]
        layers = {name: name for name in mapping.values()}
        meta.write_text(json.dumps({"version": 1, "mapping": mapping, "layers": layers}))
        where = f"oci:{self.folder / 'layout'}:{tag}"
        command = ["image", "encapsulate", "--repo", str(self.folder / "repo"), commit, where]
        self.strata(*command, "--contentmeta", str(meta), "--max-layers", LAYERS, *options)
        manifest = self.manifest(tag)
        assert len(manifest.layers) <= 1 + int(LAYERS)
        return {layer.annotations[COMPONENTS]: str(layer.digest) for layer in manifest.layers[1:]}

    def manifest(self, tag: str) -> Manifest:
        layout = Layout.open(self.folder / "layout")
        return Manifest.parse(layout.read(layout.resolve(tag)))

    def prior(self, tag: str) -> tuple[str, str]:
        return "--prior", f"oci:{self.folder / 'layout'}:{tag}"


@pytest.fixture
def releases(tmp_path: Path, strata: Strata) -> Releases:
    return Releases(tmp_path, strata)


def test_the_same_commit_on_itself_is_the_same_image(releases: Releases) -> None:
    releases.encapsulate("one")
    releases.encapsulate("two", *releases.prior("one"))
    assert releases.manifest("one") == releases.manifest("two")
    assert all(CONTENT in layer.annotations for layer in releases.manifest("one").layers[1:])


def test_one_changed_package_is_one_changed_chunk(releases: Releases) -> None:
    first = releases.encapsulate("one")
    releases.write("p03", "other")
    second = releases.encapsulate("two", *releases.prior("one"))
    assert second.keys() == first.keys()
    changed = [names for names in first if first[names] != second[names]]
    assert [names for names in changed if "p03" in names.split(",")] == changed
    assert len(changed) == 1


def test_a_new_package_leaves_unchanged_chunks_alone(releases: Releases) -> None:
    first = releases.encapsulate("one")
    releases.write("p03", "other")
    releases.write("new", "new" * 5000)
    second = releases.encapsulate("two", *releases.prior("one"))
    kept = {names for names in first if "p03" not in names.split(",")}
    assert {names: first[names] for names in kept}.items() <= second.items()


def test_upstreams_packing_puts_new_packages_into_the_last_chunk(releases: Releases) -> None:
    first = list(releases.encapsulate("one", "--packing", "upstream"))
    releases.write("new", "new")
    second = releases.encapsulate("two", "--packing", "upstream", *releases.prior("one"))
    assert first[-1] == ""
    assert list(second) == [*first[:-1], "new"]


def test_a_prior_without_a_plan_is_said_and_does_no_harm(
    releases: Releases, strata: Strata
) -> None:
    first = releases.encapsulate("one")
    layout = Layout.open(releases.folder / "layout")
    whole = releases.manifest("one")
    bare = Manifest(whole.config, whole.layers[:1] * 2, whole.annotations)
    layout.tag("bare", layout.add(bare.to_bytes(), layout.resolve("one").media_type))
    assert releases.encapsulate("two", *releases.prior("bare")) == first
