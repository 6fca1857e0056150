"""What only the commit of an encapsulated image says: the attributes of its folders, and which
object each file is.

The commit layer holds the commit, every dirtree and every dirmeta; their checksums are verified.
Untrusted: the objects' size and the number of folders and files they stand for are bounded, since a
few dirtrees that hold each other can stand for any number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from strata.container.export import visible
from strata.core.errors import ImageError
from strata.oci.tar import TarReader
from strata.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    checksum_of,
)
from strata.ostree.tree import MAX_DEPTH, MAX_FILES, MAX_FOLDERS

MAX_OBJECTS_BYTES = 256 << 20
_OBJECT_OVERHEAD = 128
_METADATA = re.compile(
    r"sysroot/ostree/repo/objects/([0-9a-f]{2})/([0-9a-f]{62})\.(commit|dirtree|dirmeta)"
)


class Objects:
    """Metadata objects by kind and checksum."""

    def __init__(self) -> None:
        self._data: dict[tuple[str, str], bytes] = {}
        self._size = 0

    def add(self, kind: str, checksum: str, data: bytes) -> None:
        """Keep one. Raises ImageError when it is damaged, or they are too many."""
        if checksum_of(data) != checksum:
            raise ImageError(f"the {kind} object {checksum} in the image is damaged")
        self._data[kind, checksum] = data
        self._size += len(data) + _OBJECT_OVERHEAD
        if self._size > MAX_OBJECTS_BYTES:
            raise ImageError(f"the commit layer has more than {MAX_OBJECTS_BYTES} bytes of objects")

    def get(self, kind: str, checksum: str) -> bytes:
        """One object's bytes. Raises ImageError when it is not there."""
        data = self._data.get((kind, checksum))
        if data is None:
            raise ImageError(f"the image's commit layer lacks the {kind} object {checksum}")
        return data

    def commits(self) -> list[str]:
        """The commits' checksums."""
        return [checksum for kind, checksum in self._data if kind == "commit"]


@dataclass(frozen=True)
class BaseTree:
    """The commit's tree as a container sees it. Paths have no leading slash; the root is empty."""

    folders: Mapping[str, DirMeta]
    files: Mapping[str, Checksum]


def collect(path: str, tar: TarReader, objects: Objects) -> bool:
    """Keep the entry at a path if it is a metadata object. Raises ImageError."""
    match = _METADATA.fullmatch(path)
    if not match:
        return False
    objects.add(match[3], match[1] + match[2], tar.read_all(MAX_METADATA_BYTES))
    return True


def walk(objects: Objects, commit: str) -> BaseTree:
    """The tree of a commit. Raises ImageError, ObjectError."""
    if commit not in objects.commits():
        raise ImageError(
            "the image's commit layer does not hold the commit its label names",
            context={"label": commit, "found": ", ".join(objects.commits())},
        )
    found = Commit.decode(objects.get("commit", commit))
    walker = _Walker(objects)
    walker.walk(found.root_contents, found.root_meta, "", 0)
    return BaseTree(walker.folders, walker.files)


class _Walker:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.folders: dict[str, DirMeta] = {}
        self.files: dict[str, Checksum] = {}

    def walk(self, contents: Checksum, meta: Checksum, path: str, depth: int) -> None:
        seen = visible(path)
        self.folders[seen] = DirMeta.decode(self._objects.get("dirmeta", meta))
        if path == "sysroot":
            return  # upstream leaves its dirtree out: what is in it is the machine's
        tree = DirTree.decode(self._objects.get("dirtree", contents))
        for name, checksum in tree.files:
            self.files[f"{seen}/{name}".lstrip("/")] = checksum
        if depth > MAX_DEPTH or len(self.folders) > MAX_FOLDERS or len(self.files) > MAX_FILES:
            raise ImageError("the image's commit stands for a tree beyond all bounds")
        for name, inner, of in tree.dirs:
            self.walk(inner, of, f"{path}/{name}".lstrip("/"), depth + 1)
