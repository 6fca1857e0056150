"""Import of what is broken or hostile: a precise error, and a repository that stays valid."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from importlab import Lab, cat, fsck, leftovers, zstd
from layertar import Tar
from strata.core.errors import DigestError, ImageError, ObjectError, StrataError
from strata.core.process import run
from strata.oci.digest import Digest
from strata.oci.model import LAYER, LAYER_GZIP, LAYER_ZSTD
from strata.ostree.scan import commit_directory
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools


def refused(lab: Lab, error: type[StrataError], message: str, tag: str = "image") -> StrataError:
    """Import fails with this error; the repository stays valid, and the base imports after."""
    repo = lab.repo(f"node-{tag}")
    with pytest.raises(error, match=message) as raised:
        lab.pull(repo, tag)
    assert "ostree/container/image" not in " ".join(repo.refs())
    assert leftovers(repo) == []
    fsck(repo)
    assert lab.pull(repo, "base").base_commit == lab.commit
    fsck(repo)
    return raised.value


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (Tar().add("usr/../../x", b""), "leaves its root"),
        (Tar().add("../usr/x", b""), "leaves its root"),
        (Tar().add("usr/" + "d/" * 300 + "x", b""), "too deep"),
        (Tar().add("usr/bin/dev", kind=tarfile.CHRTYPE), "/usr/bin/dev in a layer is a device"),
        (Tar().add("usr/bin/pipe", kind=tarfile.FIFOTYPE), "/usr/bin/pipe in a layer is a device"),
        (Tar().link("usr/bin/x", "usr/bin/missing"), "points to /usr/bin/missing"),
        (Tar().link("usr/bin/x", "usr/bin/x"), "points to /usr/bin/x"),
        (Tar().link("usr/bin/x", "usr/bin"), "points to /usr/bin"),
        (Tar().link("usr/bin/x", "../../etc/passwd"), "leaves its root"),
        (Tar().link("usr/bin/x", "sysroot/ostree/repo/config"), "points to /sysroot"),
        (Tar().add("usr/bin/x", b"", owner=(1 << 40, 0)), "cannot be the owner"),
        (Tar().add("usr/bin/x", b"", owner=((1 << 32) - 1, 0)), "cannot be the owner"),
        (Tar().folder("usr/bin", owner=(0, 1 << 40)), "cannot be the owner"),
        (Tar().add("usr/bin/x", b"", pax={"SCHILY.xattr.": "v"}), "extended attribute"),
        (Tar().add("usr/bin/x", b"", pax={"SCHILY.xattr.a\0b": "v"}), "extended attribute"),
        (Tar().add("usr/bin/x", b"", pax={"SCHILY.xattr.user.a": "v" * 60_000}), "does not take"),
        (
            Tar().add("usr/x", b"", pax={f"SCHILY.xattr.user.{n}": "v" * 99 for n in range(900)}),
            "does not take",
        ),
        (Tar().add("usr/bin/x", b"", pax={"comment": "v" * (3 << 20)}), "larger than"),
        (Tar().symlink("usr/bin/x", "t" * 5000), "File name too long"),
        (Tar().add("", b"x"), "no name|not a folder"),
    ],
)
def test_layers_that_are_wrong_are_refused(lab: Lab, tar: Tar, message: str) -> None:
    lab.derive(tar.bytes())
    refused(lab, StrataError, message)


def test_names_and_links_that_are_not_utf8_are_refused(lab: Lab) -> None:
    for number, entry in enumerate((b"usr/bin/\xff", b"usr/bin/x")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            info = tarfile.TarInfo(os.fsdecode(entry))
            info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(b"t\xff")
            tar.addfile(info)
        lab.derive(buffer.getvalue(), tag=str(number))
        refused(lab, StrataError, "not UTF-8", str(number))


def test_a_layer_that_is_damaged_is_a_digest_error(lab: Lab) -> None:
    image = lab.derive(Tar().add("usr/bin/new", b"new").bytes(), pack=bytes, media_type=LAYER)
    manifest, _ = lab.image(image)
    path = lab.layout.blob_path(manifest.layers[-1].digest)
    path.write_bytes(path.read_bytes().replace(b"new\0", b"old\0"))
    refused(lab, DigestError, f"layer {manifest.layers[-1].digest} is damaged")


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_base_layer_that_is_damaged_is_a_digest_error(lab: Lab, number: int) -> None:
    manifest, config = lab.image(lab.base)
    digest = manifest.layers[number].digest
    path = lab.layout.blob_path(digest)
    right = path.read_bytes()
    data = bytearray(right)
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    lab.write(manifest.layers, config.diff_ids)
    repo = lab.repo("damaged")
    with pytest.raises(DigestError, match=f"layer {digest} is damaged"):
        lab.pull(repo)
    assert leftovers(repo) == []
    fsck(repo)
    path.write_bytes(right)
    assert lab.pull(repo).base_commit == lab.commit
    fsck(repo)


def test_a_body_that_is_damaged_is_a_digest_error_and_leaves_no_ref(lab: Lab) -> None:
    body = random.Random(3).randbytes(5000)  # noqa: S311
    image = lab.derive(Tar().add("usr/bin/new", body).bytes(), pack=bytes, media_type=LAYER)
    manifest, _ = lab.image(image)
    path = lab.layout.blob_path(manifest.layers[-1].digest)
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    refused(lab, DigestError, f"layer {manifest.layers[-1].digest} is damaged")


@pytest.mark.parametrize("keep", [0, 20, 3000, -1, -600])
@pytest.mark.parametrize("media_type", [LAYER, LAYER_GZIP, LAYER_ZSTD])
def test_a_layer_that_is_cut_off_is_refused(lab: Lab, media_type: str, keep: int) -> None:
    """Cut off before it was given its digest: the digest is right, the tar is not."""
    body = random.Random(3).randbytes(100_000)  # noqa: S311
    packs: dict[str, Callable[[bytes], bytes]]
    packs = {LAYER: bytes, LAYER_GZIP: gzip.compress, LAYER_ZSTD: zstd}
    pack = packs[media_type]
    whole = Tar().add("usr/bin/new", body).bytes()
    # tarfile pads to records of 10 KiB, which may be missing; the end mark may not.
    end = whole.rstrip(b"\0")
    cut = pack(whole)[:keep] if media_type != LAYER else (whole[:keep] if keep > 0 else end[:keep])
    lab.derive(whole, media_type=media_type, pack=lambda _: cut)
    refused(lab, ImageError, "cut off|damaged")


@pytest.mark.parametrize("media_type", [LAYER_GZIP, LAYER_ZSTD])
def test_a_compression_bomb_is_refused(lab: Lab, media_type: str) -> None:
    """Behind the end of the tar, where nothing else would look at it."""
    tar = Tar().add("usr/bin/new", b"new").bytes()
    zeros = bytes(1 << 20)
    if media_type == LAYER_GZIP:
        deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
        parts = [deflate.compress(tar), *(deflate.compress(zeros) for _ in range(700))]
        blob = b"".join([*parts, deflate.flush()])
    else:
        script = "(cat; head -c 700M /dev/zero) | zstd -q -1 --stdout"
        done = subprocess.run(["bash", "-c", script], input=tar, capture_output=True, check=True)
        blob = done.stdout
    assert len(blob) < 1 << 20
    lab.derive(tar, media_type=media_type, pack=lambda _: blob)
    refused(lab, ImageError, "expands to more than 200 times its size")


def test_a_layer_of_endless_headers_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.oci.tar.MAX_HEADERS", 3000)
    tar = Tar()
    for number in range(3001):
        tar.folder(f"usr/{number}")
    lab.derive(tar.bytes())
    repo = lab.repo("endless")
    with pytest.raises(ImageError, match="more than 3000 headers"):
        lab.pull(repo)
    assert leftovers(repo) == []
    fsck(repo)


def test_of_entries_that_stand_twice_the_last_one_counts(lab: Lab) -> None:
    tar = Tar().add("usr/bin/x", b"first").folder("usr/y").add("usr/y/z", b"z")
    lab.derive(tar.add("usr/bin/x", b"second").symlink("usr/y", "bin").bytes())
    repo = lab.repo()
    commit = lab.pull(repo).merge_commit
    fsck(repo)
    assert cat(repo, commit, "/usr/bin/x") == "second"
    tree = Tree.load(repo, commit)
    assert isinstance(tree.lookup("usr/y"), str)


def test_a_layer_with_another_diff_id_is_refused(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    tar = Tar().add("usr/bin/new", b"evil").bytes()
    claimed = Digest.of(Tar().add("usr/bin/new", b"good").bytes())
    layer = lab.layout.add(gzip.compress(tar), LAYER_GZIP)
    lab.write((*manifest.layers, layer), (*config.diff_ids, claimed))
    refused(lab, DigestError, "diff-id")


def test_labels_that_do_not_hold_are_refused(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    right = config.labels
    other = "0" * 64
    cases: list[tuple[dict[str, str], type[StrataError], str]] = [
        ({**right, "ostree.final-diffid": f"sha256:{other}"}, ImageError, "not one of its layers"),
        ({**right, "ostree.final-diffid": "sha256:zz"}, ImageError, "is not a sha256 digest"),
        ({**right, "ostree.commit": other}, ImageError, "does not hold the commit"),
        ({**right, "ostree.commit": "../../x"}, StrataError, "is not a checksum"),
        (
            {**right, "ostree.final-diffid": str(config.diff_ids[2])},
            StrataError,
            "lacks the object|not there|out of place",
        ),
    ]
    for number, (labels, error, message) in enumerate(cases):
        lab.write(manifest.layers, config.diff_ids, labels=labels, tag=str(number))
        refused(lab, error, message, str(number))


def test_an_object_with_other_bytes_than_its_name_says_is_refused(lab: Lab) -> None:
    """The blob's digest is right: the image was made this way."""
    manifest, config = lab.image(lab.base)
    for number, old in enumerate((b"127.0.0.1", b"subject")):
        layers, diff_ids = list(manifest.layers), list(config.diff_ids)
        for position, layer in enumerate(layers):
            tar = gzip.decompress(lab.layout.blob_path(layer.digest).read_bytes())
            if old == b"subject" and position == 0:
                changed = tar.replace(b"base\0", b"evil\0", 1)
            else:
                changed = tar.replace(old, b"x" * len(old), 1)
            layers[position] = lab.layout.add(gzip.compress(changed), LAYER_GZIP)
            diff_ids[position] = Digest.of(changed)
        labels = {**config.labels, "ostree.final-diffid": str(diff_ids[-1])}
        lab.write(layers, diff_ids, labels=labels, tag=str(number))
        refused(lab, DigestError, "does not have its checksum", str(number))


