"""Laws of layers: laid over each other they agree with a plain model; hostile tars are errors."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.container.derived import OPAQUE, map_path, overlay, read_layer, split_path
from strata.container.layout_v1 import import_layer
from strata.container.refs import escape
from strata.core.errors import StrataError
from strata.oci.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarReader, TarWriter
from strata.ostree.objects import Checksum, DirMeta, FileHeader, pack_xattrs
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree
from strata.ostree.writer import Writer, writing

pytestmark = pytest.mark.property

_NAMES = ["a", "b", "c"]
_PATHS: list[tuple[str, ...]] = [(one,) for one in _NAMES] + [
    (one, two) for one in _NAMES for two in _NAMES
]
_PATHS += [(one, two, "d") for one in _NAMES for two in _NAMES]
Model = dict[tuple[str, ...], "Checksum | int"]  # a file's checksum, or a folder's owner

checksums = st.sampled_from([Checksum(letter * 64) for letter in "0123"])
steps = st.lists(
    st.tuples(
        st.sampled_from(["file", "folder", "whiteout", "opaque"]),
        st.sampled_from(_PATHS),
        checksums,
        st.integers(1, 5),
    ),
    max_size=8,
)
Steps = list[tuple[str, tuple[str, ...], Checksum, int]]


def as_layer(entries: Steps) -> tuple[Tree, set[str]]:
    """A layer's tree, as its reader makes it, and its implied folders."""
    root, implied = Tree(), set[str]()

    def folder(path: tuple[str, ...]) -> Tree:
        current = root
        for depth, part in enumerate(path, 1):
            current.files.pop(part, None)
            if part not in current.dirs:
                current.dirs[part] = Tree()
                implied.add("/".join(path[:depth]))
            current = current.dirs[part]
        return current

    for kind, path, checksum, owner in entries:
        if kind == "file":
            parent = folder(path[:-1])
            parent.dirs.pop(path[-1], None)
            parent.files[path[-1]] = checksum
        elif kind == "folder":
            folder(path).meta = DirMeta(owner)
            implied.discard("/".join(path))
        elif kind == "whiteout":
            folder(path[:-1]).files[".wh." + path[-1]] = checksum
        else:
            folder(path).files[OPAQUE] = checksum
    return root, implied


def model_of(tree: Tree) -> Model:
    found: Model = {}
    for path, inner in tree.walk_folders():
        parts = tuple(path.split("/")[1:])
        if parts:
            found[parts] = inner.meta.uid
        found.update({(*parts, name): checksum for name, checksum in inner.files.items()})
    return found


def apply(model: Model, layer: Tree, implied: set[str]) -> Model:
    """The image specification's words, on a flat map: first what is removed, then what is added."""
    result = dict(model)

    def remove(path: tuple[str, ...], itself: bool) -> None:
        for known in list(result):
            if known[: len(path)] == path and (itself or known != path):
                del result[known]

    entries = list(layer.walk_folders())
    for text, inner in entries:
        path = tuple(text.split("/")[1:])
        if OPAQUE in inner.files:
            remove(path, itself=False)
        for name in inner.files:
            if name.startswith(".wh.") and name != OPAQUE:
                remove((*path, name[4:]), itself=True)
    for text, inner in entries:
        path = tuple(text.split("/")[1:])
        if path:
            if isinstance(result.get(path), str):
                del result[path]
            if text.strip("/") not in implied:
                result[path] = inner.meta.uid
            else:
                result.setdefault(path, inner.meta.uid)
        for name, checksum in inner.files.items():
            if not name.startswith(".wh."):
                remove((*path, name), itself=True)
                result[(*path, name)] = checksum
    return result


@settings(max_examples=300)
@given(st.lists(steps, min_size=1, max_size=4))
def test_layers_laid_over_each_other_agree_with_the_specification(layers: list[Steps]) -> None:
    tree, model = Tree(), Model()
    for entries in layers:
        layer, implied = as_layer(entries)
        tree, model = overlay(tree, layer, implied), apply(model, layer, implied)
        assert model_of(tree) == model


@given(steps, steps)
def test_laying_the_same_layer_twice_changes_nothing(lower: Steps, upper: Steps) -> None:
    base = overlay(Tree(), *as_layer(lower))
    once = overlay(base, *as_layer(upper))
    assert overlay(once, *as_layer(upper)) == once


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60))
def test_escaped_texts_are_valid_and_different(text: str) -> None:
    escaped = escape(text)
    assert all(c.isascii() and (c.isalnum() or c in "-_/") for c in escaped)
    assert "//" not in escaped
    assert not escaped.startswith("/")
    assert not escaped.endswith("/")
    assert escape(text + "x") != escaped


