"""Encapsulating against upstream's own fixture, and round trips that give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

import upstream
from conftest import Strata
from strata.container.encapsulate import Options, encapsulate
from strata.container.importer import import_image
from strata.core.errors import ObjectError
from strata.core.events import silent
from strata.core.process import run
from strata.oci.compression import decompress
from strata.oci.layout import Layout
from strata.oci.model import Descriptor, ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools


@pytest.fixture
def fixture(tmp_path: Path) -> tuple[Repo, Checksum]:
    """Upstream's tree in an archive repository, where no attribute meets a real file system."""
    repo = Repo.init(tmp_path / "upstream", "archive")
    with writing(repo, sync=False) as writer:
        commit, _ = upstream.build(writer)
        writer.set_ref("exampleos/x86_64/stable", commit)
    return repo, commit


def image_of(repo: Repo, commit: str, layout: Layout) -> Descriptor:
    with silent().step("encapsulate") as step:
        return encapsulate(
            repo, commit, layout, upstream.components(), Options("x86_64"), step=step
        )


def tar_of(layout: Layout, layer: Descriptor) -> bytes:
    with layout.open_blob(layer.digest) as stream:
        reader = decompress(stream, layer.media_type)
        return b"".join(iter(lambda: reader.read(1 << 16), b""))


def test_upstreams_tree_has_upstreams_checksum(fixture: tuple[Repo, Checksum]) -> None:
    repo, commit = fixture
    run(["ostree", "fsck", "-q", f"--repo={repo.path}"])
    found = repo.commit(commit)
    both = bytes.fromhex(found.root_contents) + bytes.fromhex(found.root_meta)
    assert hashlib.sha256(both).hexdigest() == upstream.CONTENT_CHECKSUM
    shown = run(["ostree", "show", f"--repo={repo.path}", commit]).stdout
    assert f"ContentChecksum:  {upstream.CONTENT_CHECKSUM}" in shown


def test_upstreams_tree_as_an_image(fixture: tuple[Repo, Checksum], tmp_path: Path) -> None:
    repo, commit = fixture
    with writing(repo, sync=False) as writer:
        writer.detached_metadata(commit, b"detached")
    layout = Layout.create(tmp_path / "layout")
    manifest = Manifest.parse(layout.read(image_of(repo, commit, layout)))
    config = ImageConfig.parse(layout.read(manifest.config))
    assert config.labels["ostree.commit"] == commit
    assert config.labels["ostree.final-diffid"] == str(config.diff_ids[-1])
    assert config.labels["containers.bootc"] == "1"
    assert config.labels["org.opencontainers.image.version"] == "42.0"
    assert manifest.annotations == config.labels
    assert config.config["Cmd"] == ["/usr/bin/bash"]
    assert config.created == "1997-08-29T18:30:42Z"
    with tarfile.open(fileobj=io.BytesIO(tar_of(layout, manifest.layers[0]))) as tar:
        names = tar.getnames()
        repo_names = [
            n for n in names if "/objects/" in n and len(n) > len("sysroot/ostree/repo/objects/00")
        ]
        assert repo_names[0].endswith(".commit")
        assert repo_names[1].endswith(".commitmeta")
        detached = tar.extractfile(repo_names[1])
        assert detached is not None
        assert detached.read() == b"detached"
        assert names[0] == "."
        assert names[-1] == "var/tmp"
        assert tar.getmember("etc").isdir()
        assert "usr/etc" not in names
    seen = {}
    for layer in manifest.layers[1:]:
        with tarfile.open(fileobj=io.BytesIO(tar_of(layout, layer))) as tar:
            for member in tar:
                seen[member.name] = member
    arping = Tree.load(repo, commit).lookup(upstream.ARPING)
    assert isinstance(arping, str)
    name = f"sysroot/ostree/repo/objects/{arping[:2]}/{arping[2:]}.file"
    assert arping.startswith("b048a4f4")
    assert seen[name].pax_headers["SCHILY.xattr.security.capability"].startswith("0sAAAA")
    assert not any("selinux" in key for key in seen[name].pax_headers)
    assert seen["usr/bin/arping"].linkname == name
    assert seen["etc/polkit.conf"].islnk()
    assert seen["usr/lib/emptyfile"].isreg()  # an empty file is no link
    assert seen["usr/bin/sh"].islnk()


