"""What a build promises: nothing written twice, reasons named, bytes repeatable, layers kept."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from conftest import SAMPLE, Strata, copy_store, make_store
from strata.compose import osrelease
from strata.core.record import schema
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Index, Manifest
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

pytestmark = pytest.mark.tools


def manifest_of(store: Path, tag: str) -> tuple[Manifest, ImageConfig]:
    layout = Layout.open(store)
    index = Index.parse(layout.read(layout.resolve(tag)))
    manifest = Manifest.parse(layout.read(index.manifests[0]))
    return manifest, ImageConfig.parse(layout.read(manifest.config))


def snapshot(store: Path) -> dict[str, tuple[int, int]]:
    """Every file of the store that is not scratch or dnf's cache, with size and time."""
    found = {}
    for path in store.rglob("*"):
        top = path.relative_to(store).parts[0]
        if path.is_file() and top in ("blobs", "records", "locks", "index.json", "oci-layout"):
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def test_a_second_build_writes_nothing_and_says_what_it_compared(
    built_store: Path, strata: Strata
) -> None:
    before = snapshot(built_store)
    done = strata("-C", str(SAMPLE), "--store", str(built_store), "build", "node/4.19")
    assert snapshot(built_store) == before
    assert "node/4.19@sample-12: compared 1 base, 1 definition, 1 lock, 1 overlay," in done.stdout
    assert "2 treefiles" in done.stdout


def test_both_releases_share_the_base_digest(built_store: Path) -> None:
    records = [
        json.loads((built_store / f"records/node/{release}@sample-12.json").read_text())
        for release in ("4.19", "4.20")
    ]
    coreos = json.loads((built_store / "records/coreos/sample-12.json").read_text())
    assert {record["outputs"]["base"] for record in records} == {coreos["outputs"]["manifest"]}


def test_the_bases_layers_are_first_and_byte_identical(built_store: Path) -> None:
    base, _ = manifest_of(built_store, "coreos/sample-12")
    node, _ = manifest_of(built_store, "node/4.19@sample-12")
    assert node.layers[: len(base.layers)] == base.layers
    assert len(node.layers) > len(base.layers)


def test_r3_7_the_last_layer_is_only_the_package_list(built_store: Path) -> None:
    node, config = manifest_of(built_store, "node/4.19@sample-12")
    assert config.labels["io.openshift.metalayer"] == "true"
    blob = Layout.open(built_store).blob_path(node.layers[-1].digest)
    listing = subprocess.run(["tar", "tvzf", blob], capture_output=True, text=True, check=True)
    files = [line.split()[-1] for line in listing.stdout.splitlines() if line[0] != "d"]
    assert files == ["usr/share/openshift/base/meta.json"]
    text = subprocess.run(["tar", "xzOf", blob, files[0]], capture_output=True, check=True).stdout
    packages = json.loads(text)["rpmdb.pkglist"]
    assert packages == sorted(packages)
    assert ["containerd", "0"] in [row[:2] for row in packages]
    assert all(len(row) == 5 for row in packages)


def test_a_package_is_a_layer_of_its_own(built_store: Path) -> None:
    record = json.loads((built_store / "records/node/4.19@sample-12.json").read_text())
    titles = [layer["title"] for layer in record["outputs"]["node_layers"]]
    assert "kubernetes-client" in titles
    assert "containerd" in titles
    assert titles[-3:] == ["configuration", "rpmdb", "package list"]


@pytest.mark.parametrize(
    "tag", ["bootc/sample-12", "coreos/sample-12", "node/4.19@sample-12", "node/4.20@sample-12"]
)
def test_skopeo_reads_every_image_of_the_store(built_store: Path, tag: str) -> None:
    shown = subprocess.run(
        ["skopeo", "inspect", f"oci:{built_store}:{tag}"],
        capture_output=True,
        text=True,
        check=True,
    )
    labels = json.loads(shown.stdout)["Labels"]
    assert labels["containers.bootc"] == "1"
    assert labels["org.opencontainers.image.version"].startswith("12.9.")


def os_release(store: Path, commit: str) -> dict[str, str]:
    """The os-release of a commit, as the ostree tool reads it."""
    done = subprocess.run(
        ["ostree", f"--repo={store}/repo", "cat", commit, "/usr/lib/os-release"],
        capture_output=True,
        text=True,
        check=True,
    )
    return osrelease.parse(done.stdout)