@given(st.binary(max_size=80))
def test_no_path_leaves_the_tree(path: bytes) -> None:
    try:
        parts = split_path(path)
    except StrataError:
        return
    mapped = map_path(parts)
    assert mapped is None or not {"", ".", ".."} & set(mapped)


# --- hostile tars ------------------------------------------------------------------------------

_BODY = b"body"
_HEADER = FileHeader(0, 0, 0o100644, "", ((b"user.a", b"1"),))


def _sum(header: FileHeader, body: bytes) -> str:
    digest = header.digest()
    digest.update(body)
    return digest.hexdigest()


_STORE = b"sysroot/ostree/repo/objects/"


def _object(checksum: str, kind: str) -> bytes:
    return _STORE + f"{checksum[:2]}/{checksum[2:]}.{kind}".encode()


def _chunk() -> bytes:
    """A chunk layer with one object, as older writers wrote it: its attributes are a link."""
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    checksum, shared = _sum(_HEADER, _BODY), "e" * 64
    xattrs = pack_xattrs(_HEADER.xattrs)
    tar.entry(TarEntry(b"sysroot/ostree/repo/config", FILE, 0o644, size_bytes=2), b"[]")
    tar.entry(TarEntry(_object(shared, "file-xattrs"), FILE, 0o644, size_bytes=len(xattrs)), xattrs)
    link, target = _object(checksum, "file-xattrs-link"), _object(shared, "file-xattrs")
    tar.entry(TarEntry(link, HARDLINK, 0o644, target=target))
    tar.entry(TarEntry(_object(checksum, "file"), FILE, 0o644, size_bytes=len(_BODY)), _BODY)
    tar.entry(TarEntry(b"usr/x", HARDLINK, 0o644, target=_object(checksum, "file")))
    tar.finish()
    return buffer.getvalue()


def _derived() -> bytes:
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    tar.entry(TarEntry(b"usr/d", DIRECTORY, 0o755, xattrs=((b"user.d", b"1"),)))
    tar.entry(TarEntry(b"usr/d/f", FILE, 0o644, size_bytes=len(_BODY)), _BODY)
    tar.entry(TarEntry(b"usr/d/" + b"n" * 120, SYMLINK, 0o777, target=b"t" * 130))
    tar.entry(TarEntry(b"etc/link", HARDLINK, 0o644, target=b"usr/d/f"))
    tar.entry(TarEntry(b"usr/.wh.gone", FILE, 0o644))
    tar.finish()
    return buffer.getvalue()


@contextmanager
def writer() -> Iterator[Writer]:
    with tempfile.TemporaryDirectory() as folder:
        repo = Repo.init(Path(folder) / "repo")
        with writing(repo, sync=False) as opened:
            yield opened


def test_attributes_that_are_links_are_read() -> None:
    with writer() as opened:
        contents, commit = import_layer(
            opened, TarReader(io.BytesIO(_chunk())), with_metadata=False
        )
        assert contents == [_sum(_HEADER, _BODY)]
        assert commit is None
        opened.publish()
        assert opened.repo.header(contents[0]) == _HEADER


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid layer with a few bytes changed; header checksums are made right again."""
    data = bytearray(draw(st.sampled_from([_chunk(), _derived()])))
    for _ in range(draw(st.integers(1, 3))):
        block = draw(st.integers(0, len(data) // 512 - 1)) * 512
        data[block + draw(st.integers(0, 511))] = draw(st.integers(0, 255))
        if draw(st.booleans()):
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%07o\0" % sum(data[block : block + 512])
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=150, deadline=None)
@given(damaged())
def test_damaged_layers_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    with writer() as opened:
        for read in (
            lambda tar: import_layer(opened, tar, with_metadata=False),
            lambda tar: import_layer(opened, tar, with_metadata=True),
            lambda tar: read_layer(opened, tar, Tree()),
        ):
            try:
                read(TarReader(io.BytesIO(data)))
            except (StrataError, OSError) as error:
                # The block of Repo.writer turns an OSError into one of ours.
                assert str(error)  # noqa: PT017
        for path in (opened.repo.path / "objects").glob("??/*.file"):
            checksum = path.parent.name + path.stem
            header = opened.repo.header(checksum)
            body = b"" if header.is_symlink else path.read_bytes()
            assert _sum(header, body) == checksum
