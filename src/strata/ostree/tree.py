"""A directory tree in memory: names, checksums and metadata, no file contents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from strata.core.errors import ObjectError
from strata.ostree.objects import Checksum, DirMeta, DirTree
from strata.ostree.repo import Repo
from strata.ostree.writer import Writer

MAX_DEPTH = 256
# A few small dirtrees that hold each other can stand for any number of folders.
MAX_FOLDERS = 1 << 17
MAX_FILES = 1 << 21


@dataclass
class Tree:
    """A directory: its metadata, its files by name, its folders by name."""

    meta: DirMeta = field(default_factory=DirMeta)
    files: dict[str, Checksum] = field(default_factory=dict)
    dirs: dict[str, Tree] = field(default_factory=dict)

    @staticmethod
    def load(repo: Repo, commit: str) -> Tree:
        """The whole tree of a commit. Raises ObjectError."""
        found = repo.commit(commit)
        return _Loader(repo).load(found.root_contents, found.root_meta, 0)

    def write(self, writer: Writer) -> tuple[Checksum, Checksum]:
        """Write the tree's objects; returns the checksums of its contents and its metadata."""
        rows = []
        for name in _sorted(self.dirs):
            contents, meta = self.dirs[name].write(writer)
            rows.append((name, contents, meta))
        files = tuple((name, self.files[name]) for name in _sorted(self.files))
        contents = writer.metadata("dirtree", DirTree(files, tuple(rows)).encode())
        return contents, writer.metadata("dirmeta", self.meta.encode())

    def folder(self, path: str) -> Tree | None:
        """The folder at a path (`""` is this one), or None."""
        current = self
        for part in _parts(path):
            if part not in current.dirs:
                return None
            current = current.dirs[part]
        return current

    def lookup(self, path: str) -> Checksum | Tree | None:
        """The file's checksum or the folder at a path, or None."""
        parent, _, name = path.strip("/").rpartition("/")
        folder = self.folder(parent)
        if folder is None:
            return None
        if not name:
            return folder
        return folder.files.get(name) or folder.dirs.get(name)

    def make_folder(self, path: str) -> Tree:
        """The folder at a path, made with its parents where missing; files in the way go."""
        current = self
        for part in _parts(path):
            current.files.pop(part, None)
            current = current.dirs.setdefault(part, Tree())
        return current

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; missing is fine."""
        parent, _, name = path.strip("/").rpartition("/")
        folder = self.folder(parent)
        if folder is not None:
            folder.files.pop(name, None)
            folder.dirs.pop(name, None)

    def walk_files(self, prefix: str = "") -> Iterator[tuple[str, Checksum]]:
        """Every file as (path from the root, checksum), in tree order: files, then folders."""
        for name in _sorted(self.files):
            yield f"{prefix}/{name}", self.files[name]
        for name in _sorted(self.dirs):
            yield from self.dirs[name].walk_files(f"{prefix}/{name}")

    def walk_folders(self, prefix: str = "") -> Iterator[tuple[str, Tree]]:
        """Every folder as (path from the root, tree), parents first; the root's path is empty."""
        yield prefix, self
        for name in _sorted(self.dirs):
            yield from self.dirs[name].walk_folders(f"{prefix}/{name}")


class _Loader:
    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.metas: dict[Checksum, DirMeta] = {}
        self.folders = self.files = 0

    def load(self, contents: Checksum, meta: Checksum, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise ObjectError(f"a tree is deeper than {MAX_DEPTH} folders")
        if meta not in self.metas:
            self.metas[meta] = self.repo.dirmeta(meta)
        entries = self.repo.dirtree(contents)
        self.folders += 1
        self.files += len(entries.files)
        if self.folders > MAX_FOLDERS or self.files > MAX_FILES:
            raise ObjectError(f"a tree has more than {MAX_FOLDERS} folders or {MAX_FILES} files")
        return Tree(
            self.metas[meta],
            dict(entries.files),
            {name: self.load(inner, of, depth + 1) for name, inner, of in entries.dirs},
        )


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _sorted(names: dict[str, Checksum] | dict[str, Tree]) -> list[str]:
    """By the bytes of the name, as libostree sorts."""
    return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))
