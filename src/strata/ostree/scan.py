"""A directory on disk becomes a tree of objects, and a commit.

Files are hashed in threads (sha256 releases the interpreter's lock). With `adopt`, a file that is
on the repository's file system becomes the object itself by a hard link: nothing is copied, and the
directory is used up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strata.core.errors import ObjectError
from strata.ostree.gvariant import Variant, pack_string
from strata.ostree.modes import file_header, read_xattrs
from strata.ostree.objects import Checksum, Commit, DirMeta, check_name
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree
from strata.ostree.writer import Writer

_BATCH = 64
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _File:
    folder: Tree
    name: str
    path: str


def scan(writer: Writer, path: str, *, adopt: bool = False, threads: int = 2) -> Tree:
    """Write the files of a directory as objects and return its tree (not yet written).

    Raises ObjectError on devices, sockets and names that are no names.
    """
    files: list[_File] = []
    root = _folders(path, files)
    batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]

    def store(batch: list[_File]) -> list[Checksum]:
        return [_store(writer, item.path, adopt) for item in batch]

    with ThreadPoolExecutor(threads) as pool:
        for batch, checksums in zip(batches, pool.map(store, batches)):
            for item, checksum in zip(batch, checksums):
                item.folder.files[item.name] = checksum
    return root


def dir_meta(path: str) -> DirMeta:
    """A directory's metadata as it is on disk."""
    status = os.lstat(path)
    return DirMeta(status.st_uid, status.st_gid, status.st_mode, read_xattrs(path))


def _folders(path: str, files: list[_File]) -> Tree:
    tree = Tree(dir_meta(path))
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                pack_string(check_name(entry.name))
            except ObjectError as error:
                raise ObjectError(f"{entry.path!r} cannot be committed: {error.message}") from error
            if entry.is_dir(follow_symlinks=False):
                tree.dirs[entry.name] = _folders(entry.path, files)
            elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                files.append(_File(tree, entry.name, entry.path))
            else:
                raise ObjectError(
                    f"{entry.path} is a device, a pipe or a socket, which no commit can hold"
                )
    return tree


def file_checksum(path: str) -> Checksum:
    """The content checksum a file or link on disk would have as an object."""
    header = file_header(path)
    digest = header.digest()
    if not header.is_symlink:
        with open(path, "rb", buffering=0) as stream:
            while True:
                chunk = stream.read(_CHUNK)
                if not chunk:
                    break
                digest.update(chunk)
    return Checksum(digest.hexdigest())


def _store(writer: Writer, path: str, adopt: bool) -> Checksum:
    if adopt:
        checksum = file_checksum(path)
        writer.adopt(path, checksum)
        return checksum
    return writer.file(path)


def commit_tree(
    writer: Writer,
    tree: Tree,
    *,
    timestamp: int,
    subject: str = "",
    parent: str = "",
    metadata: Mapping[str, Variant] | None = None,
) -> Checksum:
    """Write a tree's objects and a commit of it; returns the commit's checksum."""
    contents, meta = tree.write(writer)
    commit = Commit(contents, meta, timestamp, subject, "", parent, metadata or {})
    return writer.metadata("commit", commit.encode())


def commit_directory(
    repo: Repo,
    writer: Writer,
    path: str,
    *,
    timestamp: int,
    subject: str = "",
    metadata: Mapping[str, Variant] | None = None,
    adopt: bool = False,
    threads: int = 2,
) -> Checksum:
    """Commit a directory on disk. Raises ObjectError."""
    tree = scan(writer, path, adopt=adopt, threads=threads)
    return commit_tree(writer, tree, timestamp=timestamp, subject=subject, metadata=metadata)
