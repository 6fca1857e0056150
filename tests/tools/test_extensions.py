"""Extensions of a node image: real packages, tested on the node, served to the real dnf."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import SAMPLE, Strata, copy_store
from rpmrepo import make_repository
from strata.container.stored import find_stored
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Index, Manifest
from strata.oci.reference import ImageReference
from strata.ostree.repo import Repo

pytestmark = pytest.mark.tools

TARGET = "extensions/4.19@sample-12"
NODE = "node/4.19@sample-12"


@pytest.fixture(scope="module")
def store(built_store: Path, tmp_path_factory: pytest.TempPathFactory, strata: Strata) -> Path:
    """A copy of the built store with the sample's extensions."""
    store = copy_store(built_store, tmp_path_factory.mktemp("extensions"))
    strata("-C", str(SAMPLE), "--store", str(store), "build", "extensions/4.19")
    return store


def record(store: Path, target: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / f"records/{target}.json").read_text())
    return found


def image(store: Path) -> tuple[Layout, Manifest, ImageConfig]:
    layout = Layout.open(store)
    index = Index.parse(layout.read(layout.tags()[TARGET]))
    manifest = Manifest.parse(layout.read(index.manifests[0]))
    return layout, manifest, ImageConfig.parse(layout.read(manifest.config))


def unpacked(store: Path, folder: Path) -> Path:
    """The image's files, by tar: the layers are plain ones."""
    layout, manifest, _ = image(store)
    folder.mkdir(exist_ok=True)
    for layer in manifest.layers:
        blob = layout.blob_path(layer.digest)
        subprocess.run(["tar", "-xf", blob, "-C", folder], check=True)
    return folder / "usr/share/rpm-ostree"


def test_r4_4_the_image_is_a_repository_with_its_list_as_the_last_layer(
    store: Path, tmp_path: Path
) -> None:
    layout, manifest, config = image(store)
    assert config.labels["io.openshift.os.extensions"] == "true"
    assert config.config["Entrypoint"] == ["/noentry"]
    node = record(store, NODE)["outputs"]
    assert config.labels["org.opencontainers.image.version"] == node["version"]
    last = layout.blob_path(manifest.layers[-1].digest)
    listing = subprocess.run(["tar", "-tvf", last], capture_output=True, text=True, check=True)
    files = [line.split()[-1] for line in listing.stdout.splitlines() if line[0] != "d"]
    assert files == ["usr/share/rpm-ostree/extensions.json"]
    folder = unpacked(store, tmp_path / "image")
    packages = {path.name for path in (folder / "extensions").glob("*.rpm")}
    query = ["dnf", "-q", "--repofrompath", f"x,file://{folder}/extensions", "--repo=x"]
    query += ["repoquery", "--queryformat", "%{name}-%{version}-%{release}.%{arch}.rpm"]
    env = {**os.environ, "HOME": str(tmp_path)}
    told = subprocess.run(query, capture_output=True, text=True, check=True, env=env)
    assert set(told.stdout.split()) == packages
    assert {
        path.name.rpartition("-")[2] for path in (folder / "extensions/repodata").iterdir()
    } == {
        *("repomd.xml", "primary.xml.gz", "filelists.xml.gz", "other.xml.gz"),
    }


