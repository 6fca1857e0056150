"""What a build promises: nothing written twice, reasons named, bytes repeatable, layers kept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conftest import SAMPLE, Strata, make_store
from strata.core.record import schema
from strata.inspect.osrelease import parse
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Index, Manifest
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree
from strata.rpm.lock import LockFile

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
    # two definitions are the repositories; a treefile is the file of build arguments
    assert "node/4.19@sample-12: compared 1 base, 3 definitions, 1 lock, 1 overlay," in done.stdout
    assert "3 treefiles" in done.stdout


def test_r3_11_both_releases_share_the_base_digest(built_store: Path) -> None:
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
    return parse(done.stdout)


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


def document(repo: Repo, tree: Tree, path: str) -> Any:
    """A JSON file of a tree."""
    checksum = tree.lookup(path)
    assert isinstance(checksum, str)
    with repo.open_content(checksum) as stream:
        return json.loads(stream.read())


def test_r1_20_r1_21_the_coreos_layer_says_what_boot_images_are_made_of(built_store: Path) -> None:
    repo = Repo.open(built_store / "repo")
    tree = Tree.load(repo, repo.rev_parse("coreos/sample-12"))
    folder = "usr/share/coreos-assembler"
    kargs = ["console=tty0", "console=ttyS0"]
    assert document(repo, tree, f"{folder}/image.json") == {"extra-kargs": kargs, "size": 10}
    platforms = {"qemu": {"kernel_arguments": ["console=ttyS0"]}}
    assert document(repo, tree, f"{folder}/platforms.json") == platforms
    assert Tree.load(repo, repo.rev_parse("bootc/sample-12")).folder(folder) is None
    record = json.loads((built_store / "records/coreos/sample-12.json").read_text())
    named = {item["name"] for item in record["inputs"]}
    assert {"coreos/image.yaml", "coreos/platforms.yaml", "content-sets.yaml"} <= named


def test_r2_14_base_layers_say_their_content_sets(built_store: Path) -> None:
    repo = Repo.open(built_store / "repo")
    for layer in ("bootc", "coreos"):
        tree = Tree.load(repo, repo.rev_parse(f"{layer}/sample-12"))
        found = document(repo, tree, "usr/share/buildinfo/content_manifest.json")
        assert found["content_sets"] == ["sample-12-for-x86_64-baseos-rpms"]
        assert found["metadata"]["image_layer_index"] == 1


def test_r2_2_the_coreos_layer_carries_its_version_and_the_bootc_layer_the_oss_own(
    built_store: Path,
) -> None:
    check_coreos_version(built_store)
    bootc = os_release(built_store, "bootc/sample-12")
    assert bootc["PRETTY_NAME"] == "Debian GNU/Linux 12 (bookworm)"
    assert not {"OSTREE_VERSION", "IMAGE_VERSION", "VARIANT_ID"} & set(bootc)


def test_r2_10_r2_11_a_base_image_says_what_it_is_and_the_node_image_keeps_it(
    built_store: Path,
) -> None:
    _, coreos = manifest_of(built_store, "coreos/sample-12")
    version = coreos.labels["org.opencontainers.image.version"]
    said = {
        "containers.bootc": "1",
        "ostree.bootable": "1",
        "org.opencontainers.image.title": "Debian GNU/Linux CoreOS 12.9",
        "org.opencontainers.image.description": "Debian GNU/Linux CoreOS 12.9",
        "com.coreos.osname": "sample-coreos",
        "com.coreos.stream": "sample-12",
        "io.openshift.build.versions": f"machine-os={version}",
        "io.openshift.build.version-display-names": "machine-os=Debian GNU/Linux CoreOS 12.9",
    }
    assert said.items() <= coreos.labels.items()
    assert re.fullmatch("[0-9a-f]{64}", coreos.labels["com.coreos.inputhash"])
    assert coreos.labels["strata.target"] == "coreos/sample-12"
    _, node = manifest_of(built_store, "node/4.19@sample-12")
    own = {
        "strata.target": "node/4.19@sample-12",
        "io.openshift.metalayer": "true",
        "io.openshift.os.streamclass": "debian-12",  # R3.10
        "architecture": "amd64",  # R3.9, this and what follows
        "cpe": "cpe:/a:sample:node",
        "name": "sample/node",
        "org.opencontainers.image.created": node.created,
    }
    assert node.labels == {**coreos.labels, **own}
    for config in (coreos, node):
        assert config.config["Cmd"] == ["/sbin/init"]
        assert config.config["StopSignal"] == "SIGRTMIN+3"
    _, bootc = manifest_of(built_store, "bootc/sample-12")
    assert bootc.labels["org.opencontainers.image.title"] == "Debian GNU/Linux 12.9"
    assert "io.openshift.build.versions" not in bootc.labels


@pytest.mark.parametrize("token_in", ["coreos", "bootc"])
def test_r2_2_a_new_version_of_the_coreos_layer_is_its_own(
    definitions: Path, own_store: Path, strata: Strata, token_in: str
) -> None:
    before = check_coreos_version(own_store)
    line = 'mutate-os-release: "12"\n'
    for layer in ("bootc", "coreos"):
        path = definitions / layer / "manifest.yaml"
        text = path.read_text().replace(line, "")
        if layer == "coreos":
            text += "  - |\n    #!/usr/bin/bash\n    . /usr/lib/os-release\n"
            text += "    echo $OSTREE_VERSION > /usr/lib/seen\n"
        path.write_text(text + (line if layer == token_in else ""))
    motd = definitions / "overlay.d/10coreos/etc/motd"
    motd.write_text("changed\n")
    common = ("-C", str(definitions), "--store", str(own_store))
    strata(*common, "build", "coreos/sample-12")
    motd.write_text("changed again\n")
    strata(*common, "build", "coreos/sample-12")
    version = check_coreos_version(own_store)
    assert version != before
    # R2.1: the scripts come after it.
    seen = ["ostree", f"--repo={own_store}/repo", "cat", "coreos/sample-12", "/usr/lib/seen"]
    assert subprocess.run(seen, capture_output=True, text=True, check=True).stdout == f"{version}\n"
    label = manifest_of(own_store, "bootc/sample-12")[1].labels["org.opencontainers.image.version"]
    assert version != label


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
        locks = LockFile.load(built_store / f"locks/{layer}/sample-12.lock").locks
        names = {package.nevra.name for lock in locks.values() for package in lock.packages}
        assert len(names) > 20
        assert not names & {"containerd", "runc", "kubernetes-client", "openvswitch-switch"}


def test_r3_2_r3_5_r3_6_a_node_image_has_its_packages_and_nothing_of_its_build(
    built_store: Path, strata: Strata
) -> None:
    node = f"oci:{built_store}:node/4.19@sample-12"
    listed = strata("image", "ls", node, "--json").stdout
    files = json.loads(listed)["files"]
    for command in ("kubectl", "containerd", "runc", "ovs-vsctl"):
        assert f"/usr/bin/{command}" in files or f"/usr/sbin/{command}" in files
    # no repository comes in from the build, no lock or backup file stays, /var is a machine's
    assert not [path for path in files if path.startswith("/etc/yum.repos.d/")]
    left = ("/etc/.pwd.lock", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-")
    assert not [path for path in left if path in files]
    kinds = {file["type"] for path, file in files.items() if path.startswith("/var/")}
    assert kinds <= {"dir"}
    # what packages want there is told to tmpfiles.d
    assert "/usr/lib/tmpfiles.d/openvswitch.conf" in files
    assert "/usr/lib/tmpfiles.d/strata-var-node.conf" in files


def test_a_changed_line_rebuilds_that_layer_and_names_the_input(
    definitions: Path, own_store: Path, strata: Strata
) -> None:
    path = definitions / "node/manifest.yaml"
    path.write_text(path.read_text().replace('"4.19"', '"4.19.1"'))
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
    path.write_text(path.read_text().replace('"4.19"', '"4.19.1"'))
    strata("-C", str(definitions), "--store", str(own_store), "build", "node/4.19")
    after, _ = manifest_of(own_store, "node/4.19@sample-12")
    moved = {layer.digest for layer in after.layers} - {layer.digest for layer in before.layers}
    assert len(moved) == 1  # the configuration: os-release


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "echo 'OPENSHIFT_VERSION=",
            "sed -i 's/^ID=.*/ID=node/' /usr/lib/os-release\n    echo 'OPENSHIFT_VERSION=",
            "the node layer changes the base's os-release: ID is 'node', in the base 'debian'",
        ),
        (
            'OPENSHIFT_VERSION="4.19"',
            'OPENSHIFT_VERSION="4.18"',
            "OPENSHIFT_VERSION in os-release is 4.18, and the treefile's ocp_version is 4.19",
        ),
    ],
    ids=["changes", "differs"],
)
def test_r2_4_r1_10_a_node_layer_says_the_products_version_and_no_more(
    definitions: Path, own_store: Path, strata: Strata, old: str, new: str, problem: str
) -> None:
    path = definitions / "node/manifest.yaml"
    path.write_text(path.read_text().replace(old, new))
    before = (own_store / "index.json").read_bytes()
    common = ("-C", str(definitions), "--store", str(own_store))
    done = strata(*common, "build", "node/4.19", check=False)
    assert done.returncode == 3
    assert problem in done.stderr
    assert "os-release is written by the scripts at node/manifest.yaml:" in done.stderr
    assert (own_store / "index.json").read_bytes() == before


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
        'containerfile = { file = "node/Containerfile", build-args = "node/build-args.conf" }\n'
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
    """R0.2, R2, R3: every layer of the sample is the same bits under other conditions."""
    common = ("-C", str(SAMPLE), "--store", str(own_store), "--json")
    targets = ("bootc/sample-12", "coreos/sample-12", "node/4.19@sample-12")
    before = {name: (own_store / f"records/{name}.json").read_bytes() for name in targets}
    done = json.loads(strata(*common, "build", *targets, "--verify").stdout)
    assert [row["target"] for row in done] == [*targets]
    for row in done:
        assert row["verified"]["equal"]
        assert row["verified"]["actual"]["manifest"] == row["outputs"]["manifest"]
    assert {name: (own_store / f"records/{name}.json").read_bytes() for name in targets} == before
    # A build that is not what its inputs give is found out.
    bootc, coreos = (json.loads(before[name]) for name in targets[:2])
    bootc["outputs"]["manifest"] = coreos["outputs"]["manifest"]
    (own_store / "records/bootc/sample-12.json").write_text(json.dumps(bootc))
    failed = strata(*common, "build", "bootc/sample-12", "--verify", check=False)
    assert failed.returncode == 10
    assert "was built again from the same inputs and its manifest differs" in failed.stderr
    told = json.loads(failed.stderr.splitlines()[-1])["context"]["verified"]["differences"]
    assert ("/usr/bin/podman", "removed") in [(row["path"], row["what"]) for row in told]
