"""Derive: what differs from a base image becomes layers on top of it.

The difference is read from the upper side of an overlay mount, or by comparing a whole directory
tree with the base. Content that equals the base's, by content and metadata, is left out: overlayfs
copies up whole files for a touched time.

Deleted files become whiteouts, replaced folders opaque folders; all of these are in one layer below
the others, since they speak of the base alone and must not hide what another layer brings. A folder
in a file's place has a whiteout too: libostree's checkout would otherwise refuse it, or write
through a link. Entries are split by owner, so that a new package of one kind moves only its own
layer; what no package owns is one layer, the package database another. Every layer carries the
folders above its entries with their metadata, so that any runtime unpacks it right.

Entries are in order of path, times are 0: the same upper side gives the same layers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from strata.container.derived import OPAQUE, WHITEOUT
from strata.container.labels import LAYER_TITLE
from strata.container.layers import Layer, write_image, write_layer
from strata.core.errors import ImageError
from strata.oci.layout import Layout
from strata.oci.model import Descriptor, History, ImageConfig, Manifest
from strata.oci.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarWriter
from strata.ostree.modes import read_xattrs
from strata.ostree.objects import DirMeta
from strata.ostree.scan import dir_meta, file_checksum
from strata.ostree.tree import Tree

REMOVALS = "removed from the base"
CONFIGURATION = "configuration"
MAX_LAYERS = 20
_CHUNK = 1 << 18
_OPAQUE_XATTR = "trusted.overlay.opaque"


@dataclass(frozen=True)
class Change:
    """One entry of the upper side. path: in the container, without a leading slash.

    kind: file, symlink, dir, whiteout or opaque; disk: where it is on disk, empty for the last two.
    """

    path: str
    kind: str
    disk: str


def container_view(tree: Tree) -> Tree:
    """A commit's tree as a container sees it: `/usr/etc` is `/etc`."""
    usr = tree.dirs.get("usr")
    if usr is None or "etc" not in usr.dirs:
        return tree
    inner = Tree(usr.meta, usr.files, {k: v for k, v in usr.dirs.items() if k != "etc"})
    return Tree(tree.meta, tree.files, {**tree.dirs, "usr": inner, "etc": usr.dirs["etc"]})


def changes(upper: str, base: Tree) -> list[Change]:
    """What an overlay's upper side changes of a base (in the container's view), sorted by path.

    Raises ImageError on devices and sockets, and on names that begin as whiteouts do.
    """
    found: list[Change] = []
    _walk(upper, "", base, found, whole=False)
    return sorted(found, key=_by_path)


def tree_changes(root: str, base: Tree) -> list[Change]:
    """The same from a whole tree on disk: what it has not was removed. Raises ImageError."""
    found: list[Change] = []
    _walk(root, "", base, found, whole=True)
    return sorted(found, key=_by_path)


def _by_path(change: Change) -> bytes:
    return change.path.encode("utf-8", "surrogateescape")


def _walk(folder: str, path: str, base: Tree | None, found: list[Change], *, whole: bool) -> None:
    names = sorted(os.listdir(folder))
    if whole and base is not None:
        for name in (base.files.keys() | base.dirs.keys()) - set(names):
            found.append(_whiteout(path, name))
    for name in names:
        disk, where = f"{folder}/{name}", f"{path}/{name}" if path else name
        if name.startswith(WHITEOUT):
            raise ImageError(f"/{where} cannot be in a layer: its name says that a file is removed")
        status = os.lstat(disk)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 and not whole:
            if base and (name in base.files or name in base.dirs):
                found.append(_whiteout(path, name))
        elif stat.S_ISDIR(status.st_mode):
            if base and name in base.files:
                found.append(_whiteout(path, name))
            below = base.dirs.get(name) if base else None
            if below is not None and not whole and _is_opaque(disk):
                found.append(Change(f"{where}/{OPAQUE}", "opaque", ""))
                below = Tree(below.meta)
            if below is None or dir_meta(disk) != below.meta:
                found.append(Change(where, "dir", disk))
            _walk(disk, where, below, found, whole=whole)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            if base is None or base.files.get(name) != file_checksum(disk):
                kind = "symlink" if stat.S_ISLNK(status.st_mode) else "file"
                found.append(Change(where, kind, disk))
        else:
            raise ImageError(f"/{where} is a device, a pipe or a socket, which no layer can hold")


def _whiteout(path: str, name: str) -> Change:
    return Change(f"{path}/{WHITEOUT}{name}".lstrip("/"), "whiteout", "")