# What ostree-ext 0.15.3 writes for this tree, entry by entry, but for what its successor changed:
# `etc` without a slash, attributes inline beside their object, and pax headers for them. A change
# here is a change of format.
_DIFF_IDS = (
    "c298599d7ade7d17258d52ea7dec51143306f335b1438dd5b4b2ce6985309647",
    "f89bb5836281ded08257f36f67400292fe1764a73ee0068ccee8c39fcf43b06f",
    "202756cc2114cf2f69d3a9f66160b79dc82410db97bda9c9d8e7a991ec65095a",
    "e185b9f604bdf1d5066c115abc0c18d7710f2ec5b595a90818630f9de0ff1b70",
    "0d4ad8e41233abcb26f075709ef7cd2b29abeba31e2a49f047c9e5609ebb4e83",
    "43e9fb0248f8211377a022d22fd112c32767f8d24ababdd5e15b73188af396ee",
    "13f7840a9f1bc011bd9a6a9448e92af44bbe97aaa12f02a1915365ac45a2c808",
    "b65ca0de0308253abee0e91c57f76fdf422cf8881ed631c550a810e9ae1583d9",
    "c8a232c49ef41a4a3008abb408f8f1f20ab7947c5724065d1f68d7d752392989",
    "6e145c13ad0d00818248403d30cfea1954c7d994502eadff86aa5a818dc89b31",
    "12787d84fa137cd5649a9005efe98ec9d05ea46245fdc50aecb7dd007f2035b1",
)


def test_the_diff_ids_of_upstreams_tree(
    fixture: tuple[Repo, Checksum], tmp_path: Path, strata: Strata
) -> None:
    repo, commit = fixture
    owner = upstream.components().owner
    mapping = {c: owner(path, c) for path, c in Tree.load(repo, commit).walk_files()}
    layers = {name: name for name in sorted(set(mapping.values()))}
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"version": 1, "mapping": mapping, "layers": layers}))
    target = f"oci:{tmp_path}/layout:image"
    command = ["image", "encapsulate", "--repo", str(repo.path), commit, target]
    told = json.loads(strata(*command, "--contentmeta", str(meta), "--json").stdout)
    components = [layer.get("ostree.components") for layer in told["layers"]]
    assert components == [None, *layers, ""]
    config = json.loads(run(["skopeo", "inspect", "--config", target]).stdout)
    assert config["rootfs"]["diff_ids"] == [f"sha256:{number}" for number in _DIFF_IDS]
    assert config["config"]["Labels"]["ostree.final-diffid"] == f"sha256:{_DIFF_IDS[-1]}"


@pytest.mark.parametrize("mode", ["bare-user", "archive"])
def test_there_and_back_gives_the_same_commit_and_layers(
    fixture: tuple[Repo, Checksum], tmp_path: Path, mode: str
) -> None:
    repo, commit = fixture
    layout = Layout.create(tmp_path / "layout")
    image = image_of(repo, commit, layout)
    layout.tag("image", image)
    reference = ImageReference("oci", str(layout.path), "image")
    target = Repo.init(tmp_path / "target", mode)
    with open_source(reference, architecture="x86_64") as source:
        result = import_image(source, target, reference=reference, reporter=silent())
    assert result.base_commit == commit
    run(["ostree", "fsck", "-q", f"--repo={target.path}"])
    again = image_of(target, commit, Layout.create(tmp_path / "again"))
    assert again == image


def test_what_a_file_system_does_not_take_is_named(
    fixture: tuple[Repo, Checksum], tmp_path: Path
) -> None:
    """The fixture's capability is text, which only a repository of another mode can hold."""
    repo, commit = fixture
    layout = Layout.create(tmp_path / "layout")
    layout.tag("image", image_of(repo, commit, layout))
    reference = ImageReference("oci", str(layout.path), "image")
    target = Repo.init(tmp_path / "target")
    with open_source(reference, architecture="x86_64") as source:
        with pytest.raises(ObjectError, match=r"does not take .* security.capability \(30 bytes\)"):
            import_image(source, target, reference=reference, reporter=silent())
    run(["ostree", "fsck", "-q", f"--repo={target.path}"])


def test_the_command_line_with_upstreams_contentmeta(
    fixture: tuple[Repo, Checksum], tmp_path: Path, strata: Strata
) -> None:
    repo, commit = fixture
    tree = Tree.load(repo, commit)
    owner = upstream.components().owner
    mapping = {checksum: owner(path, checksum) for path, checksum in tree.walk_files()}
    layers = {name: f"the {name}" for name in sorted(set(mapping.values()))}
    gone = next(c for c, name in mapping.items() if name == "filesystem")
    del mapping[gone]
    meta = tmp_path / "meta.json"
    meta.write_text(
        json.dumps({"version": 1, "mapping": mapping, "layers": layers, "labels": {"a": "b"}})
    )
    target = f"oci:{tmp_path}/layout:image"
    command = ["image", "encapsulate", "--repo", str(repo.path), "exampleos/x86_64/stable", target]
    options = ["--contentmeta", str(meta), "--label", "c=d", "--copymeta", "buildsys.checksum"]
    told = json.loads(strata(*command, *options, "--copymeta-opt", "nope", "--json").stdout)
    assert told["commit"] == commit
    inspected = json.loads(run(["skopeo", "inspect", "--config", target]).stdout)["config"]
    assert inspected["Labels"]["a"] == "b"
    assert inspected["Labels"]["c"] == "d"
    assert inspected["Labels"]["buildsys.checksum"].startswith("41af286d")
    components = [layer.get("ostree.components") for layer in told["layers"]]
    assert "the kernel" in components
    assert "unpackaged" in components
    for wrong, text in (
        (["--copymeta", "nope"], "the commit's metadata has no nope"),
        (["--label", "nope"], "is not KEY=VALUE"),
        (["--max-layers", "2"], "2 layers are too few"),
        (["--contentmeta", str(repo.path / "config")], "is not JSON"),
    ):
        done = strata(*command, *wrong, check=False)
        assert done.returncode in (2, 3, 11)
        assert text in done.stderr
    done = strata("image", "encapsulate", "--repo", str(repo.path), "nope", target, check=False)
    assert (done.returncode, "has no commit or ref nope" in done.stderr) == (13, True)