def check_coreos_version(store: Path) -> str:
    """R2.2 and R2.3: what a CoreOS image calls itself is what its label says; returns it."""
    _, config = manifest_of(store, "coreos/sample-12")
    version = config.labels["org.opencontainers.image.version"]
    values = os_release(store, "coreos/sample-12")
    assert values["OSTREE_VERSION"] == values["IMAGE_VERSION"] == version
    assert values["VERSION"] == f"{version} (bookworm)"
    assert values["PRETTY_NAME"] == f"Debian GNU/Linux CoreOS {version} (bookworm)"
    assert (values["NAME"], values["VARIANT_ID"]) == ("Debian GNU/Linux CoreOS", "coreos")
    assert values["VERSION_ID"] == "12"
    return version


def test_r1_20_the_coreos_layer_says_what_boot_images_are_made_of(built_store: Path) -> None:
    repo = Repo.open(built_store / "repo")
    path = "usr/share/coreos-assembler/image.json"
    tree = Tree.load(repo, repo.rev_parse("coreos/sample-12"))
    checksum = tree.lookup(path)
    assert isinstance(checksum, str)
    with repo.open_content(checksum) as stream:
        found = json.loads(stream.read())
    assert found == {"extra-kargs": ["console=tty0", "console=ttyS0"], "size": 10}
    assert Tree.load(repo, repo.rev_parse("bootc/sample-12")).lookup(path) is None
    record = json.loads((built_store / "records/coreos/sample-12.json").read_text())
    assert "coreos/image.yaml" in [item["name"] for item in record["inputs"]]


def test_r2_2_the_coreos_layer_carries_its_version_and_the_bootc_layer_the_oss_own(
    built_store: Path,
) -> None:
    version = check_coreos_version(built_store)
    bootc = os_release(built_store, "bootc/sample-12")
    assert bootc["PRETTY_NAME"] == "Debian GNU/Linux 12 (bookworm)"
    assert not {"OSTREE_VERSION", "IMAGE_VERSION", "VARIANT_ID"} & set(bootc)
    # R2.11: the node image keeps its base's version.
    _, node = manifest_of(built_store, "node/4.19@sample-12")
    assert node.labels["org.opencontainers.image.version"] == version


@pytest.mark.parametrize("token_in", ["coreos", "bootc"])
def test_r2_2_a_new_version_of_the_coreos_layer_is_its_own(
    definitions: Path, own_store: Path, strata: Strata, token_in: str
) -> None:
    before = check_coreos_version(own_store)
    line = 'mutate-os-release: "12"\n'
    for layer in ("bootc", "coreos"):
        path = definitions / layer / "manifest.yaml"
        text = path.read_text().replace(line, "")
        path.write_text(text + (line if layer == token_in else ""))
    motd = definitions / "overlay.d/10coreos/etc/motd"
    motd.write_text("changed\n")
    common = ("-C", str(definitions), "--store", str(own_store))
    strata(*common, "build", "coreos/sample-12")
    motd.write_text("changed again\n")
    strata(*common, "build", "coreos/sample-12")
    assert check_coreos_version(own_store) != before
    label = manifest_of(own_store, "bootc/sample-12")[1].labels["org.opencontainers.image.version"]
    assert check_coreos_version(own_store) != label


def test_the_record_has_the_bytes_of_the_steps(built_store: Path) -> None:
    for target in ("coreos/sample-12", "node/4.19@sample-12"):
        record = json.loads((built_store / f"records/{target}.json").read_text())
        jsonschema.validate(record, dict(schema()))
        counted = {step["title"]: step["bytes"] for step in record["steps"]}
        step = "encapsulate" if target.startswith("coreos") else "write the node layers"
        assert 0 < counted[step] <= record["outputs"]["size_bytes"]


def test_ostree_finds_the_stores_repository_sound(built_store: Path) -> None:
    subprocess.run(["ostree", "fsck", f"--repo={built_store}/repo", "--quiet"], check=True)


