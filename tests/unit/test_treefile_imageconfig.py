"""image.yaml: chains of includes."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core.errors import DefinitionError
from strata.treefile.imageconfig import BootImageConfig, read_image_config

pytestmark = pytest.mark.unit


def read(folder: Path, **files: str) -> BootImageConfig:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return read_image_config(folder / "image.yaml", root=folder, stream="rhel-9.8")


def test_r1_20_a_chain_is_flattened(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        image='include: middle.yaml\nlive-rootfs-fstype: "erofs"\nextra-kargs: [own, shared]\n',
        middle="include: default.yaml\nsize: 20\nextra-kargs: [shared, middle]\n",
        default="size: 16\nextra-kargs: [low]\nvmware-hw-version: 15\naws-imdsv2-only: false\n"
        'container-imgref: "ostree-image-signed:docker://registry.example/os:{stream}"\n',
    )
    assert found.values == {
        "size": 20,
        "live-rootfs-fstype": "erofs",
        "extra-kargs": ["own", "shared", "middle", "low"],
        "vmware-hw-version": 15,
        "aws-imdsv2-only": False,
        "container-imgref": "ostree-image-signed:docker://registry.example/os:rhel-9.8",
    }
    assert list(found.values) == sorted(found.values)
    assert [name for name, _ in found.inputs] == ["default.yaml", "image.yaml", "middle.yaml"]


def test_r1_19_the_default_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "image-9.yaml").write_text("size: 9\n")
    (tmp_path / "image.yaml").symlink_to("image-9.yaml")
    assert read(tmp_path).values == {"size": 9}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"image": "include: image.yaml\n"}, "image.yaml:1: image.yaml includes itself"),
        ({"image": "include: none.yaml\n"}, "image.yaml:1: none.yaml cannot be read"),
        ({"image": "include: [a]\n"}, "image.yaml:1: include must be text"),
        ({"image": "include: ../x.yaml\n"}, "is outside of the definitions"),
        ({"image": "- a\n"}, "image.yaml:1: this must be a mapping"),
        (
            {"image": "include: a.yaml\nk: [1]\n", "a": "\nk: 1\n"},
            "a.yaml:2: k is a list in one file and none in the other",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(tmp_path, **files)
    assert message in caught.value.message
