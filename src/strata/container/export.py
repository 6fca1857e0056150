"""Writing the layers of an encapsulated commit (tar layout v1).

The *commit layer* holds the commit, every dirtree and dirmeta, and the folders; a *chunk layer*
content objects, each with hard links at the paths where it is visible. Entry by entry as
ostree-ext's tar/export.rs writes them, so that diff-ids agree; the tar module has the header bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from strata.oci.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarWriter
from strata.ostree.objects import Checksum, DirTree, pack_xattrs
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

_REPO = b"sysroot/ostree/repo"
_CONFIG = b"[core]\nrepo_version=1\nmode=bare-split-xattrs\n"
_FOLDERS = ("extensions", "refs", "refs/heads", "refs/mirrors", "refs/remotes", "state", "tmp")
_CHUNK = 1 << 18


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


def write_commit_layer(tar: TarWriter, repo: Repo, commit: str, tree: Tree) -> None:
    """The commit layer of a commit with its loaded tree. Raises ObjectError."""
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


def visible(path: str) -> str:
    """A path of the tree as a container sees it: `usr/etc` is `etc`. Without a leading slash."""
    return path[4:] if path == "usr/etc" or path.startswith("usr/etc/") else path


def visible_path(path: str) -> bytes:
    """The same of a path with or without a leading slash, as a tar has it."""
    return visible(path.lstrip("/")).encode("utf-8", "surrogateescape")


def write_chunk_layer(
    tar: TarWriter, repo: Repo, objects: Mapping[Checksum, Sequence[str]]
) -> None:
    """objects: from a checksum to the paths of the tree where it is visible, in tree order."""
    _skeleton(tar)
    for checksum, paths in objects.items():
        _content(tar, repo, checksum, paths)


def _content(tar: TarWriter, repo: Repo, checksum: Checksum, paths: Sequence[str]) -> None:
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
            link = TarEntry(where, FILE, mode, header.uid, header.gid)
        else:
            link = TarEntry(where, HARDLINK, mode, header.uid, header.gid, target=name)
        tar.entry(link, copied_from=entry)
