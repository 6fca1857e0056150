"""The files of an image: its layers laid over each other, as a container would show them.

Each layer is read once, streaming, several at a time. An entry replaces whatever has its name, a
folder meets a folder by merging, whiteouts and opaque folders hide what is below their layer (OCI
image specification). A folder replaces a lower link of its name: nothing is followed. A hard link
is what it points to.

Modes, owners and attributes of an encapsulated file are its object's, those of a folder the
commit's. The repository below `sysroot/ostree` is not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from strata.core.errors import ImageError
from strata.core.events import Step
from strata.core.text import shown
from strata.inspect.commitlayer import BaseTree
from strata.inspect.entries import REPO, Budget, File, LayerEntries, read_layer
from strata.inspect.view import ImageView, LayerView
from strata.oci.digest import Digest
from strata.oci.source import ImageSource

LayerKey = tuple[int, Digest, str, bool]


@dataclass(frozen=True)
class ImageFiles:
    """path (with a leading slash, `/` for the root) → file, folders before what is in them.

    base: the same of the base's layers alone.
    """

    files: Mapping[str, File]
    base: Mapping[str, File]


def read_files(
    source: ImageSource,
    view: ImageView,
    *,
    digests: bool = True,
    threads: int = 2,
    step: Step | None = None,
    known: dict[LayerKey, LayerEntries] | None = None,
) -> ImageFiles:
    """Every file of an image.

    digests: whether the files' bytes are hashed. known: layers read before, for the next image that
    has them; this image's are added. Raises ImageError, DigestError, TransportError.
    """
    seen = {} if known is None else known
    budget = Budget()
    done = 0

    def read(layer: LayerView) -> LayerEntries:
        key = (layer.number, layer.digest, layer.kind, digests)
        if key not in seen:
            seen[key] = read_layer(source, view, layer, digests, budget)
        return seen[key]

    squash = _Squash()
    base: dict[str, File] = {}
    with ThreadPoolExecutor(threads) as pool:
        reading = [pool.submit(read, layer) for layer in view.layers]
        try:
            for layer, future in zip(view.layers, reading, strict=True):
                squash.apply(future.result(), layer)
                if layer.number == view.base_layers:
                    squash.settle(reading[0].result().base)
                    base = squash.listing(hidden=REPO)
                done += layer.size_bytes
                if step:
                    step.progress(done, view.size_bytes)
        except BaseException:
            for future in reading:
                future.cancel()
            raise
    return ImageFiles(squash.listing(hidden=REPO if view.base_layers else ""), base)


def _implied(number: int) -> File:
    """A folder that no entry describes, made for what is in it."""
    return File("dir", 0o755, 0, 0, 0, "", (), "", number, number)


@dataclass(slots=True)
class _Folder:
    meta: File
    children: dict[str, _Folder | File] = field(default_factory=dict)


class _Squash:
    """The layers laid over each other so far."""

    def __init__(self) -> None:
        self.root = _Folder(_implied(1))

    def apply(self, layer: LayerEntries, of: LayerView) -> None:
        """Lay a layer on top. Raises ImageError on a hard link to nothing."""
        # What a layer hides is below it, wherever in the layer it says so.
        for path in layer.opaque:
            folder = self._find(path)
            if isinstance(folder, _Folder):
                folder.children.clear()
        for path in layer.removed:
            where, _, name = path.rpartition("/")
            parent = self._find(where)
            if isinstance(parent, _Folder):
                parent.children.pop(name, None)
        for path, item in layer.entries:
            if isinstance(item, File):
                self._put(path, item, of.number)
                continue
            target = self._find(item)
            if not isinstance(target, File) or not path:
                raise ImageError(
                    f"/{shown(path)} in {of} is a hard link to /{shown(item)}, "
                    "which is not a file before it"
                )
            self._put(path, replace(target, layer=of.number), of.number)

    def settle(self, tree: BaseTree | None) -> None:
        """Give the base's folders and empty files what only the commit says of them.

        Folders carry no attributes in the tar, and an empty file is no link to its object.
        """
        if tree is None:
            return
        for path, meta in tree.folders.items():
            folder = self._find(path)
            if isinstance(folder, _Folder):
                folder.meta = replace(
                    folder.meta,
                    mode=meta.mode & 0o7777,
                    uid=meta.uid,
                    gid=meta.gid,
                    xattrs=meta.xattrs,
                )
        for path, checksum in tree.files.items():
            file = self._find(path)
            if isinstance(file, File) and file.kind == "file" and not file.size_bytes:
                of = self._find(f"{REPO}/repo/objects/{checksum[:2]}/{checksum[2:]}.file")
                if isinstance(of, File):
                    self._put(path, replace(file, xattrs=of.xattrs), file.layer)

    def listing(self, *, hidden: str) -> dict[str, File]:
        """Every path but those at and below `hidden`."""
        found: dict[str, File] = {}
        _list(self.root, "", hidden, found)
        return found

    def _find(self, path: str) -> _Folder | File | None:
        current: _Folder | File = self.root
        for part in path.split("/") if path else ():
            inner = current.children.get(part) if isinstance(current, _Folder) else None
            if inner is None:
                return None
            current = inner
        return current

    def _put(self, path: str, file: File, number: int) -> None:
        if not path:
            self.root.meta = file
            return
        *parents, name = path.split("/")
        folder = self.root
        for part in parents:
            inner = folder.children.get(part)
            if not isinstance(inner, _Folder):
                inner = folder.children[part] = _Folder(_implied(number))
            folder = inner
        if file.kind != "dir":
            folder.children[name] = file
            return
        there = folder.children.get(name)
        if isinstance(there, _Folder):
            there.meta = file
        else:
            folder.children[name] = _Folder(file)


def _list(folder: _Folder, path: str, hidden: str, found: dict[str, File]) -> None:
    found[f"/{path}"] = folder.meta
    for name in sorted(folder.children):
        inner = folder.children[name]
        where = f"{path}/{name}" if path else name
        if where == hidden:
            continue
        if isinstance(inner, _Folder):
            _list(inner, where, hidden, found)
        else:
            found[f"/{where}"] = inner
