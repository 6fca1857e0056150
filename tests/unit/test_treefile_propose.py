"""`strata init`: what is written somewhere is read off, what is not is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.cli.main import main
from strata.core.errors import DefinitionError
from strata.treefile.project import load_project
from strata.treefile.propose import propose

pytestmark = pytest.mark.unit


def build_args(stream: str, identity: str, version: str) -> str:
    image = f"registry.example/bootc:{version}@sha256:{'0' * 64}"
    return (
        f"ID={identity}\nNAME=os\nSTREAM={stream}\nDESCRIPTION=OS\nVERSION={version}\n"
        f"MUTATE_OS_RELEASE={version}\nBUILDER_IMG={image}\nMANIFEST=manifest-{stream}.yaml\n"
        "IMAGE_CONFIG=image.yaml\n"
    )


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A base's repository and a node layer's, side by side, as the field has them."""
    write(
        tmp_path,
        {
            "base/build-args-rhel-9.8.conf": build_args("rhel-9.8", "rhel", "9.8"),
            "base/build-args-c10s.conf": build_args("c10s", "centos", "10.0"),
            "base/manifest-rhel-9.8.yaml": "include: common.yaml\nrepos: [r]\n",
            "base/manifest-c10s.yaml": "packages: [a]\n",
            "base/common.yaml": "packages: [b]\n",
            "base/image.yaml": "size: 16\n",
            "base/c10s.repo": "[r]\nbaseurl=file:///x\n",
            "os/build-args-9.8-5.0.conf": "IMAGE_FROM=x\n",
            "os/build-args-c10s-5.0.conf": "IMAGE_FROM=x\n",
            "os/build-args-7.9-5.0.conf": "IMAGE_FROM=x\n",
            "os/packages-openshift.yaml": "packages:\n  - cri-o cri-tools\n  - openshift-clients\n",
            "os/Containerfile": "FROM x\n",
            "os/extensions/rhel-9.8.yaml": "extensions: {}\n",
            "os/extensions/centos-10.yaml": "extensions: {}\n",
        },
    )
    (tmp_path / "base/build-args.conf").symlink_to("build-args-c10s.conf")
    return tmp_path


def test_a_base_and_a_node_repository_go_together(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-C", str(two), "init", "--from", "base", "--from", "os"]
    assert main([*command, "--dry-run"]) == 0
    assert not (two / "strata.toml").exists()
    assert main(command) == 0
    project = load_project(two)
    assert {name: (s.version, s.coreos.build_args) for name, s in project.streams.items()} == {
        "rhel-9.8": ("9.8", "base/build-args-rhel-9.8.conf"),
        "c10s": ("10.0", "base/build-args-c10s.conf"),
    }
    nodes = {node.stream: node for node in project.nodes}
    assert sorted(nodes) == ["c10s", "rhel-9.8"]
    assert nodes["rhel-9.8"].treefile == "os/packages-openshift.yaml"
    assert nodes["rhel-9.8"].build_args == "os/build-args-9.8-5.0.conf"
    assert nodes["rhel-9.8"].extensions == "os/extensions/rhel-9.8.yaml"
    assert nodes["c10s"].extensions == "os/extensions/centos-10.yaml"
    assert [node.primary for node in nodes.values()].count(True) == 1
    assert project.node_only == ("cri-o", "cri-tools", "openshift-clients")
    assert project.marker == "openshift-clients"
    assert project.repos == ("base/c10s.repo",)
    shown = capsys.readouterr()
    assert "os/build-args-7.9-5.0.conf: no stream is called 7.9; left out" in shown.err
    # What is there is never written over.
    assert main(command) == 3
    assert "there is a strata.toml" in capsys.readouterr().err
    assert main([*command, "--dry-run", "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["text"]
    assert text == (two / "strata.toml").read_text()


def test_definitions_of_old_have_manifests_only(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            # what conditions ask for is the stream's name, wherever it is said
            "manifest-ocp-rhel-9.6.yaml": "include: [common.yaml, manifest-rhel-9.6.yaml]\n",
            "manifest-rhel-9.6.yaml": "variables: {osversion: rhel-9.6}\npackages: [a]\n",
            "manifest-okd-rhel-9.6.yaml": "variables: {osversion: rhel-9.6}\n",
            "manifest-c9s.yaml": "packages: [a]\n",
            "manifest-z9s.yaml": "include: circle.yaml\n",
            "circle.yaml": "include: circle.yaml\n",
            "common.yaml": "packages: [b]\n",
            "image-c9s.yaml": "size: 16\n",
            "kola-denylist.yaml": "- pattern: x\n",
        },
    )
    proposal = propose(tmp_path, [tmp_path])
    (tmp_path / "strata.toml").write_text(proposal.text)
    streams = load_project(tmp_path).streams
    assert {name: s.version for name, s in streams.items()} == {
        "rhel-9.6": "9.6",
        "c9s": "9.0",
        "z9s": "9.0",
    }
    assert streams["rhel-9.6"].coreos.treefile == "manifest-ocp-rhel-9.6.yaml"
    assert "stream c9s: its version, 9.0, is from its name" in proposal.notes
    assert "manifest-okd-rhel-9.6.yaml is of rhel-9.6 too; left out" in proposal.notes


@pytest.mark.parametrize(
    ("source", "message"),
    [("none", "there is no folder"), ("..", "is outside of"), (".", "there are no build-args")],
)
def test_what_is_no_definitions_is_named(tmp_path: Path, source: str, message: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(DefinitionError, match=message):
        propose(folder, [folder / source])
