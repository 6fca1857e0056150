"""What definitions need that is not public: repositories, images, secrets, with their lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.cli.main import main
from strata.compose.public import Need, needs
from strata.treefile.project import load_project
from strata.treefile.public import Public, is_prefix

pytestmark = pytest.mark.unit

DIGEST = "@sha256:" + "0" * 64
TOML = f"""\
schema = 1
repos = ["base/b.repo", "node/n.repo"]
public = ["https://mirror.example/10/", "registry.example/open"]
[stream.c10s]
version = "10.0"
arches = ["x86_64", "s390x"]
coreos = {{ build-args = "base/build-args.conf" }}
[stream.other-7]
version = "7.0"
arches = ["x86_64"]
bootc = {{ from = "docker://registry.example/closed/bootc{DIGEST}" }}
coreos = {{ treefile = "base/plain.yaml" }}
[release."5".node.c10s]
primary = true
treefile = "node/node.yaml"
containerfile = {{ file = "node/Containerfile", build-args = "node/build-args.conf" }}
extensions = "node/extensions.yaml"
[release."5".node.other-7]
base = "docker://registry.example/closed/base:7"
treefile = "node/node.yaml"
"""
NODE = """\
conditional-include:
  - if:
      - osversion != "centos-10"
      - osversion != "rhel-9.8"
    include:
      repos: [ENOEXIST]
  - if: osversion == "centos-10"
    include:
      repos:
        - os
        - secret
        - internal