@pytest.mark.parametrize("compression", ["gzip", "gzip-fast", "zstd", "none"])
def test_the_compressor_changes_bytes_and_nothing_else(
    fixture: tuple[Repo, Checksum], tmp_path: Path, strata: Strata, compression: str
) -> None:
    repo, commit = fixture
    target = f"oci:{tmp_path}/{compression}:image"
    command = ["image", "encapsulate", "--repo", str(repo.path), commit, target]
    strata(*command, "--compression", compression)
    strata(*command[:-1], f"oci:{tmp_path}/other:image", "--compression", "gzip")
    configs = [
        json.loads(run(["skopeo", "inspect", "--config", f"oci:{tmp_path}/{name}:image"]).stdout)
        for name in (compression, "other")
    ]
    assert configs[0] == configs[1]
    Repo.init(tmp_path / "repo", "archive")
    imported = strata("image", "import", target, "--repo", str(tmp_path / "repo"), "--json").stdout
    assert json.loads(imported)["base_commit"] == commit


def test_sysroot_is_the_repositorys_in_an_image(tmp_path: Path, strata: Strata) -> None:
    """A folder of its own, empty: an image has it and not its dirtree, which no other folder has
    here. With something in it no image could carry the commit."""
    root = tmp_path / "root"
    for name in ("usr/lib", "sysroot"):
        (root / name).mkdir(parents=True)
    (root / "usr/lib/a").write_text("a")
    origin = Repo.init(tmp_path / "origin")
    for tag, inside in (("empty", ""), ("full", "ostree/repo/objects/00/x.file")):
        if inside:
            (root / "sysroot" / inside).parent.mkdir(parents=True)
            (root / "sysroot" / inside).write_text("x")
        with writing(origin, sync=False) as writer:
            writer.set_ref(tag, commit_directory(origin, writer, str(root), timestamp=1))
    image = f"oci:{tmp_path}/layout"
    at = ("image", "encapsulate", "--repo", str(origin.path))
    strata(*at, "empty", f"{image}:empty")
    node = Repo.init(tmp_path / "node")
    strata("image", "import", f"{image}:empty", "--repo", str(node.path))
    run(["ostree", "fsck", "-q", f"--repo={node.path}"])
    done = strata(*at, "full", f"{image}:full", check=False)
    assert done.returncode == 11
    assert "the commit has /sysroot/ostree, which no image of it could carry" in done.stderr


def test_what_cannot_be_encapsulated_leaves_no_layout(
    fixture: tuple[Repo, Checksum], tmp_path: Path, strata: Strata
) -> None:
    repo, commit = fixture
    at = ("image", "encapsulate", "--repo", str(repo.path))
    target = f"oci:{tmp_path}/layout"
    for arguments, text in (
        (("no-such-ref", f"{target}:x"), "no-such-ref"),
        ((commit, target), "names no tag"),
        ((commit, f"{target}:x", "--max-layers", "0"), "0 layers are too few"),
        ((commit, f"{target}:x", "--contentmeta", "none.json"), "none.json cannot be read"),
        ((commit, f"{target}:x", "--dry-run"), "cannot say what it would do"),
    ):
        done = strata(*at, *arguments, check=False)
        assert done.returncode > 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "layout").exists()


def test_a_dry_import_says_what_it_would_fetch(
    fixture: tuple[Repo, Checksum], tmp_path: Path, strata: Strata
) -> None:
    repo, commit = fixture
    image = f"oci:{tmp_path}/layout:x"
    strata("image", "encapsulate", "--repo", str(repo.path), commit, image)
    node = Repo.init(tmp_path / "node", "archive")
    at = ("image", "import", image, "--repo", str(node.path), "--json")
    before = sorted(node.path.rglob("*"))
    told = json.loads(strata(*at, "--dry-run").stdout)
    assert sorted(node.path.rglob("*")) == before
    done = json.loads(strata(*at).stdout)
    sizes = [(layer["digest"], layer["fetched_bytes"]) for layer in done["layers"]]
    assert [(layer["digest"], layer["fetched_bytes"]) for layer in told["layers"]] == sizes
    assert told["fetched_bytes"] == done["fetched_bytes"] > 0
    assert json.loads(strata(*at, "--dry-run").stdout)["fetched_bytes"] == 0
    for verb in (("copy", image, f"oci:{tmp_path}/b:x"), ("index", "create", f"{image}2", image)):
        refused = strata("image", *verb, "--dry-run", check=False)
        assert "cannot say what it would do" in refused.stderr
    assert not (tmp_path / "b").exists()
