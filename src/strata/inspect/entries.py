"""Reading one layer's tar as values: files with their metadata, hard links, whiteouts.

In an encapsulated image files are hard links to objects below `sysroot/ostree/repo`. An object's
extended attributes stand before it in a file of their own (SELinux labels are nowhere else).
Untrusted: entries, text and depth are bounded over the whole image; nothing is written to disk.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field

from strata.container.derived import OPAQUE, WHITEOUT
from strata.core.errors import ImageError
from strata.core.text import shown
from strata.inspect.commitlayer import BaseTree, Objects, collect, walk
from strata.inspect.stream import open_tar
from strata.inspect.view import ImageView, LayerView
from strata.oci.source import ImageSource
from strata.oci.tar import (
    BLOCKDEV,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    TarEntry,
    TarReader,
)
from strata.ostree.objects import Xattrs, unpack_xattrs
from strata.ostree.tree import MAX_DEPTH

MAX_ENTRIES = 1 << 21
MAX_TEXT_BYTES = 256 << 20
MAX_XATTRS_BYTES = 1 << 20
REPO = "sysroot/ostree"
KINDS = {
    FILE: "file",
    SYMLINK: "link",
    DIRECTORY: "dir",
    CHARACTER: "char",
    BLOCKDEV: "block",
    FIFO: "fifo",
}
_XATTRS = re.compile(r"(sysroot/ostree/repo/objects/../.{62})\.file-xattrs(-link)?", re.DOTALL)
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class File:
    """What is at a path. kind: file, link, dir, char, block or fifo; mode: the permission bits.

    digest: sha256 of a regular file's bytes in hex, empty when they were not read. layer: the
    number of the layer that put it there; stored: of the one that holds its bytes.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size_bytes: int
    target: str
    xattrs: Xattrs
    digest: str
    layer: int
    stored: int

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        document: dict[str, object] = {
            "type": self.kind,
            "mode": f"{self.mode:04o}",
            "uid": self.uid,
            "gid": self.gid,
            "size": self.size_bytes,
            "layer": self.layer,
        }
        if self.kind == "link":
            document["target"] = shown(self.target)
        if self.xattrs:
            document["xattrs"] = {shown(text(name)): value.hex() for name, value in self.xattrs}
        if self.digest:
            document["sha256"] = self.digest
        return document


@dataclass
class LayerEntries:
    """What one layer says, in its order; a text in place of a file is the path that a hard link
    points to. removed, opaque: what it hides of the layers below. base: of the commit layer."""

    entries: list[tuple[str, File | str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)
    base: BaseTree | None = None


def text(data: bytes) -> str:
    """Bytes of a name as text; those that are not UTF-8 survive."""
    return data.decode("utf-8", "surrogateescape")


def normal_path(path: bytes) -> str:
    """A tar path without `.` and doubled slashes; the root is empty.

    Raises ImageError when it climbs out or is too deep.
    """
    parts = [part for part in text(path).split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > MAX_DEPTH:
        raise ImageError(f"a path in a layer leaves its root or is too deep: {shown(text(path))}")
    return "/".join(parts)


class Budget:
    """How many entries and how much text an image may have, over all its layers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries = self._text = 0

    def spend(self, entry: TarEntry) -> None:
        """Count an entry. Raises ImageError when it is one too many."""
        size = len(entry.path) + len(entry.target)
        size += sum(len(name) + len(value) for name, value in entry.xattrs)
        with self._lock:
            self._entries += 1
            self._text += size
            if self._entries > MAX_ENTRIES or self._text > MAX_TEXT_BYTES:
                raise ImageError(
                    f"the image has more than {MAX_ENTRIES} entries or {MAX_TEXT_BYTES} bytes of "
                    "names and attributes"
                )


def read_layer(
    source: ImageSource, view: ImageView, layer: LayerView, digests: bool, budget: Budget
) -> LayerEntries:
    """One layer's entries. Raises ImageError, DigestError, TransportError."""
    found = LayerEntries()
    encapsulated = layer.kind != "derived"
    objects = Objects()
    xattrs: dict[str, Xattrs] = {}
    with open_tar(source, layer.descriptor) as tar:
        for entry in tar:
            budget.spend(entry)
            path = normal_path(entry.path)
            inside = encapsulated and path.startswith(REPO + "/")
            if inside and layer.kind == "commit" and collect(path, tar, objects):
                continue
            match = _XATTRS.fullmatch(path) if inside else None
            if match and entry.type == FILE:
                xattrs[match[1]] = unpack_xattrs(tar.read_all(MAX_XATTRS_BYTES))
            elif match and entry.type == HARDLINK:
                linked = _XATTRS.fullmatch(normal_path(entry.target))
                if not linked or linked[1] not in xattrs:
                    raise ImageError(f"the extended attributes /{path} links to are missing")
                xattrs[match[1]] = xattrs[linked[1]]
            else:
                of_object = xattrs.get(path[: -len(".file")]) if path.endswith(".file") else None
                _add(found, tar, entry, path, of_object, layer, digests)
    if layer.kind == "commit":
        found.base = walk(objects, view.commit)
    return found


def _add(
    found: LayerEntries,
    tar: TarReader,
    entry: TarEntry,
    path: str,
    of_object: Xattrs | None,
    layer: LayerView,
    digests: bool,
) -> None:
    parent, _, name = path.rpartition("/")
    if name == OPAQUE:
        found.opaque.append(parent)
    elif name.startswith(WHITEOUT):
        hidden = name[len(WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise ImageError(f"the whiteout /{shown(path)} in {layer} names nothing")
        found.removed.append(f"{parent}/{hidden}".lstrip("/"))
    elif entry.type == HARDLINK:
        found.entries.append((path, normal_path(entry.target)))
    elif entry.type not in KINDS:
        raise ImageError(f"/{shown(path)} in {layer} is of a type that is not known")
    elif not path and entry.type != DIRECTORY:
        raise ImageError(f"the root in {layer} is not a folder")
    else:
        kept = entry.xattrs if of_object is None else of_object
        file = File(
            KINDS[entry.type],
            0o777 if entry.type == SYMLINK else entry.mode,
            entry.uid,
            entry.gid,
            entry.size_bytes if entry.type == FILE else 0,
            text(entry.target) if entry.type == SYMLINK else "",
            tuple(sorted(kept)),
            _hash(tar) if digests and entry.type == FILE else "",
            layer.number,
            layer.number,
        )
        found.entries.append((path, file))


def _hash(tar: TarReader) -> str:
    digest = hashlib.sha256()
    while True:
        data = tar.read(_CHUNK)
        if not data:
            return digest.hexdigest()
        digest.update(data)
