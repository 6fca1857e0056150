"""What an image claims of its layers and commits is not believed: no image reaches another's."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from importlab import Lab, cat, fsck
from layertar import Tar
from strata.container.stored import forget_unneeded
from strata.core.errors import DigestError, ImageError
from strata.core.process import run
from strata.oci.digest import Digest
from strata.oci.model import LAYER_GZIP, Descriptor
from strata.oci.reference import ImageReference
from strata.ostree.repo import Repo
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

EVIL = Tar().add("usr/bin/login", b"EVIL").bytes()
GOOD = Tar().add("usr/bin/login", b"good").bytes()


def name(text: str) -> ImageReference:
    return ImageReference.parse(f"docker://example.com/{text}:1")


class Victims:
    """Images of one lab: an honest one with EVIL in it, and the victim, with GOOD."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.manifest, self.config = lab.image(lab.base)
        self.evil, self.good = self.layer(EVIL), self.layer(GOOD)
        self.write("evil", self.evil, EVIL)
        self.write("victim", self.good, GOOD)
        self.repo = lab.repo()

    def layer(self, tar: bytes) -> Descriptor:
        return self.lab.layout.add(gzip.compress(tar), LAYER_GZIP)

    def write(self, tag: str, layer: Descriptor, tar: bytes) -> None:
        """An image with a layer that claims to be this tar."""
        layers = (*self.manifest.layers, layer)
        self.lab.write(layers, (*self.config.diff_ids, Digest.of(tar)), tag=tag)

    def check(self) -> None:
        """The victim comes out as it is."""
        result = self.lab.pull(self.repo, "victim", reference=name("victim"))
        assert cat(self.repo, result.merge_commit, "/usr/bin/login") == "good"
        assert result.layers[-1].fetched_bytes == self.good.size_bytes
        fsck(self.repo)


@pytest.fixture
def victims(lab: Lab) -> Victims:
    return Victims(lab)


def test_a_layer_that_is_there_does_not_take_anothers_diff_id(victims: Victims) -> None:
    victims.lab.pull(victims.repo, "evil", reference=name("evil"))
    victims.write("liar", victims.evil, GOOD)
    with pytest.raises(DigestError, match="does not have its diff-id"):
        victims.lab.pull(victims.repo, "liar", reference=name("liar"))
    victims.check()


def test_a_layer_does_not_become_the_commit_that_a_label_names(victims: Victims) -> None:
    evil = victims.lab.pull(victims.repo, "evil", reference=name("evil")).layers[-1].commit
    diff_id = Digest.of(GOOD)
    labels = {"ostree.final-diffid": str(diff_id), "ostree.commit": evil}
    victims.lab.write([victims.good], [diff_id], labels=labels, tag="liar")
    with pytest.raises(ImageError, match="does not hold the commit its label names"):
        victims.lab.pull(victims.repo, "liar", reference=name("liar"))
    victims.check()


def test_a_layer_of_another_tool_is_read_anew(victims: Victims) -> None:
    """Its refs say neither which diff-id it has, nor by which rules it was read."""
    evil = victims.lab.pull(victims.repo, "evil", reference=name("evil")).layers[-1].commit
    ref = f"ostree/container/blob/sha256_3A_{victims.good.digest.hex}"
    run(["ostree", "refs", f"--repo={victims.repo.path}", f"--create={ref}", evil])
    victims.check()


def test_a_layer_read_as_a_plain_one_is_not_taken_for_a_chunk(lab: Lab) -> None:
    repo = lab.repo()
    manifest, config = lab.image(lab.base)
    lab.write(manifest.layers, config.diff_ids, labels={}, tag="plain")
    lab.pull(repo, "plain", reference=name("plain"))
    result = lab.pull(repo, "base", reference=name("base"))
    assert result.base_commit == lab.commit
    assert result.fetched_bytes == sum(layer.size_bytes for layer in manifest.layers)
    fsck(repo)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_layer_of_the_base_with_another_diff_id_is_refused(lab: Lab, number: int) -> None:
    manifest, config = lab.image(lab.base)
    diff_ids = list(config.diff_ids)
    diff_ids[number] = Digest("1" * 64)
    lab.write(manifest.layers, diff_ids, tag="liar")
    repo = lab.repo()
    with pytest.raises(DigestError, match="does not have its diff-id"):
        lab.pull(repo, "liar")
    assert not repo.refs("ostree/container/image/")
    fsck(repo)


def test_what_an_earlier_import_left_of_a_chunk_is_completed(lab: Lab) -> None:
    """Somebody removed objects though refs hold them: the chunk is read again."""
    repo = lab.repo()
    result = lab.pull(repo, "base", reference=name("one"))
    repo.delete_ref("ostree/container/image/docker_3A__2F__2F_example_2E_com/one_3A_1")
    Path(repo.object_path(lab.commit, "commit")).unlink()
    victim = next(iter(sorted((repo.path / "objects").rglob("*.file"))))
    victim.unlink()
    again = lab.pull(repo, "base", reference=name("two"))
    assert again.base_commit == result.base_commit
    fsck(repo)


def test_an_import_beside_another_keeps_its_layers(lab: Lab) -> None:
    """One import ends, and removes what no image needs, while another has layers and no image."""
    lab.derive(Tar().add("usr/bin/new", b"1").bytes(), tag="one")
    lab.derive(Tar().add("usr/bin/new", b"2").bytes(), tag="two")
    repo = lab.repo()
    first = lab.pull(repo, "one", reference=name("one"))
    with writing(Repo.open(repo.path), sync=False) as beside:
        beside.set_ref("ostree/container/blob/unfinished", first.merge_commit)
        beside.publish()
        lab.pull(repo, "two", reference=name("two"))
        assert repo.resolve("ostree/container/blob/unfinished") is not None
        assert forget_unneeded(repo) == []
    assert forget_unneeded(repo) == ["ostree/container/blob/unfinished"]
    before = repo.refs()
    lab.pull(repo, "one", reference=name("one"))
    assert repo.refs() == before
    fsck(repo)


def test_imports_at_once_leave_every_image_whole(lab: Lab) -> None:
    repo = lab.repo()
    images = []
    for number in range(4):
        tag = f"image{number}"
        own = Tar().add("usr/bin/own", b"%d" % number * 50_000).bytes()
        lab.derive(own, Tar().add("usr/bin/shared", b"s" * 50_000).bytes(), tag=tag)
        images.append(str(lab.reference(tag)))
    strata = str(Path(sys.executable).with_name("strata"))
    running = [
        subprocess.Popen(
            [strata, "image", "import", image, "--repo", str(repo.path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for image in images
    ]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    lab.pull(repo, "image0", reference=name("last"))  # ends alone, and forgets what nobody needs
    refs = repo.refs("ostree/container/blob/")
    for number in range(4):
        manifest, _ = lab.image(lab.layout.resolve(f"image{number}"))
        for layer in manifest.layers:
            assert f"ostree/container/blob/sha256_3A_{layer.digest.hex}" in refs
        assert lab.pull(repo, f"image{number}").fetched_bytes == 0
    fsck(repo)
