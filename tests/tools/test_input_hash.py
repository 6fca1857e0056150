"""The input hash of a base layer: what upstream's does not see changes it, and nothing else does
(R2.12). Nothing is installed: the layers have no packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from strata.compose.base import BaseJob, next_version_of, prepare_base
from strata.compose.context import BuildContext
from strata.compose.labels import Identity, input_hash
from strata.compose.workspace import Workspace
from strata.core.events import silent
from strata.core.record import Input
from strata.treefile.project import load_project
from strata.treefile.target import Target

pytestmark = pytest.mark.tools

FILES = {
    "strata.toml": """\
schema = 1
repos = ["r.repo"]
[stream.s-1]
version = "1.2"
arches = ["x86_64"]
coreos = { treefile = "coreos.yaml" }
bootimages = { config = "image.yaml", formats = ["qcow2"] }
tag = "coreos"
""",
    "r.repo": "[r]\nname=r\nbaseurl=file://$store/r\ngpgcheck=0\npriority=9\n",
    "coreos.yaml": """\
repos: [r]
ostree-layers: [overlay/10]
check-passwd: { type: file, filename: passwd }
check-groups: { type: file, filename: group }
add-files:
  - [tool, /usr/bin/tool]
postprocess:
  - echo one
""",
    "image.yaml": "size: 16\nextra-kargs: [quiet]\n",
    "passwd": "root:x:0:0:::\n",
    "group": "root:x:0:\n",
    "tool": "tool\n",
    "overlay.d/10/etc/file": "content\n",
    "overlay.d/10/statoverride": "=288 /etc/secret\n",
    "overlay.d/10/etc/secret": "secret\n",
}


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    folder = tmp_path / "definitions"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "overlay.d/10/etc/link").symlink_to("file")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with an empty repository, and the same in another place."""
    made = tmp_path / "store"
    (made / "r").mkdir(parents=True)
    subprocess.run(["createrepo_c", "-q", "--revision", "1700000000", made / "r"], check=True)
    shutil.copytree(made / "r", made / "moved")
    return made


def prepared(definitions: Path, store: Path, *, dev: bool = False) -> BaseJob:
    workspace = Workspace.create(store)
    context = BuildContext(load_project(definitions), workspace, "x86_64", 1, dev)
    return prepare_base(context, Target("coreos", "s-1"), silent())


def hashed(definitions: Path, store: Path) -> str:
    return input_hash(prepared(definitions, store).inputs)


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def relink(folder: Path) -> None:
    link = folder / "overlay.d/10/etc/link"
    link.unlink()
    link.symlink_to("secret")


SEEN: dict[str, Callable[[Path], object]] = {
    "a file's path": lambda d: (d / "overlay.d/10/etc/file").rename(d / "overlay.d/10/etc/other"),
    "a file's executable bit": lambda d: (d / "overlay.d/10/etc/file").chmod(0o755),
    "a mode beyond it": edit("overlay.d/10/statoverride", "=288", "=256"),
    "a link's target": relink,
    "an empty folder": lambda d: (d / "overlay.d/10/usr").mkdir(),
    "a file's content": edit("overlay.d/10/etc/file", "content", "CONTENT"),
    "where a repository is": edit("r.repo", "$store/r", "$store/moved"),
    "a repository's priority": edit("r.repo", "priority=9", "priority=8"),
    "a repository's signatures": edit("r.repo", "gpgcheck=0", "gpgcheck=1"),
    "a kernel argument": edit("image.yaml", "quiet", "debug"),
    "a user": edit("passwd", ":0:0:", ":0:1:"),
    "an added file": edit("tool", "tool", "TOOL"),
    "an added file's executable bit": lambda d: (d / "tool").chmod(0o755),
    "a script": edit("coreos.yaml", "echo one", "echo two"),
    "the release": edit("strata.toml", '"1.2"', '"1.3"'),
    "labels": edit("strata.toml", "tag =", "version-labels = true\ntag ="),
}
UNSEEN: dict[str, Callable[[Path], object]] = {
    "times": lambda d: os.utime(d / "overlay.d/10/etc/file", (1, 1)),
    "modes that git does not keep": lambda d: (d / "overlay.d/10/etc/file").chmod(0o600),
    "a tag": edit("strata.toml", '"coreos"', '"other"'),
    "another stream": lambda d: (d / "strata.toml").write_text(
        FILES["strata.toml"] + '[stream.t]\nversion = "2.0"\narches = ["x86_64"]\n'
        'coreos = { treefile = "coreos.yaml" }\n'
    ),
    "a comment of a .repo file": edit("r.repo", "[r]", "# ours\n[r]"),
    "where the definitions are": lambda d: None,
}


@pytest.mark.parametrize("what", SEEN)
def test_r2_12_the_input_hash_sees(definitions: Path, store: Path, what: str) -> None:
    before = hashed(definitions, store)
    SEEN[what](definitions)
    assert hashed(definitions, store) != before


@pytest.mark.parametrize("what", UNSEEN)
def test_r2_12_the_input_hash_does_not_follow(definitions: Path, store: Path, what: str) -> None:
    before = hashed(definitions, store)
    UNSEEN[what](definitions)
    elsewhere = definitions.rename(definitions.parent / "elsewhere")
    assert hashed(elsewhere, store) == before


def test_r2_12_where_the_store_is_does_not_count(
    definitions: Path, store: Path, tmp_path: Path
) -> None:
    before = hashed(definitions, store)
    assert hashed(definitions, store.rename(tmp_path / "another")) == before


def test_r2_6_what_a_developer_builds_is_no_release(definitions: Path, store: Path) -> None:
    release, dev = (prepared(definitions, store, dev=flag) for flag in (False, True))
    assert next_version_of(release, None) == "1.2.20231114-0"
    assert next_version_of(dev, None, dev=True) == "1.2.20231114-0.dev"
    # The release after it is built anew, and is not the developer's image under its own name.
    assert set(dev.inputs) - set(release.inputs) == {Input("definition", "developer build", ".dev")}


def test_r1_18_r2_10_a_build_args_file_says_what_the_system_is(
    definitions: Path, store: Path
) -> None:
    edit("strata.toml", '{ treefile = "coreos.yaml" }', '{ build-args = "args.conf" }')(definitions)
    edit("strata.toml", "bootimages", "#")(definitions)
    (definitions / "args.conf").write_text(
        "ID=rhel\nNAME=rhcos\nSTREAM=rhel-1.2\nDESCRIPTION=RHEL CoreOS 1.2\nVERSION=1.2\n"
        f"MUTATE_OS_RELEASE=1.2\nBUILDER_IMG=registry.example/b:1@sha256:{'0' * 64}\n"
        "MANIFEST=coreos.yaml\nIMAGE_CONFIG=image.yaml\nINJECT_OPENSHIFT_VERSION_LABELS=1\n"
    )
    (definitions / "platforms.yaml").write_text("x86_64: { qemu: {} }\n")
    (definitions / "live").mkdir()
    job = prepared(definitions, store)
    assert job.identity == Identity("rhcos", "rhel-1.2", "RHEL CoreOS 1.2", version_labels=True)
    assert job.boot.image["size"] == 16
    assert job.boot.platforms == {"qemu": {}}
    assert job.boot.live == definitions / "live"
