"""Reading commit and chunk layers (tar layout v1) into a repository.

Only what is below `sysroot/ostree/repo/objects/` counts; visible paths, folders and `config` are
for container runtimes. Each content object is preceded by its extended attributes; its checksum is
in its name and is verified as it is written. Source: ostree-ext's tar/import.rs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from strata.core.errors import ImageError
from strata.oci.tar import FILE, HARDLINK, SYMLINK, TarEntry, TarReader
from strata.ostree.gvariant import unpack_variant_map
from strata.ostree.objects import (
    MAX_METADATA_BYTES,
    S_IFLNK,
    S_IFREG,
    Checksum,
    FileHeader,
    Xattrs,
    unpack_xattrs,
)
from strata.ostree.writer import Writer

MAX_XATTRS_BYTES = 1 << 20
_OBJECT = re.compile(
    rb"(?:\./)?sysroot/ostree/repo/objects/([0-9a-f]{2})/([0-9a-f]{62})"
    rb"\.(commit|commitmeta|dirtree|dirmeta|file|file-xattrs|file-xattrs-link)"
)
_METADATA = ("commit", "commitmeta", "dirtree", "dirmeta")


@dataclass(frozen=True)
class CommitObject:
    """A commit as a layer brings it, not yet written: its bytes, and its detached metadata's."""

    checksum: Checksum
    data: bytes
    detached: bytes = b""

    def write(self, writer: Writer) -> None:
        """Write both. Raises DigestError, ObjectError."""
        unpack_variant_map(self.detached)
        writer.metadata("commit", self.data, self.checksum)
        if self.detached:
            writer.detached_metadata(self.checksum, self.detached)


def import_layer(
    writer: Writer,
    tar: TarReader,
    *,
    with_metadata: bool,
    verify: Callable[[CommitObject], None] | None = None,
    skip: Collection[str] = (),
) -> tuple[list[Checksum], CommitObject | None]:
    """Write a layer's objects; returns the content objects, and the commit for the caller to write.

    with_metadata: whether this is the commit layer. verify: asked of the commit before any other
    object is written; it has to come first then. skip: content objects that are not
    wanted. Raises ImageError, DigestError, ObjectError.
    """
    contents: list[Checksum] = []
    commit: CommitObject | None = None
    detached: dict[Checksum, bytes] = {}
    shared: dict[str, Xattrs] = {}
    pending: tuple[str, Xattrs] | None = None
    seen: set[str] = set()
    for entry in tar:
        match = _OBJECT.fullmatch(entry.path)
        if not match:
            continue
        checksum = Checksum((match[1] + match[2]).decode())
        kind = match[3].decode()
        if verify is not None and kind not in ("commit", "commitmeta"):
            verify(_complete(commit, detached))
            verify = None
        if kind == "file-xattrs":
            shared[checksum] = unpack_xattrs(tar.read_all(MAX_XATTRS_BYTES))
        elif kind == "file-xattrs-link":
            pending = (checksum, _linked_xattrs(entry, tar, shared))
        elif kind == "file":
            if pending is None or pending[0] != checksum:
                raise ImageError(f"object {checksum} comes without its extended attributes")
            if checksum in seen:
                raise ImageError(f"object {checksum} stands twice in one layer")
            seen.add(checksum)
            if checksum in skip:
                continue
            _content(writer, tar, entry, checksum, pending[1])
            contents.append(checksum)
        elif kind in _METADATA:
            if not with_metadata:
                raise ImageError(f"a chunk layer holds a {kind} object")
            data = tar.read_all(MAX_METADATA_BYTES)
            if kind == "commit":
                if commit is not None:
                    raise ImageError("the commit layer holds more than one commit")
                commit = CommitObject(checksum, data)
            elif kind == "commitmeta":
                if detached:
                    raise ImageError("the commit layer holds more than one commit's metadata")
                detached[checksum] = data
            else:
                writer.metadata(kind, data, checksum)
    if verify is not None:
        verify(_complete(commit, detached))
    return contents, _complete(commit, detached) if commit else None


def _complete(commit: CommitObject | None, detached: Mapping[Checksum, bytes]) -> CommitObject:
    if commit is None:
        raise ImageError("the commit layer does not begin with its commit")
    return replace(commit, detached=detached.get(commit.checksum, b""))


def _linked_xattrs(entry: TarEntry, tar: TarReader, shared: dict[str, Xattrs]) -> Xattrs:
    if entry.type == FILE:
        return unpack_xattrs(tar.read_all(MAX_XATTRS_BYTES))
    match = _OBJECT.fullmatch(entry.target)
    if entry.type != HARDLINK or not match:
        raise ImageError("an object's extended attributes are neither a file nor a link")
    name = (match[1] + match[2]).decode()
    if name not in shared:
        raise ImageError(f"the extended attributes {name} are missing")
    return shared[name]


def _content(
    writer: Writer, tar: TarReader, entry: TarEntry, checksum: Checksum, xattrs: Xattrs
) -> None:
    if writer.has(checksum, "file"):
        return
    if entry.type == SYMLINK:
        target = entry.target.decode("utf-8", "surrogateescape")
        header = FileHeader(entry.uid, entry.gid, S_IFLNK | 0o777, target, xattrs)
        writer.content(header, None, checksum)
    elif entry.type == FILE:
        header = FileHeader(entry.uid, entry.gid, S_IFREG | entry.mode, "", xattrs)
        writer.content(header, tar, checksum)
    else:
        raise ImageError(f"object {checksum} is neither a file nor a link")
