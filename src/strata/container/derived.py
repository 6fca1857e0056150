"""Reading derived layers, and laying them over a base tree.

A derived layer's tar becomes a tree of its own (whiteouts are ordinary names in it) and a commit.
Paths: `usr/…` stays, `etc/…` becomes `usr/etc/…`, `var/…` becomes `usr/share/factory/var/…` (or
stays, for libostree from 2024.3 on); of `run tmp proc sys dev` only the folder itself is kept;
anything else is dropped and counted, unless the system's root is transient or composefs. Files
below `sysroot/ostree/repo` are only what links point to.

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
from strata.ostree.writer import Writer, content_checksum

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_ENTRIES = 1 << 20
_KEPT_EMPTY = ("run", "tmp", "proc", "sys", "dev")
_NOTHING = FileHeader(0, 0, S_IFREG | 0o644)
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


@dataclass(frozen=True)
class Rules:
    """Which paths of a container a tree takes.

    other_tops: whether top-level folders beside usr, etc and var are kept. keep_var: whether /var
    stays where it is (libostree from 2024.3 on copies it at deploy time). without: a folder of the
    tree whose files are not stored, though the tree names them: the machine has its own there.
    """

    other_tops: bool = False
    keep_var: bool = False
    without: str = ""

    def stores(self, path: str) -> bool:
        """Whether the content of the file at a path is stored."""
        return not self.without or not path.startswith(self.without + "/")


def map_path(parts: list[str], rules: Rules = Rules()) -> list[str] | None:
    """Where a path of a container goes in an OSTree tree; None when it is dropped."""
    if not parts:
        return []
    top = parts[0]
    if top == OPAQUE:
        return parts
    if top.startswith(WHITEOUT) and len(parts) == 1:
        # What is removed stands where the thing itself would.
        where = map_path([top[len(WHITEOUT) :]], rules)
        return [*where[:-1], WHITEOUT + where[-1]] if where else None
    if top == "usr":
        return parts
    if top == "etc":
        return ["usr", *parts]
    if top == "var":
        return parts if rules.keep_var else ["usr", "share", "factory", *parts]
    if top in _KEPT_EMPTY:
        return parts if len(parts) == 1 else None
    return parts if rules.other_tops else None


def read_layer(
    writer: Writer,
    tar: TarReader,
    base: Tree,
    rules: Rules = Rules(),
) -> LayerTree:
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
            if entry.type in (FILE, SYMLINK):
                stored[tuple(parts)] = _write(writer, tar, entry)
            continue
        where = map_path(parts, rules)
        if where is None:
            name = parts[1] if parts[0] in _KEPT_EMPTY else parts[0]
            layer.dropped[name] = layer.dropped.get(name, 0) + 1
            continue
        _add(writer, tar, entry, where, layer, _Links(layer.tree, base, stored, rules))
    return layer


@dataclass(frozen=True)
class _Links:
    """Where the target of a hard link is looked up: the image's own store, the layer, the base."""

    layer: Tree
    base: Tree
    stored: dict[tuple[str, ...], Checksum]
    rules: Rules

    def find(self, target: list[str]) -> Checksum:
        if tuple(target) in self.stored:
            return self.stored[tuple(target)]
        where = map_path(target, self.rules)
        path = "/".join(where) if where is not None else ""
        for tree in (self.layer, self.base):
            found = tree.lookup(path) if path else None
            if isinstance(found, str):
                return found
        raise ImageError(
            f"a hard link in a layer points to /{'/'.join(target)}, which is not there before it"
        )


def _add(
    writer: Writer,
    tar: TarReader,
    entry: TarEntry,
    where: list[str],
    layer: LayerTree,
    links: _Links,
) -> None:
    if where and where[-1].startswith(WHITEOUT):
        # Of a whiteout only the name counts, as container runtimes have it.
        parent = _folder(layer, where[:-1])
        parent.files[check_name(where[-1])] = writer.content(_NOTHING, b"")
        return
    if entry.type == DIRECTORY:
        folder = _folder(layer, where)
        folder.meta = DirMeta(entry.uid, entry.gid, S_IFDIR | entry.mode, _xattrs(entry))
        layer.implied.discard("/".join(where))
        return
    if not where:
        raise ImageError("a layer's root is not a folder")
    if entry.type in (FILE, SYMLINK):
        stored = links.rules.stores("/".join(where))
        checksum = _write(writer, tar, entry) if stored else _name(tar, entry)
    elif entry.type == HARDLINK:
        checksum = links.find(split_path(entry.target))
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


def _write(writer: Writer, tar: TarReader, entry: TarEntry) -> Checksum:
    header = _header(entry)
    return writer.content(header, None if header.is_symlink else tar)


def _name(tar: TarReader, entry: TarEntry) -> Checksum:
    return content_checksum(_header(entry), tar)


def _header(entry: TarEntry) -> FileHeader:
    if entry.type == SYMLINK:
        target = entry.target.decode("utf-8", "surrogateescape")
        if not target:
            raise ImageError("a link in a layer points to nothing")
        return FileHeader(entry.uid, entry.gid, S_IFLNK | 0o777, target, _xattrs(entry))
    return FileHeader(entry.uid, entry.gid, S_IFREG | entry.mode, "", _xattrs(entry))


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