def test_container_tools_copy_the_repository_out(store: Path, tmp_path: Path) -> None:
    # podman takes no run folder whose name is longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="strata-podman.") as storage:

        def podman(*arguments: str) -> str:
            at = ["--root", f"{storage}/root", "--runroot", f"{storage}/run"]
            command = ["podman", *at, "--storage-driver=vfs", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        pulled = podman("pull", "--quiet", f"oci:{store}:{TARGET}")
        podman("create", "--net=none", "--name=copied", pulled)
        podman("cp", "copied:/usr/share/rpm-ostree", str(tmp_path / "copy"))
    expected = unpacked(store, tmp_path / "image")
    subprocess.run(["diff", "-r", tmp_path / "copy", expected], check=True)


def test_r4_5_the_list_names_every_package_as_rpm_does(store: Path, tmp_path: Path) -> None:
    folder = unpacked(store, tmp_path / "image")
    listed = json.loads((folder / "extensions.json").read_bytes())
    form = "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\\n"
    rpms = [str(path) for path in (folder / "extensions").glob("*.rpm")]
    query = ["rpm", "-qp", "--nosignature", "--queryformat", form, *rpms]
    told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    assert listed == dict(line.split() for line in told.splitlines())
    assert listed["libsensors5"].startswith("1:")
    assert ":" not in listed["usbguard"]


def test_r4_7_the_record_says_which_node_image_they_are_for(store: Path) -> None:
    node = record(store, NODE)["outputs"]
    inputs = record(store, TARGET)["inputs"]
    assert {"kind": "base", "name": NODE, "digest": node["manifest"]} in inputs
    outputs = record(store, TARGET)["outputs"]
    assert outputs["base"] == node["manifest"]
    by_name = outputs["extensions"]
    assert set(by_name) == {"usbguard", "sysstat", "kernel-devel", "debug"}
    # A development extension brings what it names and nothing else; the others what they need.
    assert [nevra.rpartition("-6.")[0] for nevra in by_name["debug"]] == ["strace"]
    assert any(nevra.startswith("libsensors5-1:") for nevra in by_name["sysstat"])
    # What the node has already is not among them (R4.1: solved on the node).
    brought = [nevra for nevras in by_name.values() for nevra in nevras]
    assert not [nevra for nevra in brought if nevra.startswith(("libc6-", "bash-"))]


def test_two_builds_are_the_same_to_the_byte(
    store: Path, built_store: Path, tmp_path: Path, strata: Strata
) -> None:
    again = copy_store(built_store, tmp_path)
    before = os.umask(0o077)
    try:
        strata(
            *("-C", str(SAMPLE), "--store", str(again), "--jobs", "1"),
            *("build", "extensions/4.19"),
            TZ="Asia/Tokyo",
            LC_ALL="C",
            PYTHONHASHSEED="7",
        )
    finally:
        os.umask(before)
    assert record(again, TARGET)["outputs"] == record(store, TARGET)["outputs"]


# --- served --------------------------------------------------------------------------------------


@contextmanager
def serving(store: Path, *arguments: str) -> Iterator[dict[str, object]]:
    """`strata serve` on a free port of loopback; interrupted at the end, which is no error."""
    command = [str(Path(sys.executable).with_name("strata")), "-C", str(SAMPLE)]
    command += ["--store", str(store), "--json", "serve", "extensions/4.19", "--port", "0"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            text = "".join(iter(process.stdout.readline, "}\n")) + "}"
            yield json.loads(text)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0


def node_root(store: Path, root: Path) -> Path:
    """The node image's tree, copied out as a root to install into."""
    outputs = record(store, NODE)["outputs"]
    digest = Digest.parse(outputs["manifest"])
    stored = find_stored(Repo.open(store / "repo"), ImageReference("oci", str(store), "", digest))
    assert stored is not None
    checkout = ["ostree", f"--repo={store}/repo", "checkout", "--force-copy"]
    subprocess.run([*checkout, stored.commit, str(root)], check=True)
    (root / "etc").rmdir() if (root / "etc").is_dir() else None
    (root / "usr/etc").rename(root / "etc")
    return root


def test_r4_8_real_dnf_installs_an_extension_from_where_it_is_served(
    store: Path, tmp_path: Path
) -> None:
    root = node_root(store, tmp_path / "root")
    assert not (root / "usr/bin/usbguard").exists()
    home = tmp_path / "home"
    home.mkdir()
    (home / ".rpmmacros").write_text("%_dbpath /usr/lib/sysimage/rpm\n")
    with serving(store) as told:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", str(told["url"]))
        listed = Path(unpacked(store, tmp_path / "image") / "extensions.json").read_bytes()
        assert told["packages"] == len(json.loads(listed))
        done = subprocess.run(
            [
                *("dnf", "-y", f"--installroot={root}", "--setopt=reposdir=/dev/null"),
                *("--repofrompath", f"extensions,{told['url']}", "--repo=extensions"),
                *("--nogpgcheck", "--releasever=12", f"--setopt=cachedir={tmp_path}/cache"),
                *("install", "usbguard"),
            ],
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = ["rpm", f"--root={root}", "-q", "usbguard", "containerd"]
    found = subprocess.run(
        asked, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=True
    )
    assert found.stdout.split()[0].startswith("usbguard-1.")
    command = ["chroot", str(root), "/usr/bin/usbguard", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # it ends with 1
    assert "Usage: usbguard" in ran.stdout


def test_what_cannot_be_served_is_told(store: Path, built_store: Path, strata: Strata) -> None:
    common = ("-C", str(SAMPLE), "--store", str(built_store))
    done = strata(*common, "serve", "extensions/4.19", check=False)
    assert done.returncode == 11
    assert (
        f"{TARGET} is not in the store {built_store}\n  hint: strata build {TARGET}" in done.stderr
    )
    done = strata(*common, "serve", "node/4.19", check=False)
    assert done.returncode == 2
    assert f"{NODE} is no repository" in done.stderr
    done = strata(*common, "serve", "extensions/4.20", check=False)
    assert done.returncode == 2
    assert "node/4.20@sample-12 has no extensions file" in done.stderr


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of packages that make trouble."""
    folder = tmp_path_factory.mktemp("repos") / "mine"
    make_repository(
        folder,
        {
            "plain 1.0": "",
            "lib 1.0": "",
            "lib 2.0": "",
            "old 1.0": "Requires: lib = 1.0",
            "new 1.0": "Requires: lib = 2.0",
            "one 1.0": "Conflicts: other",
            "other 1.0": "",
            "unmet 1.0": "Requires: nothing-has-this",
            "clash 1.0": "",
            "bash 99": "",
        },
        files={"clash": "/usr/bin/kubectl"},
    )
    return folder


@pytest.fixture
def definitions(tmp_path: Path, mine: Path) -> Path:
    """A copy of the sample's definitions that knows the repository `mine`."""
    folder = Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))
    (folder / "mine.repo").write_text(f"[mine]\nbaseurl=file://{mine}\ngpgcheck=0\n")
    toml = folder / "strata.toml"
    toml.write_text(toml.read_text().replace('["sample.repo"]', '["sample.repo", "mine.repo"]'))
    return folder


def build(
    strata: Strata, definitions: Path, store: Path, extensions: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Build with another extensions file."""
    text = f"repos: [sample-12-extensions, mine]\nextensions:\n{extensions}"
    (definitions / "extensions/sample-12.yaml").write_text(text)
    common = ("-C", str(definitions), "--store", str(store))
    done = strata(*common, "build", "extensions/4.19", *arguments, check=False)
    assert "Traceback" not in done.stderr
    assert not list((store / "work").iterdir())
    return done


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        pytest.param(
            "  devel:\n    packages: [linux-libc-dev]\n    match-base-evr: bash\n",
            r"strata: extensions/sample-12\.yaml:4: extension devel needs linux-libc-dev in the "
            r"version of bash-5\.\S+, which is on the node; the repositories have "
            r"linux-libc-dev-6\.\S+\n  hint: match-base-evr asks for the same epoch, version and",
            id="R4.2 another version",
        ),
        pytest.param(
            "  devel:\n    packages: [nonesuch]\n    match-base-evr: bash\n",
            r"extension devel needs nonesuch in the version of bash-5\.\S+, which is on the node; "
            "no repository has it",
            id="R4.2 no version",
        ),
        pytest.param(
            "  devel:\n    packages: [plain]\n    match-base-evr: nonesuch\n",
            r"sample-12\.yaml:5: extension devel matches the version of nonesuch, and the node "
            "does not have it",
            id="R4.2 not on the node",
        ),
        pytest.param(
            "  shell:\n    packages: [plain, bash]\n",
            r"sample-12\.yaml:4: extension shell has bash, which is on the node already",
            id="on the node already",
        ),
        pytest.param(
            "  good:\n    packages: [plain]\n  bad:\n    packages: [nonesuch]\n",
            r"extension bad, extensions/sample-12\.yaml:5: no package is or provides nonesuch, "
            r"named at extensions/sample-12\.yaml:6\n",
            id="not found",
        ),
        pytest.param(
            "  good:\n    packages: [plain]\n  bad:\n    packages: [unmet]\n",
            r"extension bad, extensions/sample-12\.yaml:5: the packages do not go together: .*"
            "nothing provides nothing-has-this needed by unmet",
            id="unsolvable",
        ),
        pytest.param(
            "  a:\n    packages: [old]\n  b:\n    packages: [new]\n",
            r"extension a brings lib-1\.0-1\.noarch of mine, and extension b lib-2\.0-1\.noarch",
            id="R4.6 two builds",
        ),
        pytest.param(
            "  good:\n    packages: [plain]\n  bad:\n    packages: [clash]\n",
            r"extension bad, extensions/sample-12\.yaml:5, cannot be installed on the node: .*"
            r"file /usr/bin/kubectl (from install of clash-1\.0-1\.noarch )?conflicts",
            id="transaction test",
        ),
        pytest.param(
            "  far:\n    packages: [plain]\n    architectures: [s390x]\n",
            r"extensions/sample-12\.yaml has no extension for x86_64",
            id="no extension for the architecture",
        ),
        pytest.param(
            "  a:\n    packages: [plain]\n    repos: [elsewhere]\n",
            r"extensions/sample-12\.yaml:5: no repository is called elsewhere",
            id="unknown repository",
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_extension_and_leaves_nothing(
    definitions: Path, store: Path, strata: Strata, extensions: str, message: str
) -> None:
    before = record(store, TARGET), Layout.open(store).tags()[TARGET]
    done = build(strata, definitions, store, extensions)
    assert done.returncode in (3, 9)
    assert re.search(message, done.stderr), done.stderr[-2000:]
    assert (record(store, TARGET), Layout.open(store).tags()[TARGET]) == before


def test_each_extension_is_solved_and_tested_by_itself(
    definitions: Path, built_store: Path, tmp_path: Path, strata: Strata
) -> None:
    store = copy_store(built_store, tmp_path)
    # These exclude each other; a machine may have either. `bash` is taken along as it is on the
    # node, though a newer one is there (R4.2), and what only s390x has is left out (R4.1).
    text = (
        "  one:\n    packages: [one]\n"
        "  other:\n    packages: [other]\n"
        "  shell:\n    kind: development\n    packages: [bash]\n    match-base-evr: bash\n"
        "    repos: [sample-12-baseos]\n"
        "  far:\n    packages: [nonesuch]\n    architectures: [s390x]\n"
    )
    done = build(strata, definitions, store, text)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "not for x86_64: far" in done.stderr
    outputs = record(store, TARGET)["outputs"]
    by_name = outputs["extensions"]
    assert by_name["one"] == ["one-1.0-1.noarch"]
    assert by_name["other"] == ["other-1.0-1.noarch"]
    assert [nevra[:7] for nevra in by_name["shell"]] == ["bash-5."]
    # Another line of the file builds them again, and nothing below.
    common = ("-C", str(definitions), "--store", str(store), "--json")
    file = definitions / "extensions/sample-12.yaml"
    file.write_text(file.read_text().replace("[other]", "[other, plain]"))
    told = json.loads(strata(*common, "--dry-run", "build", "extensions/4.19").stdout)
    assert [row["status"] for row in told] == ["up to date"] * 3 + ["would build"]
    assert [change.partition(" changed")[0] for change in told[3]["changes"]] == [
        f"lock {TARGET}",
        "treefile extensions/sample-12.yaml",
    ]
    # A node image that is not there yet is told, and nothing is imported to find out more.
    (store / f"records/{NODE}.json").unlink()
    told = json.loads(strata(*common, "--dry-run", "build", "extensions/4.19").stdout)
    assert [row["status"] for row in told] == ["up to date"] * 2 + ["would build"] * 2