packages: [agent]
lockfile-repos: [pool]
"""
FILES = {
    "base/build-args.conf": "# a variant\nID=centos\nNAME=os\nSTREAM=c10s\nDESCRIPTION=OS\n"
    f"VERSION=10.0\nMUTATE_OS_RELEASE=10\nBUILDER_IMG=registry.example/open/bootc:10{DIGEST}\n"
    "MANIFEST=manifest.yaml\nIMAGE_CONFIG=image.yaml\n",
    "base/manifest.yaml": "repos: [os]\npackages-s390x: [x]\ninclude: only-s390x.yaml\n",
    "base/only-s390x.yaml": "conditional-include:\n  - if: basearch == 's390x'\n"
    "    include: {repos: [ibm]}\n",
    "base/plain.yaml": "packages: [x]\nrepos: [local]\n",
    "base/Containerfile": "ARG BUILDER_IMG\nFROM $BUILDER_IMG\n"
    "RUN --mount=type=secret,id=yumrepos b\nFROM oci-archive:./out\n",
    "base/b.repo": "[os]\nbaseurl=https://mirror.example/10/os/$basearch\n[local]\nbaseurl=file:///r\n",
    "node/node.yaml": NODE,
    "node/n.repo": "[os]\nbaseurl=https://composes.example/os/$basearch\n"
    "[secret]\nbaseurl=https://me:hunter2@mirror.example/10/x\nsslclientkey=/k\npassword=p\n"
    "[pool]\nbaseurl=https://mirror.example/10/../pool\n",
    "node/Containerfile": "ARG IMAGE_FROM=overridden\nFROM ${IMAGE_FROM} as build\n"
    "RUN --mount=type=secret,id=yumrepos \\\n  /build\nFROM build\n"
    "RUN --mount=type=bind,from=strata,target=/run/strata x\n"
    "COPY --from=registry.example/opened /a /a\n",
    "node/build-args.conf": "\n# base\nIMAGE_FROM=registry.example/ci/base:10\n",
    "node/extensions.yaml": "repos:\n  - os\nextensions:\n  rt:\n    repos: [rt]\n"
    "    packages: [a]\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"strata.toml": TOML, **FILES}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def of(folder: Path) -> list[Need]:
    project = load_project(folder)
    return list(needs(project, project.targets(), folder / "store"))


def test_r3_16_all_that_is_not_public_is_listed_with_its_line(folder: Path) -> None:
    closed = "it is not declared public"
    assert of(folder) == [
        Need("image", "docker://registry.example/closed/base:7", "strata.toml:19", closed),
        Need("image", f"docker://registry.example/closed/bootc{DIGEST}", "strata.toml:11", closed),
        Need("image", "registry.example/ci/base:10", "node/build-args.conf:3", closed),
        # `registry.example/open` is no prefix of it
        Need("image", "registry.example/opened", "node/Containerfile:7", closed),
        # s390x alone asks for it
        Need("repository", "ibm", "base/only-s390x.yaml:3", "no .repo file defines it"),
        Need("repository", "internal", "node/node.yaml:12", "no .repo file defines it"),
        # public in the base's .repo file, another place in the node layer's
        Need(
            "repository",
            "os",
            "node/extensions.yaml:2",
            "https://composes.example/os/x86_64 (node/n.repo) is not declared public",
        ),
        Need(
            "repository",
            "os",
            "node/node.yaml:10",
            "https://composes.example/os/x86_64 (node/n.repo) is not declared public",
        ),
        Need(
            "repository",
            "pool",
            "node/node.yaml:14",
            "https://mirror.example/10/../pool (node/n.repo) is not declared public",
        ),
        Need("repository", "rt", "node/extensions.yaml:5", "no .repo file defines it"),
        Need(
            "repository",
            "secret",
            "node/node.yaml:11",
            "https://mirror.example/10/x (node/n.repo) is not declared public",
        ),
        Need(
            "secret",
            "sslclientkey, password",
            "node/node.yaml:11",
            "repository secret in node/n.repo has them",
        ),
        Need("secret", "yumrepos", "base/Containerfile:3", "a build mounts it"),
        Need("secret", "yumrepos", "node/Containerfile:3", "a build mounts it"),
        # R1.3: the guard is no repository to be had
        Need(
            "system",
            "other-7",
            "node/node.yaml:6",
            'the treefile knows no osversion "other-7"; ENOEXIST is there to fail',
        ),
    ]


def test_r3_16_the_command_fails_until_all_is_public(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-C", str(folder), "lint", "--public"]
    assert main([*command, "node/5"]) == 1
    out = capsys.readouterr().out
    assert "node/node.yaml:12: repository internal: no .repo file defines it\n" in out
    assert out.endswith("not public: 4 repositories, 2 images, 2 secrets\n")
    assert "hunter2" not in out
    assert main([*command, "coreos/c10s", "--json"]) == 1
    assert [need["kind"] for need in json.loads(capsys.readouterr().out)] == [
        "repository",
        "secret",
    ]
    (folder / "base/only-s390x.yaml").write_text("packages: [y]\n")
    (folder / "base/Containerfile").unlink()
    assert main([*command, "coreos/c10s"]) == 0
    assert capsys.readouterr().out == "not public: nothing\n"
    assert main([*command, "hotfix/a"]) == 2
    # without it, the targets that there are rules for are looked into
    assert main(["-C", str(folder), "lint", "coreos/c10s"]) == 2
    assert "there are no rules for coreos/c10s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prefix", "address", "public"),
    [
        ("https://m.example/", "https://m.example/a/b", True),
        ("https://M.example", "https://m.example", True),
        ("https://m.example/a", "https://m.example/a/b", True),
        ("https://m.example/a", "https://m.example/ab", False),
        ("https://m.example/", "http://m.example/a", False),
        ("https://m.example/", "https://m.example.evil.example/a", False),
        ("https://m.example/", "https://m.example@evil.example/a", False),
        ("https://m.example/a/", "https://m.example/a/../b", False),
        ("https://m.example/", "https://[/a", False),
        ("registry.example/a", "https://registry.example/a", False),
        ("registry.example/a", "file:///srv/a", True),
    ],
)
def test_addresses_are_public_by_whole_parts(prefix: str, address: str, public: bool) -> None:
    assert Public((prefix,)).has_address(address) is public


@pytest.mark.parametrize(
    ("prefix", "image", "public"),
    [
        ("registry.example", "registry.example/a:1", True),
        ("registry.example/", "docker://registry.example/a", True),
        ("registry.example", "registry.example:5000/a", False),
        ("registry.example:5000", "registry.example:5000/a", True),
        ("registry.example/a", "registry.example/a@sha256:0", True),
        ("registry.example/a", "registry.example/ab", False),
        ("https://registry.example/", "registry.example/a", False),
        ("registry.example/a", "oci-archive:./out.ociarchive", True),
        ("registry.example/a", "localhost/b", True),
        ("registry.example/a", "localhost.example/b", False),
        ("registry.example/a", "overridden", False),
    ],
)
def test_images_are_public_by_whole_parts(prefix: str, image: str, public: bool) -> None:
    assert Public((prefix,)).has_image(image) is public


@pytest.mark.parametrize("text", ["", "a b", "ftp://m.example/", "https://", "file:///x", "/x"])
def test_what_is_no_prefix_is_refused(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not is_prefix(text)
    toml = TOML.replace('"https://mirror.example/10/"', f'"{text}"')
    (folder / "strata.toml").write_text(toml)
    assert main(["-C", str(folder), "lint", "--public"]) == 3
    assert f"strata.toml:3: public has {text!r}" in capsys.readouterr().err
