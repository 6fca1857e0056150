"""Reading derived layers, and laying them over a base tree.

A derived layer's tar becomes a tree of its own (whiteouts are ordinary names in it) and a commit.
Paths: `usr/…` stays, `etc/…` becomes `usr/etc/…`, `var/…` becomes `usr/share/factory/var/…` (as
libostree before 2024.3 has it); of `run tmp proc sys dev` only the folder itself is kept; anything
else is dropped and counted. Files below `sysroot/ostree/repo` are only what links point to.

Laying over follows the OCI image specification: an entry replaces whatever has its name, a folder
meets a folder by merging. (libostree's union checkout refuses a folder over a file and writes
through a lower link to a folder; here the link is replaced.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from strata.core.errors import ImageError
from strata.oci.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarReader
from strata.ostree.objects import (
    S_IFDIR,
    S_IFLNK,
    S_IFREG,
    Checksum,
    DirMeta,
    FileHeader,
    Xattrs,
    check_name,
)
from strata.ostree.tree import MAX_DEPTH, Tree
from strata.ostree.writer import Writer

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_ENTRIES = 1 << 21
_KEPT_EMPTY = ("run", "tmp", "proc", "sys", "dev")
_STORE = ("sysroot", "ostree", "repo")


@dataclass
class LayerTree:
    """A derived layer. implied: folders that no entry described, made for what is in them.

    dropped: how many entries were left out, by the name that decided it.
    """

    tree: Tree = field(default_factory=Tree)
    implied: set[str] = field(default_factory=set)
    dropped: dict[str, int] = field(default_factory=dict)


def split_path(path: bytes) -> list[str]:
    """A tar path as names. Raises ImageError when it climbs, is not UTF-8, or is too deep."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise ImageError(f"a path in a layer is not UTF-8: {path!r}") from None
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > MAX_DEPTH or "\0" in text:
        raise ImageError(f"a path in a layer leaves its root or is too deep: {text!r}")
    return parts


def map_path(parts: list[str]) -> list[str] | None:
    """Where a path of a container goes in an OSTree tree; None when it is dropped."""
    if not parts:
        return []
    top = parts[0]
    if top == "usr":
        return parts
    if top == "etc":
        return ["usr", *parts]
    if top == "var":
        return ["usr", "share", "factory", *parts]
    if top in _KEPT_EMPTY and len(parts) == 1:
        return parts
    return None


def read_layer(writer: Writer, tar: TarReader, base: Tree) -> LayerTree:
    """Write a derived layer's files as objects and return its tree.

    base: the tree below, which hard links may point into. Raises ImageError, NoSpaceError.
    """
    layer = LayerTree()
    stored: dict[tuple[str, ...], Checksum] = {}
    count = 0
    for entry in tar:
        count += 1
        if count > MAX_ENTRIES:
            raise ImageError(f"a layer has more than {MAX_ENTRIES} entries")
        parts = split_path(entry.path)
        if tuple(parts[:3]) == _STORE:
            if entry.type == FILE:
                stored[tuple(parts)] = _write(writer, tar, entry)
            continue
        where = map_path(parts)
        if where is None:
            name = parts[1] if parts[0] in _KEPT_EMPTY else parts[0]
            layer.dropped[name] = layer.dropped.get(name, 0) + 1
            continue
        _add(writer, tar, entry, where, layer, stored, base)
    return layer


def _add(
    writer: Writer,
    tar: TarReader,
    entry: TarEntry,
    where: list[str],
    layer: LayerTree,
    stored: dict[tuple[str, ...], Checksum],
    base: Tree,
) -> None:
    if entry.type == DIRECTORY:
        folder = _folder(layer, where)
        folder.meta = DirMeta(entry.uid, entry.gid, S_IFDIR | entry.mode, _xattrs(entry))
        layer.implied.discard("/".join(where))
        return
    if not where:
        raise ImageError("a layer's root is not a folder")
    if entry.type in (FILE, SYMLINK):
        checksum = _write(writer, tar, entry)
    elif entry.type == HARDLINK:
        checksum = _linked(entry, layer, stored, base)
    else:
        raise ImageError(
            f"/{'/'.join(where)} in a layer is a device or a pipe, which no commit can hold"
        )
    folder = _folder(layer, where[:-1])
    name = check_name(where[-1])
    folder.dirs.pop(name, None)
    folder.files[name] = checksum


def _folder(layer: LayerTree, where: list[str]) -> Tree:
    """The folder at a path in the layer, made with its parents where no entry described them."""
    current = layer.tree
    for depth, part in enumerate(where, 1):
        current.files.pop(part, None)
        if part not in current.dirs:
            current.dirs[check_name(part)] = Tree()
            layer.implied.add("/".join(where[:depth]))
        current = current.dirs[part]
    return current


def _linked(
    entry: TarEntry,
    layer: LayerTree,
    stored: dict[tuple[str, ...], Checksum],
    base: Tree,
) -> Checksum:
    target = split_path(entry.target)
    if tuple(target) in stored:
        return stored[tuple(target)]
    where = map_path(target)
    path = "/".join(where) if where is not None else ""
    for tree in (layer.tree, base):
        found = tree.lookup(path) if path else None
        if isinstance(found, str):
            return found
    raise ImageError(
        f"a hard link in a layer points to /{'/'.join(target)}, which is not there before it"
    )


def _write(writer: Writer, tar: TarReader, entry: TarEntry) -> Checksum:
    if entry.type == SYMLINK:
        target = entry.target.decode("utf-8", "surrogateescape")
        if not target:
            raise ImageError("a link in a layer points to nothing")
        header = FileHeader(entry.uid, entry.gid, S_IFLNK | 0o777, target, _xattrs(entry))
        return writer.content(header, None)
    header = FileHeader(entry.uid, entry.gid, S_IFREG | entry.mode, "", _xattrs(entry))
    return writer.content(header, tar)


def _xattrs(entry: TarEntry) -> Xattrs:
    """Sorted, without those of empty value, which libostree leaves out, and without overlayfs's
    own, which would change what a checkout shows when it is the lower side of a mount."""
    for name, _ in entry.xattrs:
        if not name or b"\0" in name:
            raise ImageError(
                f"an extended attribute of {entry.path!r} in a layer has no proper name"
            )
    kept = [
        (name, value)
        for name, value in entry.xattrs
        if value and not name.startswith(b"trusted.overlay.")
    ]
    return tuple(sorted(kept))


def overlay(lower: Tree, layer: Tree, implied: set[str], path: str = "") -> Tree:
    """A layer's tree laid over a lower one: a new tree; neither is changed.

    implied: the layer's folders that carry no metadata of their own.
    """
    opaque = OPAQUE in layer.files
    result = Tree(
        lower.meta if path in implied or not path else layer.meta,
        {} if opaque else dict(lower.files),
        {} if opaque else dict(lower.dirs),
    )
    if not opaque:
        for name in layer.files:
            if name.startswith(WHITEOUT):
                result.files.pop(name[len(WHITEOUT) :], None)
                result.dirs.pop(name[len(WHITEOUT) :], None)
    for name, checksum in layer.files.items():
        if not name.startswith(WHITEOUT):
            result.dirs.pop(name, None)
            result.files[name] = checksum
    for name, inner in layer.dirs.items():
        result.files.pop(name, None)
        where = f"{path}/{name}" if path else name
        below = result.dirs.get(name)
        if below is None:
            below = Tree(inner.meta)
        result.dirs[name] = overlay(below, inner, implied, where)
    return result
