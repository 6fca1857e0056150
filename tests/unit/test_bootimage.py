"""Parts of boot images: archives, boot sectors, the area for a config, what may not be in one."""

from __future__ import annotations

import gzip
import io
import json
import socket
import struct
import threading
from pathlib import Path

import pytest

from strata.bootimage import cpio, grub
from strata.bootimage.artefact import Artefact, Made, show_files, store_artifact, store_file
from strata.bootimage.checks import node_programs
from strata.bootimage.disk import Identities
from strata.bootimage.embed import (
    AREA_BYTES,
    HEADER_OFFSET,
    Area,
    append_to_initramfs,
    config_archive,
    embed_in_iso,
    embedded,
    find_area,
)
from strata.bootimage.ext4 import size_for
from strata.compose.rebuild import differing_files
from strata.core.errors import DefinitionError, ImageError, MachineError, UsageError
from strata.machine.qemu import CD, Disk, Monitor
from strata.oci.layout import Layout
from strata.oci.model import Manifest
from strata.ostree.objects import S_IFDIR, Checksum, DirMeta
from strata.ostree.tree import Tree

pytestmark = pytest.mark.unit

CONFIG = b'{"ignition":{"version":"3.3.0"}}'


# --- archives and boot sectors -------------------------------------------------------------------


def test_an_archive_has_its_files_sorted_and_ends() -> None:
    data = cpio.archive({"b": b"two", "a": b"one"})
    assert cpio.first_file(data, "a") == b"one"
    assert data.index(b"one") < data.index(b"two") < data.index(b"TRAILER!!!")
    assert len(data) % 4 == 0
    assert data == cpio.archive({"a": b"one", "b": b"two"})


@pytest.mark.parametrize("cut", [0, 50, 109, 112, 115])
def test_what_is_no_archive_has_no_first_file(cut: int) -> None:
    assert cpio.first_file(cpio.archive({"a": b"x" * 9})[:cut], "a") is None
    assert cpio.first_file(b"07070Z" + bytes(200), "a") is None
    assert cpio.first_file(b"070701" + b"Z" * 200, "a") is None
    assert cpio.first_file(cpio.archive({"b": b""}), "a") is None


def test_a_boot_sector_keeps_the_partition_table_and_knows_its_core() -> None:
    boot, sector = bytes([1]) * 512, bytes([2]) * 512
    made = grub.boot_sector(boot, sector, 2048)
    assert struct.unpack_from("<Q", made, 0x5C) == (2048,)
    assert made[0x66:0x68] == b"\x90\x90"
    assert made[0x1B8:] == sector[0x1B8:]
    assert made[:0x5C] == boot[:0x5C]
    with pytest.raises(ImageError, match="512 bytes"):
        grub.boot_sector(boot[:-1], sector, 1)


def test_a_core_knows_where_the_rest_of_it_is() -> None:
    made = grub.embedded_core(b"\xff" * 1500, 2048, 1 << 20)
    assert len(made) == 1536
    assert struct.unpack_from("<QHH", made, 500) == (2049, 2, 0x820)
    assert made[512:1500] == b"\xff" * 988
    with pytest.raises(ImageError, match="1500 bytes; there is room for 1024"):
        grub.embedded_core(b"\xff" * 1500, 2048, 1024)


def test_identities_follow_from_the_content() -> None:
    one, same, other = (Identities.of(text) for text in ("x qcow2", "x qcow2", "x raw"))
    assert one.named("disk") == same.named("disk") != other.named("disk")
    assert one.named("disk") != one.named("esp")


def test_a_file_system_has_room_for_its_content_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(40 << 20))
    once = size_for(tmp_path)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert size_for(tmp_path) == once
    assert once % (16 << 20) == 0
    assert 40 << 20 < once < 256 << 20


# --- the area for a config -----------------------------------------------------------------------