def test_no_node_package_is_in_the_base(built_store: Path) -> None:
    for layer in ("bootc", "coreos"):
        lock = json.loads((built_store / f"locks/{layer}/sample-12.lock").read_text())
        names = {package["nevra"].rsplit("-", 2)[0] for package in lock["packages"]}
        assert not names & {"containerd", "runc", "kubernetes-client", "openvswitch-switch"}


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    """A copy of the sample's definitions, to change."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))


@pytest.fixture
def own_store(built_store: Path, tmp_path: Path) -> Path:
    """A copy of the built store (blobs and objects as hard links), to build into."""
    return copy_store(built_store, tmp_path)


def test_a_changed_line_rebuilds_that_layer_and_names_the_input(
    definitions: Path, own_store: Path, strata: Strata
) -> None:
    path = definitions / "node/manifest.yaml"
    path.write_text(path.read_text().replace('VERSION="4.19"', 'VERSION="4.19.1"'))
    common = ("-C", str(definitions), "--store", str(own_store), "--json")
    told = json.loads(strata(*common, "--dry-run", "build", "node/4.19").stdout)
    assert [row["status"] for row in told] == ["up to date", "up to date", "would build"]
    done = json.loads(strata(*common, "build", "node/4.19", "node/4.20").stdout)
    assert [row["status"] for row in done] == ["up to date", "up to date", "built", "up to date"]
    assert len(done[2]["changes"]) == 1
    assert done[2]["changes"][0].startswith("treefile node/manifest.yaml changed (")


def test_a_changed_package_leaves_the_other_layers_blobs(
    definitions: Path, own_store: Path, strata: Strata
) -> None:
    before, _ = manifest_of(own_store, "node/4.19@sample-12")
    path = definitions / "node/manifest.yaml"
    path.write_text(path.read_text().replace('VERSION="4.19"', 'VERSION="4.19.1"'))
    strata("-C", str(definitions), "--store", str(own_store), "build", "node/4.19")
    after, _ = manifest_of(own_store, "node/4.19@sample-12")
    moved = {layer.digest for layer in after.layers} - {layer.digest for layer in before.layers}
    assert len(moved) == 1  # the configuration: os-release


def test_a_published_base_needs_no_definitions_of_its_own(
    definitions: Path, built_store: Path, sample_repos: Path, tmp_path: Path, strata: Strata
) -> None:
    shutil.rmtree(definitions / "bootc")
    shutil.rmtree(definitions / "coreos")
    (definitions / "strata.toml").write_text(
        "schema = 1\n"
        'repos = ["sample.repo"]\n'
        "[stream.sample-12]\n"
        'version = "12.9"\n'
        'arches = ["x86_64"]\n'
        f'coreos = {{ from = "docker://registry.example/coreos@sha256:{"0" * 64}" }}\n'
        '[release."4.19".node.sample-12]\n'
        'primary = true\nbase = "stream"\ntreefile = "node/manifest.yaml"\n'
    )
    store = make_store(tmp_path / "other", sample_repos)
    base = f"oci:{built_store}:coreos/sample-12"
    strata("-C", str(definitions), "--store", str(store), "build", "node/4.19", "--base", base)
    here, _ = manifest_of(store, "node/4.19@sample-12")
    there, _ = manifest_of(built_store, "node/4.19@sample-12")
    assert [layer.digest for layer in here.layers] == [layer.digest for layer in there.layers]


def test_two_builds_of_the_base_are_bit_identical(
    built_store: Path, sample_repos: Path, tmp_path: Path, strata: Strata
) -> None:
    store = make_store(tmp_path / "again", sample_repos)
    strata("-C", str(SAMPLE), "--store", str(store), "build", "coreos/sample-12")
    for name in ("bootc", "coreos"):
        one = json.loads((built_store / f"records/{name}/sample-12.json").read_text())["outputs"]
        two = json.loads((store / f"records/{name}/sample-12.json").read_text())["outputs"]
        assert one == two


def test_verify_builds_again_and_compares_to_the_byte(own_store: Path, strata: Strata) -> None:
    common = ("-C", str(SAMPLE), "--store", str(own_store), "--json")
    before = json.loads((own_store / "records/coreos/sample-12.json").read_text())
    done = json.loads(strata(*common, "build", "coreos/sample-12", "--verify").stdout)
    assert [row["status"] for row in done] == ["built", "built"]
    after = json.loads((own_store / "records/coreos/sample-12.json").read_text())
    assert after["outputs"] == before["outputs"]
    # A build that reads what is not an input is found out.
    before["outputs"]["manifest"] = json.loads(
        (own_store / "records/bootc/sample-12.json").read_text()
    )["outputs"]["manifest"]
    (own_store / "records/coreos/sample-12.json").write_text(json.dumps(before))
    failed = strata(*common, "build", "coreos/sample-12", "--verify", check=False)
    assert failed.returncode == 10
    assert "was built again from the same inputs and its manifest differs" in failed.stderr
