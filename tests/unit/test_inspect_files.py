"""The file list: layers laid over each other by OCI's rules; hostile layers are precise errors."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from layertar import Tar
from lookimages import files_of, looking, system, write
from strata.core.errors import DigestError, ImageError
from strata.core.streams import Readable
from strata.inspect import entries
from strata.inspect.contents import read_contents
from strata.inspect.diff import diff_files, fetch_of
from strata.inspect.files import LayerKey, read_files
from strata.inspect.owner import find, resolve
from strata.inspect.stream import open_tar
from strata.oci.digest import Digest
from strata.oci.model import LAYER_GZIP, Descriptor
from strata.oci.source import ImageSource

pytestmark = pytest.mark.unit


def listing(path: Path, *tars: Tar) -> dict[str, tuple[str, int]]:
    """path → (kind, layer), the root apart."""
    found = files_of(write(path, *(tar.bytes() for tar in tars))).files
    return {name: (file.kind, file.layer) for name, file in found.items() if name != "/"}


def test_a_later_layer_replaces_and_whiteouts_hide(tmp_path: Path) -> None:
    lower = Tar().folder("a", "b", "c").add("a/x", b"1").add("a/y", b"1").add("b/z").add("c/old")
    upper = Tar().add("a/x", b"2").add("a/.wh.y").add(".wh.b").folder("c")
    upper.add("c/new").add("c/.wh..wh..opq")
    assert listing(tmp_path, lower, upper) == {
        "/a": ("dir", 1),
        "/a/x": ("file", 2),
        "/c": ("dir", 2),
        "/c/new": ("file", 2),
    }


def test_a_whiteout_does_not_hide_what_its_own_layer_brings(tmp_path: Path) -> None:
    lower = Tar().folder("a").add("a/x", b"1")
    upper = Tar().folder("a").add("a/new").add(".wh.a")
    assert listing(tmp_path, lower, upper) == {"/a": ("dir", 2), "/a/new": ("file", 2)}


def test_types_replace_each_other_and_links_are_not_followed(tmp_path: Path) -> None:
    lower = Tar().folder("d").add("d/x").add("f").folder("real").symlink("alias", "real")
    upper = Tar().add("d").add("f/x").add("alias/x")
    assert listing(tmp_path, lower, upper) == {
        "/alias": ("dir", 2),
        "/alias/x": ("file", 2),
        "/d": ("file", 2),
        "/f": ("dir", 2),
        "/f/x": ("file", 2),
        "/real": ("dir", 1),
    }


def test_a_hard_link_is_what_it_points_to(tmp_path: Path) -> None:
    lower = Tar().add("a", b"data", mode=0o4755, owner=(7, 8), xattrs={"user.k": "v"})
    upper = Tar().link("b", "a").link("c", "b")
    files = files_of(write(tmp_path, lower.bytes(), upper.bytes())).files
    for name in ("/b", "/c"):
        file = files[name]
        assert (file.mode, file.uid, file.gid, file.size_bytes) == (0o4755, 7, 8, 4)
        assert file.xattrs == ((b"user.k", b"v"),)
        assert (file.layer, file.stored) == (2, 1)


def test_metadata_is_the_last_layers_and_implied_folders_keep_the_lower_one(tmp_path: Path) -> None:
    lower = Tar().folder("a", mode=0o700).folder("b", mode=0o700)
    upper = Tar().add("a/x").folder("b", mode=0o1777)
    files = files_of(write(tmp_path, lower.bytes(), upper.bytes())).files
    assert files["/a"].mode == 0o700
    assert files["/b"].mode == 0o1777


HOSTILE: dict[str, tuple[Callable[[Tar], Tar], str]] = {
    "climbs": (lambda t: t.add("a/../../etc/passwd"), "leaves its root"),
    "link to nothing": (lambda t: t.link("a", "missing"), "is not a file before it"),
    "link to a folder": (lambda t: t.folder("d").link("a", "d"), "is not a file before it"),
    "link loop": (lambda t: t.link("a", "b").link("b", "a"), "is not a file before it"),
    "link that climbs": (lambda t: t.link("a", "../b"), "leaves its root"),
    "whiteout of nothing": (lambda t: t.add("a/.wh."), "names nothing"),
    "whiteout of the parent": (lambda t: t.add("a/.wh..."), "names nothing"),
    "root as a file": (lambda t: t.add("."), "is not a folder"),
    "odd type": (lambda t: t.add("a", kind=b"V"), "type that is not known"),
    "too deep": (lambda t: t.add("d/" * 300 + "x"), "too deep"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers_are_precise_errors(name: str, tmp_path: Path) -> None:
    build, message = HOSTILE[name]
    reference = write(tmp_path, build(Tar()).bytes())
    with pytest.raises(ImageError, match=message):
        files_of(reference)


def test_entries_and_text_are_bounded_over_all_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Tar().add("a").add("b").bytes()
    two = Tar().add("c").add("d").bytes()
    monkeypatch.setattr(entries, "MAX_ENTRIES", 4)
    files_of(write(tmp_path, one, two))
    monkeypatch.setattr(entries, "MAX_ENTRIES", 3)
    with pytest.raises(ImageError, match="more than 3 entries"):
        files_of(write(tmp_path, one, two))


def test_a_damaged_layer_is_named(tmp_path: Path) -> None:
    reference = write(tmp_path, system().bytes())
    with looking(reference) as image:
        blob = tmp_path / "blobs/sha256" / image[1].layers[0].digest.hex
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
        with pytest.raises(DigestError, match="is damaged"):
            read_files(*image)


def test_devices_and_pipes_are_listed(tmp_path: Path) -> None:
    tar = Tar().add("null", kind=tarfile.CHRTYPE).add("pipe", kind=tarfile.FIFOTYPE)
    assert listing(tmp_path, tar) == {"/null": ("char", 1), "/pipe": ("fifo", 1)}


def test_layers_read_for_one_image_serve_the_next(tmp_path: Path) -> None:
    lower, upper = Tar().add("a", b"1").bytes(), Tar().add("b", b"2").bytes()
    known: dict[LayerKey, entries.LayerEntries] = {}
    with looking(write(tmp_path, lower)) as image:
        read_files(*image, known=known)
    second = write(tmp_path, lower, upper, tag="second")
    with looking(second) as image:
        lowest = image[1].layers[0]
        (tmp_path / "blobs/sha256" / lowest.digest.hex).unlink()
        assert set(read_files(*image, known=known).files) == {"/", "/a", "/b"}
        assert len(known) == 2


def test_contents_are_found_behind_links(tmp_path: Path) -> None:
    lower, upper = Tar().add("a", b"one").add("x", b"two"), Tar().link("b", "a")
    with looking(write(tmp_path, lower.bytes(), upper.bytes())) as image:
        file = read_files(*image).files["/b"]
        assert read_contents(*image, [file]) == {file.digest: b"one"}


def test_titles_come_from_annotations_or_history_without_empty_layers(tmp_path: Path) -> None:
    history = (
        {"created_by": "ADD  files"},
        {"created_by": "LABEL x", "empty_layer": True},
        {"created_by": "RUN it"},
    )
    layers = [Tar().add(name).bytes() for name in ("a", "b")]
    with looking(write(tmp_path, *layers, history=history)) as (_, view):
        assert [layer.title for layer in view.layers] == ["ADD files", "RUN it"]
    titled = write(tmp_path, *layers, titles=("first",), tag="titled")
    with looking(titled) as (_, view):
        assert [layer.summary for layer in view.layers] == ["first", "untitled"]
        assert [layer.kind for layer in view.layers] == ["derived", "derived"]


def test_what_a_client_fetches_is_counted_once_and_by_diff_id(tmp_path: Path) -> None:
    a, b, c = (Tar().add(name).bytes() for name in "abc")
    first = write(tmp_path, a, b)
    second = write(tmp_path, a, c, c, b, tag="second")
    with looking(first) as (_, old), looking(second) as (_, new):
        assert [layer.number for layer in fetch_of(old, new).layers] == [2]
        assert fetch_of(old, new).size_bytes == new.layers[1].size_bytes
        assert fetch_of(new, old).layers == ()


def test_each_difference_of_files_is_named(tmp_path: Path) -> None:
    old = Tar().add("same").add("mode").add("owner").add("body", b"1").add("long", b"1")
    old.add("x", xattrs={"user.a": "1"}).symlink("link", "a").add("kind").add("gone")
    new = Tar().add("same").add("mode", mode=0o600).add("owner", owner=(1, 2)).add("body", b"2")
    new.add("long", b"12").add("x", xattrs={"user.a": "2"}).symlink("link", "b").folder("kind")
    new.add("come")
    one = files_of(write(tmp_path, old.bytes())).files
    other = files_of(write(tmp_path, new.bytes(), tag="other")).files
    found = {change.path: (change.kind, *change.what) for change in diff_files(one, other)}
    assert found == {
        "/body": ("changed", "content"),
        "/come": ("added",),
        "/gone": ("removed",),
        "/kind": ("changed", "file → dir"),
        "/link": ("changed", "target a → b"),
        "/long": ("changed", "content (1 → 2 bytes)"),
        "/mode": ("changed", "mode 0644 → 0600"),
        "/owner": ("changed", "owner 0:0 → 1:2"),
        "/x": ("changed", "xattr user.a 1 → 2"),
    }


def test_paths_are_found_through_links_and_loops_end(tmp_path: Path) -> None:
    tar = Tar().folder("usr", "usr/bin").add("usr/bin/sh").symlink("bin", "usr/bin")
    tar.symlink("up", "/usr/../bin").symlink("a", "b").symlink("b", "a")
    with looking(write(tmp_path, tar.bytes())) as image:
        files = read_files(*image).files
    assert resolve(files, "/bin/sh") == "/usr/bin/sh"
    assert resolve(files, "/up/sh") == "/usr/bin/sh"
    assert find(image[1], files, "bin/")[0] == "/bin"
    with pytest.raises(ImageError, match="more than 40 links"):
        resolve(files, "/a/x")
    with pytest.raises(ImageError, match="has no /usr/bin/x/y") as caught:
        find(image[1], files, "/usr/bin/x/y")
    assert caught.value.hint == "the nearest that is there is /usr/bin"


class _Stored:
    """A source of one blob."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @contextmanager
    def open_layer(self, layer: Descriptor) -> Iterator[Readable]:
        yield io.BytesIO(self._data)


