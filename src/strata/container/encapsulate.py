"""Encapsulate: an OSTree commit as a container image of chunks (tar layout v1).

The first layer is the commit layer: the commit, every dirtree and dirmeta, and the folders. Each
further layer is a chunk: content objects, each with hard links at the paths where it is visible.
Layers are written and compressed in threads, streaming; the same commit and packing give the same
bytes. Source: ostree-ext's tar/export.rs, as described in the tar module for every header bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strata.container.labels import COMPONENTS, image_labels
from strata.container.packing import DEFAULT_BINS, Bin, Component, chunk_name, pack
from strata.core.clock import rfc3339
from strata.core.errors import ImageError
from strata.core.events import Step
from strata.oci.compression import GzipWriter
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import (
    CONFIG,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    goarch,
)
from strata.oci.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarWriter
from strata.ostree.objects import Checksum, DirTree, pack_xattrs
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

GZIP_LEVEL = 6
_REPO = b"sysroot/ostree/repo"
_CONFIG = b"[core]\nrepo_version=1\nmode=bare-split-xattrs\n"
_FOLDERS = ("extensions", "refs", "refs/heads", "refs/mirrors", "refs/remotes", "state", "tmp")
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Layer:
    """A written layer. title: what it holds, as people say it."""

    descriptor: Descriptor
    diff_id: Digest
    title: str


@dataclass(frozen=True)
class ComponentMap:
    """Which component each file belongs to.

    components: by identifier, without sizes (they are counted here). owner: from a path in the
    tree (`/usr/bin/x`) to a component's identifier.
    """

    components: Mapping[str, Component]
    owner: Callable[[str], str]


def encapsulate(
    repo: Repo,
    commit: str,
    layout: Layout,
    components: ComponentMap,
    *,
    architecture: str,
    labels: Mapping[str, str],
    command: Sequence[str] = (),
    bins: int = DEFAULT_BINS,
    threads: int = 2,
    step: Step,
) -> Descriptor:
    """Write a commit's image into a layout; returns its manifest's descriptor (not tagged).

    labels: added to those that follow from the commit.
    Raises ObjectError, ImageError, NoSpaceError.
    """
    found = repo.commit(commit)
    tree = Tree.load(repo, commit)
    chunks = _assign(repo, tree, components, bins)
    jobs: list[Callable[[TarWriter], None]] = [lambda tar: _commit_layer(tar, repo, commit, tree)]
    titles = [found.subject or f"ostree export of commit {commit}"]
    for chunk in chunks:
        jobs.append(lambda tar, chunk=chunk: _chunk_layer(tar, repo, chunk.objects))  # type: ignore[misc]
        titles.append(chunk_name(chunk.components))
    done = 0

    def write(item: tuple[str, Callable[[TarWriter], None]]) -> Layer:
        nonlocal done
        layer = write_layer(layout, item[0], item[1])
        done += 1
        step.progress(done, len(jobs), "layers")
        return layer

    with ThreadPoolExecutor(threads) as pool:
        layers = list(pool.map(write, zip(titles, jobs)))
    descriptors = [layers[0].descriptor]
    for layer, chunk in zip(layers[1:], chunks):
        names = ",".join(sorted(item.name for item in chunk.components))
        of = layer.descriptor
        descriptors.append(Descriptor(of.media_type, of.digest, of.size_bytes, {COMPONENTS: names}))
    all_labels = image_labels(commit, found, str(layers[-1].diff_id), labels)
    created = rfc3339(found.timestamp)
    inner: dict[str, object] = {"Labels": all_labels}
    if command:
        inner["Cmd"] = list(command)
    config = ImageConfig(
        goarch(architecture),
        "linux",
        created,
        inner,
        tuple(layer.diff_id for layer in layers),
        tuple(History(created, layer.title) for layer in layers),
    )
    return write_image(layout, config, descriptors, all_labels)


def write_image(
    layout: Layout,
    config: ImageConfig,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str],
) -> Descriptor:
    """Write an image's configuration and manifest; returns the manifest's descriptor."""
    described = layout.add(config.to_bytes(), CONFIG)
    manifest = Manifest(described, tuple(layers), annotations)
    return layout.add(manifest.to_bytes(), MANIFEST)


def write_layer(layout: Layout, title: str, fill: Callable[[TarWriter], None]) -> Layer:
    """Write one gzip layer; `fill` writes its entries. The same entries give the same blob."""
    with layout.blob_writer() as blob:
        gzip = GzipWriter(blob, GZIP_LEVEL)
        tee = _Tee(gzip)
        tar = TarWriter(tee)
        fill(tar)
        tar.finish()
        tee.flush()
        gzip.finish()
    descriptor = Descriptor(LAYER_GZIP, blob.digest, blob.size_bytes)
    return Layer(descriptor, Digest(tee.digest.hexdigest()), title)


class _Tee:
    """Gathers small writes, hashes them and compresses them: many headers are one call."""

    def __init__(self, gzip: GzipWriter) -> None:
        self._gzip = gzip
        self._parts: list[bytes] = []
        self._size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        self.digest.update(data)
        self._gzip.write(data)


# --- which object goes where -------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunk:
    components: Bin
    objects: Mapping[Checksum, list[str]]


def _assign(repo: Repo, tree: Tree, components: ComponentMap, bins: int) -> list[_Chunk]:
    """Objects to components, components to bins. An object of several owners goes to the first."""
    paths: dict[Checksum, list[str]] = {}
    owners: dict[Checksum, str] = {}
    for path, checksum in tree.walk_files():
        paths.setdefault(checksum, []).append(path)
        owner = components.owner(path)
        owners[checksum] = min(owner, owners.get(checksum, owner))
    sizes: dict[str, int] = {}
    for checksum, owner in owners.items():
        sizes[owner] = sizes.get(owner, 0) + repo.size(checksum)
    sized = []
    for identifier, size in sizes.items():
        if identifier not in components.components:
            raise ImageError(f"component {identifier} owns files and is not described")
        of = components.components[identifier]
        sized.append(Component(of.identifier, of.name, of.source, of.frequency, size))
    chunks = []
    by_owner: dict[str, list[Checksum]] = {}
    for checksum, owner in owners.items():
        by_owner.setdefault(owner, []).append(checksum)
    for packed in pack(sized, bins):
        mine = sorted(c for item in packed for c in by_owner[item.identifier])
        chunks.append(_Chunk(packed, {checksum: paths[checksum] for checksum in mine}))
    return chunks


# --- layers ------------------------------------------------------------------------------------


def _object(checksum: str, kind: str) -> bytes:
    return b"%s/objects/%s/%s.%s" % (
        _REPO,
        checksum[:2].encode(),
        checksum[2:].encode(),
        kind.encode(),
    )


def _skeleton(tar: TarWriter) -> None:
    """The empty repository every layer starts with."""
    folders = [b"sysroot", b"sysroot/ostree", _REPO, _REPO + b"/objects"]
    folders += [b"%s/objects/%02x" % (_REPO, number) for number in range(256)]
    folders += [_REPO + b"/" + name.encode() for name in _FOLDERS]
    folders.append(_REPO + b"/tmp/cache")
    for folder in folders:
        tar.entry(TarEntry(folder, DIRECTORY))
    tar.entry(TarEntry(_REPO + b"/config", FILE, 0o644, size_bytes=len(_CONFIG)), _CONFIG)


def _metadata(tar: TarWriter, repo: Repo, checksum: str, kind: str) -> None:
    data = repo.read_metadata(checksum, kind)
    entry = TarEntry(_object(checksum, kind), FILE, 0o644, size_bytes=len(data))
    tar.entry(entry, data)


def _commit_layer(tar: TarWriter, repo: Repo, commit: str, tree: Tree) -> None:
    found = repo.commit(commit)
    meta = tree.meta
    tar.entry(TarEntry(b"./", DIRECTORY, meta.mode & 0o7777, meta.uid, meta.gid))
    _skeleton(tar)
    _metadata(tar, repo, commit, "commit")
    if repo.has(commit, "commitmeta"):
        _metadata(tar, repo, commit, "commitmeta")
    _metadata(tar, repo, found.root_meta, "dirmeta")
    _Structure(tar, repo, found.root_meta).write(found.root_contents, "")
    var = tree.dirs.get("var")
    if var is None or "tmp" not in var.dirs:
        tar.entry(TarEntry(b"var/tmp", DIRECTORY, 0o1777))


class _Structure:
    """The walk over folders: each dirtree and dirmeta once, each folder as an entry."""

    def __init__(self, tar: TarWriter, repo: Repo, root_meta: Checksum) -> None:
        self.tar, self.repo = tar, repo
        self.seen: set[tuple[str, Checksum]] = {("dirmeta", root_meta)}

    def _once(self, checksum: Checksum, kind: str) -> None:
        if (kind, checksum) not in self.seen:
            self.seen.add((kind, checksum))
            _metadata(self.tar, self.repo, checksum, kind)

    def write(self, contents: Checksum, path: str) -> None:
        self._once(contents, "dirtree")
        entries: DirTree = self.repo.dirtree(contents)
        for name, inner, meta in entries.dirs:
            self._once(meta, "dirmeta")
            where = f"{path}/{name}" if path else name
            if where == "sysroot":
                continue
            of = self.repo.dirmeta(meta)
            entry = TarEntry(visible_path(where), DIRECTORY, of.mode & 0o7777, of.uid, of.gid)
            self.tar.entry(entry)
            self.write(inner, where)


def visible_path(path: str) -> bytes:
    """A path of the tree as a container sees it: `usr/etc` is `etc`."""
    path = path.lstrip("/")
    if path == "usr/etc" or path.startswith("usr/etc/"):
        path = path[4:]
    return path.encode("utf-8", "surrogateescape")


def _chunk_layer(tar: TarWriter, repo: Repo, objects: Mapping[Checksum, list[str]]) -> None:
    _skeleton(tar)
    for checksum, paths in objects.items():
        _content(tar, repo, checksum, paths)


def _content(tar: TarWriter, repo: Repo, checksum: Checksum, paths: list[str]) -> None:
    header = repo.header(checksum)
    size = repo.size(checksum)
    xattrs = pack_xattrs(header.xattrs)
    link = TarEntry(_object(checksum, "file-xattrs-link"), FILE, 0o644, size_bytes=len(xattrs))
    tar.entry(link, xattrs)
    name = _object(checksum, "file")
    mode = header.mode & 0o7777
    target = header.target.encode("utf-8", "surrogateescape")
    kind = SYMLINK if header.is_symlink else FILE
    entry = TarEntry(name, kind, mode, header.uid, header.gid, size, target, header.xattrs)
    tar.entry(entry)
    if not header.is_symlink:
        with repo.open_content(checksum) as stream:
            while True:
                data = stream.read(_CHUNK)
                if not data:
                    break
                tar.body(data)
        tar.pad(size)
    for path in paths:
        where = visible_path(path)
        if kind == FILE and size == 0:
            # An empty file is not a link: some runtimes lose links to empty objects.
            tar.entry(TarEntry(where, FILE, mode, header.uid, header.gid))
        else:
            tar.entry(TarEntry(where, HARDLINK, mode, header.uid, header.gid, target=name))
