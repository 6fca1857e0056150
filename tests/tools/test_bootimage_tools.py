"""Boot images are written by the field's own tools, the same from the same content."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from bootlab import BootLab
from conftest import SAMPLE, Strata
from importlab import fsck
from strata.bootimage.build import FORMATS, prepare_bootimage
from strata.bootimage.embed import config_archive
from strata.bootimage.ext4 import size_for, write_ext4
from strata.bootimage.live import write_squashfs
from strata.bootimage.sysroot import deploy
from strata.container.stored import ReadLayers, forget_unneeded, layer_kinds
from strata.core.errors import PackageError, TreeError, UsageError
from strata.core.events import silent
from strata.core.files import remove_tree
from strata.oci.digest import Digest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.treefile.target import Target

pytestmark = pytest.mark.tools

CONFIG = b'{"ignition":{"version":"3.3.0"}}'


def output(*argv: str | Path) -> str:
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, check=True)
    return done.stdout


# --- ext4 ----------------------------------------------------------------------------------------


def tree_of(folder: Path, names: list[str]) -> Path:
    """Files in an order of their own, with links, attributes and names that need quotes."""
    (folder / "root").mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"one")
        (folder / name).chmod(0o4750)
    odd = folder / 'odd "name" here'
    odd.write_text("odd")
    os.setxattr(odd, "user.test", b'\x00"\xff')
    os.chown(odd, 7, 70000)
    (folder / "link").symlink_to('to "there" and on')
    for number in range(300):
        (folder / f"hard-{number:03}").hardlink_to(folder / names[0])
    (folder / "sparse").write_bytes(b"")
    os.truncate(folder / "sparse", 3 << 20)
    return folder


def written(source: Path, image: Path) -> Path:
    write_ext4(
        source,
        image,
        size_bytes=size_for(source),
        label="root",
        identity=uuid.UUID(int=7),
        immutable=source / "root",
        scratch=image.parent,
    )
    return image


def test_a_folder_is_an_ext4_whatever_order_it_was_made_in(tmp_path: Path) -> None:
    names = [f"file-{number}" for number in range(40)]
    one = written(tree_of(tmp_path / "one", names), tmp_path / "one.ext4")
    tree = tree_of(tmp_path / "two", [names[0], *reversed(names[1:])])
    for path in sorted(tree.rglob("*"), reverse=True):
        os.utime(path, (1, 1), follow_symlinks=False)
    two = written(tree, tmp_path / "two.ext4")
    assert output("cmp", one, two) == ""

    def debugfs(request: str) -> str:
        return output("debugfs", "-R", request, one)

    stat = debugfs("stat hard-299")
    assert "Links: 301" in stat
    assert "Mode:  04750" in stat
    odd = debugfs('stat "/odd ""name"" here"')
    assert "User:     7   Group: 70000" in odd
    assert "user.test (3)" in odd
    assert 'Fast link dest: "to "there" and on"' in debugfs("stat link")
    assert debugfs("cat file-9") == "one"
    assert "Blockcount: 0" in debugfs("stat sparse")
    assert "Flags: 0x80010" in debugfs("stat root")


@pytest.mark.parametrize(
    ("name", "why"), [("new\nline", "cannot be written to an image"), ("fifo", "is a special file")]
)
def test_what_no_image_can_hold_is_refused(tmp_path: Path, name: str, why: str) -> None:
    source = tmp_path / "source"
    (source / "root").mkdir(parents=True)
    if name == "fifo":
        os.mkfifo(source / name)
    else:
        (source / name).touch()
    with pytest.raises(TreeError, match=why):
        written(source, tmp_path / "image")


def test_a_file_system_that_is_too_small_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "root").mkdir(parents=True)
    (source / "large").write_bytes(os.urandom(80 << 20))
    with pytest.raises(TreeError, match="could not be filled"):
        write_ext4(
            source,
            tmp_path / "image",
            size_bytes=96 << 20,
            label="root",
            identity=uuid.UUID(int=7),
            immutable=source / "root",
            scratch=tmp_path,
        )


def test_a_folder_is_a_squashfs_whatever_order_it_was_made_in(tmp_path: Path) -> None:
    names = [f"file-{number}" for number in range(40)]
    images: list[Path] = []
    for folder, order in (("one", names), ("two", [names[0], *reversed(names[1:])])):
        source, image = tree_of(tmp_path / folder, order), tmp_path / f"{folder}.squashfs"
        source.chmod(0o755)
        write_squashfs(source, image, threads=len(images) + 1)
        images.append(image)
    assert output("cmp", *images) == ""
    shown = output("unsquashfs", "-lln", images[0])
    assert "-rwsr-x--- 0/0" in shown
    assert 'link -> to "there" and on' in shown
    assert shown.splitlines()[0].startswith("drwxr-xr-x")
    output("unsquashfs", "-quiet", "-no-progress", "-d", tmp_path / "out", images[0])
    odd = tmp_path / 'out/odd "name" here'
    assert os.getxattr(odd, "user.test") == b'\x00"\xff'
    assert (odd.stat().st_uid, odd.stat().st_gid) == (7, 70000)
    assert (tmp_path / "out/hard-299").stat().st_nlink == 301


# --- the sample's --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_r5_1_a_boot_image_is_the_same_again(boot_lab: BootLab, strata: Strata, form: str) -> None:
    target = f"bootimage/sample-12:{form}"
    where = ("-C", str(SAMPLE), "--store", str(boot_lab.context.workspace.store))
    done = strata(*where, "--json", "build", target, "--verify")
    (result,) = [row for row in json.loads(done.stdout) if row["target"] == target]
    assert result["verified"]["equal"], result["verified"]


def test_r5_1_the_record_has_what_stream_metadata_needs(boot_lab: BootLab) -> None:
    workspace = boot_lab.context.workspace
    record = boot_lab.context.record(Target("bootimage", "sample-12", format="raw"))
    assert record is not None
    (disk,) = json.loads(json.dumps(record.outputs["artefacts"]))
    path = workspace.bootimages / "sample-12/raw" / disk["file"]
    assert path.name == f"sample-12-{record.outputs['version']}-metal.x86_64.raw.gz"
    assert output("sha256sum", path).split()[0] == disk["sha256"]
    assert path.stat().st_size == disk["size"]
    with gzip.open(path) as stream:
        size = 0
        while data := stream.read(1 << 20):
            size += len(data)
    assert size == disk["uncompressed-size"] == record.outputs["disk-bytes"]
    base = boot_lab.context.record(Target("coreos", "sample-12"))
    assert base is not None
    assert record.outputs["base"] == base.outputs["manifest"]
    assert record.outputs["version"] == base.outputs["version"]


def test_a_machine_knows_the_layers_it_was_made_from(boot_lab: BootLab, tmp_path: Path) -> None:
    """R6.5: an image on a later base is pulled without those that are the same."""
    workspace = boot_lab.context.workspace
    record = boot_lab.context.record(Target("coreos", "sample-12"))
    assert record is not None
    digest = Digest.parse(str(record.outputs["manifest"]))
    image = ImageReference("oci", str(workspace.store), "", digest)
    commit = str(record.outputs["commit"])
    sysroot = tmp_path / "sysroot"
    try:
        deploy(workspace.store / "repo", commit, sysroot, image=image)
        repo = Repo.open(sysroot / "ostree/repo")
        with open_source(image, architecture="x86_64") as source:
            kinds = layer_kinds(source.manifest, source.config)
            layers = list(zip(kinds, source.manifest.layers, source.config.diff_ids, strict=True))
        read = ReadLayers(repo)
        assert all(read.exact(kind, layer.digest, diff_id) for kind, layer, diff_id in layers)
        assert forget_unneeded(repo) == []
        # Where it was at build time is no place to look for updates.
        assert repo.refs("ostree/container/image/") == {}
        fsck(repo)
    finally:
        remove_tree(sysroot)  # what is deployed is immutable


def test_a_disk_has_three_partitions_and_holds_one_deployment(
    boot_lab: BootLab, tmp_path: Path
) -> None:
    folder = boot_lab.context.workspace.bootimages / "sample-12/qcow2"
    (image,) = folder.iterdir()
    raw = tmp_path / "disk.raw"
    output("qemu-img", "convert", "-O", "raw", image, raw)
    table = json.loads(output("sfdisk", "--json", raw))["partitiontable"]
    assert table["label"] == "gpt"
    assert [row["name"] for row in table["partitions"]] == ["bios", "esp", "root"]
    start = table["partitions"][2]["start"] * 512
    root = f"{raw}?offset={start}"
    config = output("debugfs", "-R", "cat /boot/loader/syslinux.cfg", root)
    assert config.count("LABEL ") == 1
    assert "$ignition_firstboot" in config
    assert "LABEL=root" in config


def test_a_config_in_an_iso_is_read_as_it_was_written(
    boot_lab: BootLab, tmp_path: Path, strata: Strata
) -> None:
    (stored,) = (boot_lab.context.workspace.bootimages / "sample-12/live-iso").iterdir()
    iso, config = tmp_path / "live.iso", tmp_path / "config.ign"
    iso.write_bytes(stored.read_bytes())
    config.write_bytes(CONFIG)
    strata("ignition", "embed", str(iso), "--config", str(config))
    assert strata("ignition", "embed", str(iso), "--show").stdout.encode() == CONFIG
    again = strata("ignition", "embed", str(iso), "--config", str(config), check=False)
    assert again.returncode == 2
    assert "--force replaces it" in again.stderr
    # The area is a file of the ISO, which boot loaders read as one.
    extracted = tmp_path / "area"
    output(
        "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/images/ignition.img", extracted
    )
    assert extracted.read_bytes().rstrip(b"\0") == config_archive(CONFIG).rstrip(b"\0")
    strata("ignition", "embed", str(iso), "--remove")
    assert output("cmp", iso, stored) == ""


def test_a_cpio_of_ours_is_one_for_cpio(tmp_path: Path) -> None:
    done = subprocess.run(
        ["cpio", "-i", "--quiet", "-D", str(tmp_path)],
        input=gzip.decompress(config_archive(CONFIG)),
        check=True,
    )
    assert done.returncode == 0
    assert (tmp_path / "config.ign").read_bytes() == CONFIG
    assert (tmp_path / "config.ign").stat().st_mode & 0o777 == 0o600


def test_r5_1_a_base_with_node_components_is_refused(boot_lab: BootLab) -> None:
    target = Target("bootimage", "sample-12", format="qcow2")
    project = replace(boot_lab.context.project, node_only=("podman*",))
    with pytest.raises(PackageError, match="podman") as caught:
        prepare_bootimage(replace(boot_lab.context, project=project), target, silent())
    assert "bootimage/sample-12:qcow2" in caught.value.message


@pytest.mark.parametrize(
    ("target", "error", "why"),
    [
        (Target("bootimage", "sample-12", format="vmdk"), UsageError, "no boot image format vmdk"),
        (Target("bootimage", "other", format="raw"), UsageError, "no stream other"),
    ],
)
def test_unknown_boot_images_are_refused(
    boot_lab: BootLab, target: Target, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        prepare_bootimage(boot_lab.context, target, silent())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--on qemu coreos/sample-12", "coreos/sample-12 cannot be run under QEMU"),
        ("--on qemu bootimage/sample-12:raw", "is for a machine's own disk"),
        ("--on qemu node/4.19 --base oci:x:y", "--base is for --on nspawn"),
        ("node/4.19 --ssh", "--ignition and --ssh are for --on qemu"),
        ("bootimage/sample-12:qcow2", "cannot be run under systemd-nspawn"),
        ("--on qemu bootimage/sample-12:pxe --ignition /nowhere", "/nowhere cannot be read"),
    ],
)
def test_what_cannot_be_run_is_told(
    boot_lab: BootLab, strata: Strata, words: str, said: str
) -> None:
    store = boot_lab.context.workspace.store
    done = strata("-C", str(SAMPLE), "--store", str(store), "run", *words.split(), check=False)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert not list(boot_lab.context.workspace.machines.glob("*"))