def _is_opaque(disk: str) -> bool:
    try:
        return os.getxattr(disk, _OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def group(
    found: Sequence[Change],
    owner: Callable[[str], str | None],
    last: Sequence[str],
    prior: Collection[str] = (),
) -> list[tuple[str, list[Change]]]:
    """Changes by layer: what is removed, owners in order, what nobody owns, the owners in `last`.

    owner: from `/path` to a layer's title, or None. When there are too many the smallest join;
    those in `prior`, the titles of the image before, count twice their size, so that none goes in
    or out because some bytes came or went. The same image as prior gives the same groups.
    """
    groups: dict[str, list[Change]] = {}
    for change in found:
        removes = change.kind in ("whiteout", "opaque")
        title = REMOVALS if removes else owner(f"/{change.path}") or CONFIGURATION
        groups.setdefault(title, []).append(change)
    head = [REMOVALS] if REMOVALS in groups else []
    tail = [name for name in (CONFIGURATION, *last) if name in groups]
    names = sorted(name for name in groups if name not in (*head, *tail))
    room = MAX_LAYERS - len(head) - len(tail)
    if len(names) > room:
        weights = {name: _size(groups[name]) * (2 if name in prior else 1) for name in names}
        by_size = sorted(names, key=lambda name: (-weights[name], name not in prior, name))
        joined = sorted(by_size[room - 1 :])
        title = f"{len(joined)} small packages"
        groups[title] = sorted((change for name in joined for change in groups[name]), key=_by_path)
        names = [*sorted(by_size[: room - 1]), title]
    return [(name, groups[name]) for name in (*head, *names, *tail)]


def _size(found: Sequence[Change]) -> int:
    return sum(os.lstat(change.disk).st_size for change in found if change.kind == "file")


def write_changes(
    layout: Layout,
    title: str,
    found: Sequence[Change],
    base: Tree,
    upper: str,
    known: Layer | None = None,
    compression: str = "gzip",
) -> Layer:
    """Write a group of changes as one layer.

    known: the layer it may be again. compression: one of `compress.COMPRESSIONS`.
    """

    def fill(tar: TarWriter) -> None:
        _LayerWriter(tar, base, upper, found).write()

    return write_layer(layout, title, fill, compression, known)


class _LayerWriter:
    def __init__(self, tar: TarWriter, base: Tree, upper: str, found: Sequence[Change]) -> None:
        self.tar, self.base, self.upper, self.found = tar, base, upper, found
        self.folders: set[str] = set()
        self.inodes: dict[tuple[int, int], bytes] = {}

    def write(self) -> None:
        for change in self.found:
            parent = change.path.rpartition("/")[0]
            if change.kind == "dir":
                self._folder(change.path)
                continue
            self._folder(parent)
            name = change.path.encode("utf-8", "surrogateescape")
            if change.kind in ("whiteout", "opaque"):
                self.tar.entry(TarEntry(name, FILE, 0o644))
            else:
                self._file(name, change)

    def _folder(self, path: str) -> None:
        """A folder's entry after its parents', once."""
        if not path or path in self.folders:
            return
        self._folder(path.rpartition("/")[0])
        self.folders.add(path)
        disk = f"{self.upper}/{path}"
        known = self.base.folder(path)
        meta: DirMeta
        if os.path.isdir(disk) and not os.path.islink(disk):
            meta = dir_meta(disk)
        elif known is not None:
            meta = known.meta
        else:
            return
        name = path.encode("utf-8", "surrogateescape")
        mode = meta.mode & 0o7777
        self.tar.entry(TarEntry(name, DIRECTORY, mode, meta.uid, meta.gid, xattrs=meta.xattrs))

    def _file(self, name: bytes, change: Change) -> None:
        status = os.lstat(change.disk)
        mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        xattrs = read_xattrs(change.disk)
        if change.kind == "symlink":
            target = os.fsencode(os.readlink(change.disk))
            self.tar.entry(TarEntry(name, SYMLINK, 0o777, uid, gid, 0, target, xattrs))
            return
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and inode in self.inodes:
            self.tar.entry(TarEntry(name, HARDLINK, mode, uid, gid, target=self.inodes[inode]))
            return
        self.inodes[inode] = name
        self.tar.entry(TarEntry(name, FILE, mode, uid, gid, status.st_size, b"", xattrs))
        with open(change.disk, "rb", buffering=0) as stream:
            left = status.st_size
            while left:
                data = stream.read(min(_CHUNK, left))
                if not data:
                    raise ImageError(f"/{change.path} became shorter while it was read")
                self.tar.body(data)
                left -= len(data)
        self.tar.pad(status.st_size)


def file_layer(
    layout: Layout,
    title: str,
    files: Mapping[str, bytes],
    base: Tree,
    compression: str = "gzip",
) -> Layer:
    """A layer of files given as bytes by path, root's and 0644, with the folders above them."""

    def fill(tar: TarWriter) -> None:
        made: set[str] = set()
        for path in sorted(files):
            parts = path.split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in made:
                    made.add(folder)
                    known = base.folder(folder)
                    meta = known.meta if known else DirMeta()
                    mode = meta.mode & 0o7777
                    tar.entry(TarEntry(folder.encode(), DIRECTORY, mode, meta.uid, meta.gid))
            data = files[path]
            tar.entry(TarEntry(path.encode(), FILE, 0o644, size_bytes=len(data)), data)

    return write_layer(layout, title, fill, compression)


def append_layers(
    layout: Layout,
    manifest: Manifest,
    config: ImageConfig,
    layers: Sequence[Layer],
    *,
    labels: Mapping[str, str],
    created: str,
) -> Descriptor:
    """The image of a base with layers on top; returns its manifest's descriptor.

    The base's layers come first, unchanged; its configuration is inherited, labels added.
    """
    inner = {**config.config, "Labels": {**config.labels, **labels}}
    derived_config = replace(
        config,
        created=created,
        config=inner,
        diff_ids=(*config.diff_ids, *(layer.diff_id for layer in layers)),
        history=(*config.history, *(History(created, layer.title) for layer in layers)),
    )
    descriptors = [
        Descriptor(
            layer.descriptor.media_type,
            layer.descriptor.digest,
            layer.descriptor.size_bytes,
            {LAYER_TITLE: layer.title},
        )
        for layer in layers
    ]
    annotations = {**manifest.annotations, **labels}
    return write_image(layout, derived_config, [*manifest.layers, *descriptors], annotations)
