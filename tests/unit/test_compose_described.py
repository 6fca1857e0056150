"""What a base tree says of itself: boot files, content sets, and what it must say of composefs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from strata.compose.bootfiles import beside, read_boot_files
from strata.compose.composefs import check_composefs
from strata.compose.contentmanifest import read_content_sets, write_content_manifest
from strata.core.errors import DefinitionError
from strata.treefile.project import parse_project

pytestmark = pytest.mark.unit

ASSEMBLER = "usr/share/coreos-assembler"
PLATFORMS = """\
x86_64:
  aws:
    kernel_arguments: [console=tty0, "console=ttyS0,115200n8"]
    grub_commands: [serial --speed=115200]
aarch64:
  azure:
    kernel_arguments: [console=ttyAMA0]
"""


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    folder = tmp_path / "definitions"
    (folder / "live/isolinux").mkdir(parents=True)
    (folder / "image.yaml").write_text("size: 16\nname: os-{stream}\n")
    (folder / "platforms.yaml").write_text(PLATFORMS)
    (folder / "live/zipl.prm").write_text("one\n")
    (folder / "live/isolinux/boot.msg").write_text("two\n")
    (folder / "live/isolinux/boot.msg").chmod(0o600)
    return folder


def boot(folder: Path, arch: str, root: Path, **names: str) -> list[str]:
    """Write the boot files into a root; returns the names of what was read."""
    given = {"config": "image.yaml", "platforms": "platforms.yaml", "live": "live", **names}
    found = read_boot_files(folder, stream="s", arch=arch, **given)
    found.write(root, arch)
    assert all(of.digest.startswith("sha256:") for of in found.inputs)
    return [of.name for of in found.inputs]


def test_r1_20_r1_21_a_tree_has_what_makers_of_boot_images_look_for(
    definitions: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    assert boot(definitions, "x86_64", root) == ["image.yaml", "platforms.yaml", "live"]
    top = root / ASSEMBLER
    assert json.loads((top / "image.json").read_text()) == {"size": 16, "name": "os-s"}
    # Indented, sorted, a line's end: upstream's form.
    assert (top / "platforms.json").read_text() == (
        '{\n  "aws": {\n    "grub_commands": [\n      "serial --speed=115200"\n    ],\n'
        '    "kernel_arguments": [\n      "console=tty0",\n      "console=ttyS0,115200n8"\n'
        "    ]\n  }\n}\n"
    )
    assert (top / "live/zipl.prm").read_text() == "one\n"
    assert (top / "live/isolinux/boot.msg").stat().st_mode & 0o7777 == 0o644


def test_r1_21_an_architecture_without_platforms_has_no_file(
    definitions: Path, tmp_path: Path
) -> None:
    boot(definitions, "s390x", tmp_path / "z", live="")
    assert sorted(os.listdir(tmp_path / "z" / ASSEMBLER)) == ["image.json"]
    boot(definitions, "aarch64", tmp_path / "a", config="", live="")
    assert sorted(os.listdir(tmp_path / "a" / ASSEMBLER)) == ["platforms.json"]
    assert boot(definitions, "x86_64", tmp_path / "n", config="", platforms="", live="") == []
    assert not (tmp_path / "n").exists()


def test_r2_1_the_disks_description_is_the_architectures(definitions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "root/usr/lib/image-builder/bootc"
    folder.mkdir(parents=True)
    (folder / "x86_64.yaml").write_text("x")
    boot(definitions, "aarch64", tmp_path / "root")
    assert not os.path.lexists(folder / "disk.yaml")
    for _ in range(2):
        boot(definitions, "x86_64", tmp_path / "root")
        assert os.readlink(folder / "disk.yaml") == "x86_64.yaml"


def test_r1_21_every_change_of_them_is_an_input(definitions: Path) -> None:
    def digests() -> list[str]:
        found = read_boot_files(
            definitions,
            config="image.yaml",
            platforms="platforms.yaml",
            live="live",
            stream="s",
            arch="x86_64",
        )
        return [of.digest for of in found.inputs]

    before = digests()
    (definitions / "platforms.yaml").write_text(PLATFORMS.replace("tty0", "tty1"))
    (definitions / "live/zipl.prm").rename(definitions / "live/other")
    after = digests()
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]


def test_r1_21_upstream_has_them_beside_the_build_args_file(definitions: Path) -> None:
    inner = definitions / "base"
    inner.mkdir()
    (inner / "platforms.yaml").symlink_to("../platforms.yaml")
    assert beside(definitions, "base", "platforms.yaml") == "base/platforms.yaml"
    assert beside(definitions, ".", "live") == "live"
    assert beside(definitions, "base", "live") == ""
    assert beside(definitions, None, "platforms.yaml") == ""
    # A submodule that was not fetched is no missing file.
    (definitions / "platforms.yaml").unlink()
    assert beside(definitions, "base", "platforms.yaml") == "base/platforms.yaml"
    with pytest.raises(DefinitionError, match=r"base/platforms\.yaml cannot be read: No such file"):
        boot(definitions, "x86_64", definitions, platforms="base/platforms.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[x86_64]", r"platforms\.yaml:1: this is not a mapping of architectures"),
        ("x86_64: [aws]", "is not a mapping of architectures to their platforms"),
    ],
)
def test_platforms_that_are_none_are_refused(
    definitions: Path, tmp_path: Path, text: str, problem: str
) -> None:
    (definitions / "platforms.yaml").write_text(text)
    with pytest.raises(DefinitionError, match=problem):
        boot(definitions, "x86_64", tmp_path / "root")


def test_boot_files_do_not_lead_out_of_the_definitions(definitions: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (definitions / "out").symlink_to(tmp_path / "outside")
    for names in ({"live": "out"}, {"live": "../outside"}, {"platforms": "../x"}):
        with pytest.raises(DefinitionError, match="is outside of the definitions"):
            boot(definitions, "x86_64", tmp_path / "root", **names)
    with pytest.raises(DefinitionError, match=r"image\.yaml is no folder"):
        boot(definitions, "x86_64", tmp_path / "root", live="image.yaml")


# --- content sets --------------------------------------------------------------------------------

SETS = """\
repo_mapping:
  baseos: { name: "rhel-9-for-$ARCH-baseos-rpms" }
  appstream: { name: "rhel-9-for-$ARCH-appstream-rpms" }
  early-kernel: { name: "" }
