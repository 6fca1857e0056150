"""strata.toml: what it says, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core.errors import DefinitionError, UsageError
from strata.treefile.project import load_project, parse_project
from strata.treefile.target import Target

pytestmark = pytest.mark.unit

SAMPLE = Path(__file__).parents[2] / "definitions" / "sample"

FULL = """\
schema = 1
repos = ["my.repo"]
registry = "docker://registry.example/sample"
node-only = ["containerd", "openvswitch-*"]
marker = "kubernetes-client"
[stream.s-1]
version = "1.2"
arches = ["x86_64", "aarch64"]
bootc = { from = "docker://registry.example/bootc@sha256:%s" }
coreos = { build-args = "args.conf" }
lock = "locks/s-1.lock"
tag = "coreos-{version}"
bootimages = { config = "image.yaml", formats = ["qcow2"] }
[release."4.19".node.s-1]
primary = true
base = "stream"
treefile = "node.yaml"
containerfile = { file = "Containerfile", build-args = "args.conf" }
extensions = "extensions.yaml"
payload-tag = "rhel-coreos"
tag = "4.19-{stream-version}-node-image"
[[override]]
target = "node/4.19@s-1"
packages = ["crun-1.8.1-1"]
reason = "BUG-1234"
[[hotfix]]
name = "case-0042"
target = "node/4.19@s-1"
files = { "/usr/bin/kubectl" = "kubectl" }
expires = 2027-03-31
reason = "customer case 42"
""" % ("ab" * 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("my.repo", "args.conf", "image.yaml", "node.yaml", "Containerfile"):
        (tmp_path / name).write_text("")
    for name in ("extensions.yaml", "kubectl"):
        (tmp_path / name).write_text("")
    return tmp_path


def test_the_whole_schema_is_read(folder: Path) -> None:
    project = parse_project(FULL, folder)
    stream = project.stream("s-1")
    assert stream.arches == ("x86_64", "aarch64")
    assert stream.bootc is not None
    assert stream.bootc.image.startswith("docker://registry.example/bootc@sha256:abab")
    assert stream.coreos.build_args == "args.conf"
    node = project.node(Target.parse("node/4.19"))
    assert (node.containerfile, node.extensions) == ("Containerfile", "extensions.yaml")
    assert project.overrides[0].target == Target("node", "4.19", "s-1")
    assert project.hotfixes[0].files == {"/usr/bin/kubectl": "kubectl"}
    assert str(project.hotfixes[0].expires) == "2027-03-31"


DESIGN = """\
schema = 1
repos = ["sample.repo"]                        # repository ids are named by the treefiles
registry = "docker://registry.example/sample"  # for publish only
node-only = ["containerd", "kubernetes-client", "openvswitch-*"]  # refused in bootc, coreos and boot images
marker = "kubernetes-client"                   # absent from the booted rpmdb → overlay (OpenShift: openshift-clients)
[stream.sample-12]                             # versioned with the OS, shared by releases
version = "12.9"                               # X.Y of X.Y.YYYYMMDD-N
arches = ["x86_64", "aarch64"]
bootc = { treefile = "bootc/manifest.yaml" }   # or { from = "docker://…@sha256:…" }; absent = two-layer
coreos = { treefile = "coreos/manifest.yaml" } # or { build-args = "build-args-rhel-9.8.conf" }: never repeated here
lock = "locks/sample-12.lock"
tag = "coreos-{version}"                       # moving; a unique full-version tag is always added
bootimages = { config = "coreos/image.yaml", formats = ["qcow2", "live-iso", "pxe"] }
[release."4.19".node.sample-12]                # one table per node stream of a release
primary = true                                 # exactly one per release
base = "stream"                                # or an image reference: the two definitions may live in two repositories
treefile = "node/manifest.yaml"
containerfile = { file = "node/Containerfile", build-args = "node/build-args-12-4.19.conf" }
extensions = "extensions/sample-12.yaml"
payload-tag = "rhel-coreos"                    # extensions add "-extensions"
tag = "4.19-{stream-version}-node-image"
[release."4.20".node.sample-12]                # a second release on the same base digest
primary = true
treefile = "node/manifest-4.20.yaml"
[[override]]                                   # OS content ahead of the base; its debt is computed
target = "node/4.19@sample-12"
packages = ["crun-1.8.1-1"]
reason = "BUG-1234, not in the base yet"
[[hotfix]]
name = "case-0042"
target = "node/4.19@sample-12"
files = { "/usr/bin/kubectl" = "hotfix/kubectl" }  # or packages = […]
expires = 2027-03-31
reason = "customer case 42"
"""  # noqa: E501 -- the design's own example, as it stands there


def test_the_designs_example_is_read_as_it_stands(tmp_path: Path) -> None:
    for name in (
        "sample.repo",
        "bootc/manifest.yaml",
        "coreos/manifest.yaml",
        "coreos/image.yaml",
        "node/manifest.yaml",
        "node/manifest-4.20.yaml",
        "node/Containerfile",
        "node/build-args-12-4.19.conf",
        "extensions/sample-12.yaml",
        "hotfix/kubectl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    project = parse_project(DESIGN, tmp_path)
    second = project.node(Target.parse("node/4.20"))
    assert (second.stream, second.base, second.primary) == ("sample-12", "stream", True)
    assert project.node(Target.parse("node/4.19@sample-12")).base == "stream"


def test_the_sample_is_read_and_its_releases_share_a_stream() -> None:
    project = load_project(SAMPLE)
    assert [str(target) for target in project.targets()] == [
        "bootc/sample-12",
        "coreos/sample-12",
        "node/4.19@sample-12",
        "extensions/4.19@sample-12",
        "node/4.20@sample-12",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("marker =", "markr =", "strata.toml:5: markr is not a key", "did you mean marker?"),
        ('"1.2"', '"1"', "strata.toml:7: stream.s-1.version must be X.Y", None),
        ('"aarch64"', '"arm"', "strata.toml:8: stream.s-1.arches has 'arm'", None),
        ("@sha256:" + "ab" * 32, ":latest", "strata.toml:9: stream.s-1.bootc must name", None),
        ('"args.conf" }\nlock', '"no.conf" }\nlock', "strata.toml:10: stream.s-1.coreos", None),
        ('"my.repo"', '"../x"', "strata.toml:2: repos leads out of the definitions", None),
        ("primary = true", "primary = false", "strata.toml:14: release.4.19 has 0 primary", None),
        ("primary = true", "primary = 1", "strata.toml:15: ", None),
        ("node.s-1]", "node.s-2]", "is for a stream that is not defined; known: s-1", None),
        ('target = "node/4.19@s-1"\npackages', 'target = "node/5"\npackages', ":23: ", None),
        ('files = { "/usr/bin/kubectl" = "kubectl" }\n', "", "hotfix.0 changes nothing", None),
        ("expires = 2027-03-31", 'expires = "soon"', "hotfix.0.expires must be date", None),
        ("schema = 1", "schema = 2", "strata.toml:1: schema must be 1", None),
        ("[stream.s-1]", "[stream.s-1", "strata.toml:6:", None),
        ('treefile = "node.yaml"\n', "", "needs the key treefile", None),
        ("marker =", "marker = " + "[" * 5000, "strata.toml:5:42: arrays and", None),
        ("schema = 1", "schema = " + "1" * 5000, "strata.toml:1:10: this number has too", None),
        ("[[override]]", '[""]\n[[override]]\nx = 1', "is not a key of strata.toml", None),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    folder: Path, old: str, new: str, message: str, hint: str | None
) -> None:
    assert old in FULL
    with pytest.raises(DefinitionError) as caught:
        parse_project(FULL.replace(old, new, 1), folder)
    assert message in caught.value.message
    if hint:
        assert caught.value.hint == hint


def test_a_folder_without_definitions_says_where_to_say_where(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        load_project(tmp_path)
    assert caught.value.message == f"there is no strata.toml in {tmp_path}"
    assert caught.value.hint == "say where the definitions are with -C DIR"


def test_unknown_targets_name_those_that_exist(folder: Path) -> None:
    project = parse_project(FULL, folder)
    with pytest.raises(UsageError) as caught:
        project.node(Target.parse("node/4.18"))
    assert caught.value.hint == "strata.toml has: node/4.19@s-1"
    with pytest.raises(UsageError, match="there is no stream s-9"):
        project.canonical(Target.parse("coreos/s-9"))


@pytest.mark.parametrize(
    "text", ["bootc/s", "coreos/s", "bootimage/s:qcow2", "node/4.19", "node/4.19@s", "hotfix/x"]
)
def test_targets_read_and_write_the_same(text: str) -> None:
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize("text", ["", "node", "kernel/x", "bootimage/s", "coreos/s@t", "node/../x"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a target"):
        Target.parse(text)


def test_a_target_depends_only_on_its_own_lines(folder: Path) -> None:
    project = parse_project(FULL, folder)
    other = parse_project(FULL.replace("rhel-coreos", "coreos"), folder)
    node, coreos = Target("node", "4.19", "s-1"), Target("coreos", "s-1")
    assert project.definition_digest(node) != other.definition_digest(node)
    assert project.definition_digest(coreos) == other.definition_digest(coreos)