def make_iso(path: Path, area: Area | None = None, size: int = 1 << 20) -> Path:
    area = area or Area(65536, AREA_BYTES)
    data = bytearray(size)
    data[HEADER_OFFSET : HEADER_OFFSET + 24] = area.header()
    data[-4:] = b"tail"
    path.write_bytes(data)
    return path


def test_a_config_goes_into_an_iso_and_out_again(tmp_path: Path) -> None:
    iso = make_iso(tmp_path / "x.iso")
    before = iso.read_bytes()
    embed_in_iso(iso, CONFIG)
    with open(iso, "rb") as stream:
        assert embedded(stream) == CONFIG
    with pytest.raises(UsageError, match="has an Ignition config") as caught:
        embed_in_iso(iso, CONFIG)
    assert caught.value.hint == "--force replaces it"
    other = CONFIG.replace(b"3.3", b"3.4")
    embed_in_iso(iso, other, force=True)
    with open(iso, "rb") as stream:
        assert embedded(stream) == other
    embed_in_iso(iso, None)
    assert iso.read_bytes() == before
    with open(iso, "rb") as stream:
        assert embedded(stream) is None


def test_a_config_that_is_too_large_leaves_the_iso_as_it_was(tmp_path: Path) -> None:
    iso = make_iso(tmp_path / "x.iso", Area(65536, 64))
    before = iso.read_bytes()
    with pytest.raises(UsageError, match="bytes compressed; the ISO has room for 64") as caught:
        embed_in_iso(iso, CONFIG)
    assert "merge" in (caught.value.hint or "")
    assert iso.read_bytes() == before


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{}", b'{"ignition":{"version":3}}', b"[" * 90000, b"\xff"]
)
def test_what_is_no_config_is_not_embedded(tmp_path: Path, config: bytes) -> None:
    iso = make_iso(tmp_path / "x.iso")
    before = iso.read_bytes()
    with pytest.raises(DefinitionError, match="the config is not"):
        embed_in_iso(iso, config)
    initramfs = tmp_path / "initramfs"
    initramfs.write_bytes(b"x")
    with pytest.raises(DefinitionError, match="the config is not"):
        append_to_initramfs(initramfs, config)
    assert (iso.read_bytes(), initramfs.read_bytes()) == (before, b"x")


@pytest.mark.parametrize(
    "area", [Area(0, 64), Area(65536, 0), Area(65536, 1 << 20), Area(1 << 63, 64)]
)
def test_an_area_outside_of_its_iso_is_refused(tmp_path: Path, area: Area) -> None:
    with (
        open(make_iso(tmp_path / "x.iso", area), "rb") as stream,
        pytest.raises(ImageError, match="not inside of it"),
    ):
        find_area(stream)


def test_other_files_have_no_area() -> None:
    for data in (b"", bytes(40000)):
        with pytest.raises(ImageError, match="no live ISO"):
            find_area(io.BytesIO(data))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"nonsense", "cannot be read"),
        (config_archive(CONFIG)[:60], "cannot be read"),
        (gzip.compress(cpio.archive({"other": b""}), mtime=0), "holds no config.ign"),
    ],
)
def test_an_area_with_something_else_in_it_is_told(
    tmp_path: Path, content: bytes, why: str
) -> None:
    iso = make_iso(tmp_path / "x.iso")
    with open(iso, "r+b") as stream:
        stream.seek(65536)
        stream.write(content)
    with open(iso, "rb") as stream, pytest.raises(ImageError, match=why):
        embedded(stream)


def test_a_config_is_appended_on_a_boundary_of_four(tmp_path: Path) -> None:
    initramfs = tmp_path / "initramfs"
    initramfs.write_bytes(b"abcde")
    append_to_initramfs(initramfs, CONFIG)
    assert initramfs.read_bytes() == b"abcde\0\0\0" + config_archive(CONFIG)


# --- what is in one, and what may not be ---------------------------------------------------------