def names(data: bytes) -> list[bytes]:
    source = cast(ImageSource, _Stored(data))
    with open_tar(source, Descriptor(LAYER_GZIP, Digest("0" * 64), len(data))) as tar:
        return [entry.path for entry in tar]


def test_gzip_layers_of_many_members_with_padding_are_read() -> None:
    data = Tar().add("a", b"x" * 5000).add("b").bytes()
    members = b"".join(gzip.compress(data[at : at + 700]) for at in range(0, len(data), 700))
    assert names(gzip.compress(data)) == names(members) == [b"a", b"b"]
    assert names(members + bytes(512)) == [b"a", b"b"]


def test_gzip_layers_that_are_cut_or_damaged_are_errors() -> None:
    data = gzip.compress(Tar().add("a", random.Random(1).randbytes(5000)).bytes())  # noqa: S311
    for end in range(0, len(data), 97):
        with pytest.raises(ImageError):
            names(data[:end])
    with pytest.raises(ImageError, match="is damaged"):
        names(data[:900] + bytes(64) + data[964:])


def test_looking_at_a_compression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking reads through the bounds that importing has."""
    monkeypatch.setattr("strata.oci.compression.FREE_BYTES", 1 << 20)
    bomb = gzip.compress(Tar().add("a").bytes() + bytes(16 << 20))
    with pytest.raises(ImageError, match="expands to more than 200 times its size"):
        names(bomb)