def test_a_chunk_that_is_missing_is_named_by_a_path(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    lab.write(
        (*manifest.layers[:2], *manifest.layers[3:]), (*config.diff_ids[:2], *config.diff_ids[3:])
    )
    refused(lab, ObjectError, "the image lacks the object of /usr/")


def test_another_number_of_diff_ids_is_refused(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    lab.write(manifest.layers, config.diff_ids[:-1])
    refused(lab, ImageError, "6 layers and 5 diff-ids")


# --- an SELinux policy of the image --------------------------------------------------------------


@pytest.fixture
def policy(lab: Lab) -> Path:
    """A policy's folder in a base that is still to be made; `rebase` makes it."""
    folder = lab.root / "source/usr/etc/selinux/sample/contexts/files"
    folder.mkdir(parents=True)
    (folder / "file_contexts").write_text("/.*\tsystem_u:object_r:default_t:s0\n")
    (lab.root / "source/usr/etc/selinux/config").write_text("SELINUXTYPE=sample\n")
    return folder


def rebase(lab: Lab) -> None:
    with writing(lab.origin, sync=False) as writer:
        lab.commit = commit_directory(lab.origin, writer, str(lab.root / "source"), timestamp=1)
    lab.base = lab.encapsulate(lab.commit)
    lab.layout.tag("base", lab.base)
    lab.derive(Tar().add("usr/bin/new", b"new").bytes())


def test_links_of_a_policy_lead_nowhere_on_the_host(lab: Lab, policy: Path, tmp_path: Path) -> None:
    """A pipe of the host behind such a link would have stopped the import for ever."""
    os.mkfifo(tmp_path / "pipe")
    (policy / "file_contexts.local").symlink_to(tmp_path / "pipe")
    (policy / "file_contexts.bin").write_bytes(b"\x8a\xff\x7c\xf9 compiled by whom?")
    rebase(lab)
    repo = lab.repo()
    listed = run(["ostree", "ls", f"--repo={repo.path}", "-X", lab.pull(repo).merge_commit, "/usr"])
    assert "default_t" in listed.stdout
    fsck(repo)


def test_a_policy_that_is_a_link_is_refused(lab: Lab, policy: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (policy / "file_contexts").unlink()
    (policy / "file_contexts").symlink_to(tmp_path / "pipe")
    rebase(lab)
    refused(lab, ImageError, "file_contexts in the image is a link")


def test_configuration_that_is_a_link_counts_as_none(lab: Lab, policy: Path) -> None:
    config = lab.root / "source/usr/etc/selinux/config"
    config.unlink()
    config.symlink_to("/etc/passwd")
    prepare = lab.root / "source/usr/lib/ostree/prepare-root.conf"
    prepare.parent.mkdir()
    prepare.symlink_to("/etc/passwd")
    rebase(lab)
    repo = lab.repo()
    assert cat(repo, lab.pull(repo).merge_commit, "/usr/bin/new") == "new"
    fsck(repo)


# --- more than a repository takes ----------------------------------------------------------------


def test_objects_that_no_reader_would_take_are_not_written(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    lab.write(manifest.layers, config.diff_ids, labels={**config.labels, "x": "y" * (11 << 20)})
    refused(lab, ObjectError, r"a commit object would have \d+ bytes")
    names = Tar()
    for number in range(60_000):
        names.symlink(f"usr/lib/{'n' * 150}{number}", "x")
    lab.derive(names.bytes(), tag="many")
    refused(lab, ObjectError, r"a dirtree object would have \d+ bytes", "many")