def folder(**inner: Tree | str) -> Tree:
    tree = Tree(DirMeta(0, 0, S_IFDIR | 0o755))
    for name, value in inner.items():
        if isinstance(value, Tree):
            tree.dirs[name] = value
        else:
            tree.files[name] = Checksum(value)
    return tree


def test_r5_1_programs_of_nodes_are_found_where_programs_are() -> None:
    tree = folder(
        usr=folder(
            bin=folder(bash="1", kubelet="2"),
            share=folder(kubectl="3"),
            libexec=folder(inner=folder(crio="4")),
        )
    )
    assert node_programs(tree) == ["/usr/bin/kubelet", "/usr/libexec/inner/crio"]
    assert node_programs(folder()) == []


def test_files_are_stored_once_and_shown_under_their_names(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "store")
    raw, other = tmp_path / "raw", tmp_path / "other"
    raw.write_bytes(b"disk" * 5000)
    other.write_bytes(b"kernel")
    made = [
        store_file(layout, Made("disk", "a.raw", raw, compress=True)),
        store_file(layout, Made("kernel", "vmlinuz", other)),
    ]
    assert [(item.name, item.compressed) for item in made] == [
        ("a.raw.gz", True),
        ("vmlinuz", False),
    ]
    assert made[0].uncompressed_bytes == 20000 > made[0].size_bytes
    assert [Artefact.from_json(item.to_json()) for item in made] == made
    manifest = Manifest.parse(layout.read(store_artifact(layout, made, {"x": "y"})))
    assert [layer.digest for layer in manifest.layers] == [item.digest for item in made]
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "old").symlink_to("gone")
    show_files(layout, made, shown)
    assert {path.name: path.stat().st_size for path in shown.iterdir()} == {
        "a.raw.gz": made[0].size_bytes,
        "vmlinuz": 6,
    }


def test_of_files_that_are_built_again_those_that_differ_are_named() -> None:
    def rows(kernel: str) -> dict[str, object]:
        made = [
            Artefact("kernel", "k", kernel, 1, kernel, 1),
            Artefact("disk", "d", "z", 1, "y", 2),
        ]
        return {"artefacts": [item.to_json() for item in made]}

    assert differing_files(rows("a"), rows("a")) == []
    assert [one.path for one in differing_files(rows("a"), rows("b"))] == ["k"]
    assert differing_files({}, {"layers": 1}) == []


# --- QEMU ----------------------------------------------------------------------------------------


def test_a_comma_in_a_path_is_no_option_of_qemu() -> None:
    assert "file=/a,,b" in Disk(Path("/a,b"), "raw").arguments(1)[1]
    assert "readonly=on,file=/c,,d" in " ".join(CD(Path("/c,d")).arguments(1))
    data = " ".join(Disk(Path("/x"), "raw", data=True).arguments(2))
    assert "readonly=on" in data
    assert "bootindex" not in data


def test_the_monitor_passes_over_events_and_tells_refusals() -> None:
    ours, theirs = socket.socketpair()
    answers = [
        {"QMP": {}},
        {"return": {}},
        {"event": "RESET"},
        {"return": 7},
        {"error": {"desc": "no such thing"}},
    ]

    def serve() -> None:
        with theirs, theirs.makefile("rb") as stream:
            theirs.sendall(json.dumps(answers[0]).encode() + b"\n")
            for number, _ in enumerate(stream):
                batch = ([1], [2, 3], [4])[number]
                theirs.sendall(b"".join(json.dumps(answers[at]).encode() + b"\n" for at in batch))
                if number == 2:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    monitor = Monitor(ours)
    assert monitor.execute("query") == 7
    with pytest.raises(MachineError, match="refuses dance: no such thing"):
        monitor.execute("dance")
    thread.join()
    with pytest.raises(MachineError, match=r"QEMU ended|does not listen"):
        monitor.execute("more")
    monitor.close()