"""


def test_r2_14_the_content_sets_of_the_repositories_are_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text(SETS)
    names = read_content_sets(tmp_path, "sets.yaml").names
    repos = ["appstream", "early-kernel", "baseos", "unknown"]
    assert write_content_manifest(tmp_path, names, repos, "s390x") == ("early-kernel", "unknown")
    document = json.loads((tmp_path / "usr/share/buildinfo/content_manifest.json").read_text())
    assert document["metadata"].pop("icm_spec").endswith("/schemas/content_manifest.json")
    assert document == {
        "metadata": {"icm_version": 1, "image_layer_index": 1},
        "content_sets": ["rhel-9-for-s390x-appstream-rpms", "rhel-9-for-s390x-baseos-rpms"],
        "image_contents": [],
    }


def test_r2_14_what_the_layer_below_came_from_stays(tmp_path: Path) -> None:
    names = {"a": "set-a", "b": "set-b"}
    write_content_manifest(tmp_path, names, ["a"], "x86_64")
    write_content_manifest(tmp_path, names, ["b", "a"], "x86_64")
    document = json.loads((tmp_path / "usr/share/buildinfo/content_manifest.json").read_text())
    assert document["content_sets"] == ["set-a", "set-b"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sets: {}", r"sets\.yaml:1: there is no repo_mapping"),
        ("", "there is no repo_mapping"),
        ("repo_mapping: [a]", "there is no repo_mapping"),
        ("repo_mapping:\n  a: b", r"sets\.yaml:2: repo_mapping's a has no name that is text"),
        ("repo_mapping:\n  a: { name: 5 }", "repo_mapping's a has no name that is text"),
    ],
)
def test_content_sets_that_are_none_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "sets.yaml").write_text(text)
    with pytest.raises(DefinitionError, match=problem):
        read_content_sets(tmp_path, "sets.yaml")


# --- composefs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted", "problem"),
    [
        ("[composefs]\nenabled = maybe\n", "maybe", ""),
        ("[sysroot]\nreadonly = true\n", "no", ""),
        (None, "", ""),
        ("[composefs]\nenabled = yes\n", "maybe", "composefs = maybe, and the tree's .* has yes"),
        ("[sysroot]\nreadonly = true\n", "yes", "composefs = yes, and the tree's .* has no"),
        ("nonsense", "yes", "/usr/lib/ostree/prepare-root.conf cannot be read: File contains no"),
        (None, "maybe", "composefs = maybe, and the tree has no /usr/lib/ostree/prepare-root.conf"),
    ],
)
def test_r2_16_a_tree_uses_composefs_as_it_was_declared(
    tmp_path: Path, text: str | None, wanted: str, problem: str
) -> None:
    if text is not None:
        (tmp_path / "usr/lib/ostree").mkdir(parents=True)
        (tmp_path / "usr/lib/ostree/prepare-root.conf").write_text(text)
    if not problem:
        check_composefs(tmp_path, wanted)
        return
    with pytest.raises(DefinitionError, match=problem):
        check_composefs(tmp_path, wanted)


# --- strata.toml ---------------------------------------------------------------------------------

STREAM = """\
schema = 1
[stream.s]
version = "1.2"
arches = ["x86_64"]
coreos = { from = "docker://registry.example/c@sha256:1" }
"""


def test_a_stream_names_them(definitions: Path) -> None:
    (definitions / "sets.yaml").write_text(SETS)
    stream = parse_project(
        STREAM
        + 'content-sets = "sets.yaml"\ncomposefs = "maybe"\n'
        + 'bootimages = { config = "image.yaml", formats = ["qcow2"], '
        + 'platforms = "platforms.yaml", live = "live" }\n',
        definitions,
    ).stream("s")
    assert (stream.content_sets, stream.composefs) == ("sets.yaml", "maybe")
    assert stream.bootimages
    assert (stream.bootimages.platforms, stream.bootimages.live) == ("platforms.yaml", "live")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('composefs = "on"', r"strata\.toml:6: stream\.s\.composefs must be one of no, maybe, yes"),
        ('content-sets = "x"', "content-sets names a file that is not there: x"),
        (
            'bootimages = { config = "image.yaml", formats = [], live = "x" }',
            r"strata\.toml:6: stream\.s\.bootimages\.live names a folder that is not there: x",
        ),
        (
            'bootimages = { config = "image.yaml", formats = [], live = "../x" }',
            "bootimages.live leads out of the definitions: ../x",
        ),
        (
            'bootimages = { config = "image.yaml", formats = [], platforms = "x" }',
            "bootimages.platforms names a file that is not there: x",
        ),
    ],
)
def test_what_a_stream_names_is_there(definitions: Path, line: str, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        parse_project(STREAM + line + "\n", definitions)
