"""A repository, read: objects, trees, refs, what is complete. Writing is the writer's room.

A repository may have a *parent* (libostree's `core.parent`): what it lacks itself is read from
there, and nothing is ever written to it.

Modes `bare`, `bare-user`, `archive` and `bare-split-xattrs` are read; see `modes`.
"""

from __future__ import annotations

import configparser
import fcntl
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strata.core.errors import ObjectError
from strata.core.files import atomic_write, fsync_dir
from strata.core.process import os_error
from strata.core.streams import Closable
from strata.ostree.modes import BARE, SPLIT, STORAGES
from strata.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    parse_checksum,
)

LOCK_TIMEOUT_S = 300.0
_MAX_CONFIG_BYTES = 1 << 20
_REF = re.compile(r"[\w\d._-]+(/[\w\d._-]+)*", re.ASCII)
_FOLDERS = (
    "objects",
    "extensions",
    "refs/heads",
    "refs/mirrors",
    "refs/remotes",
    "state",
    "tmp/cache",
)


def check_ref(name: str) -> str:
    """A local ref's name, as libostree takes it. Raises ObjectError."""
    if not _REF.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise ObjectError(f"{name!r} is not a ref: letters, digits, - . _ and / between them")
    return name


class Repo:
    """A repository. Raises ObjectError when something in it is missing or malformed.

    mode: how content objects are kept. fsync: whether its configuration wants writes to be durable.
    """

    def __init__(
        self, path: Path, mode: str = BARE, *, fsync: bool = True, parent: Repo | None = None
    ) -> None:
        self.path = path
        self.parent = parent
        self.mode = STORAGES[mode].mode
        self.fsync = fsync
        self.storage = STORAGES[mode]
        self._objects = str(path / "objects")

    @staticmethod
    def init(path: Path, mode: str = BARE, *, parent: Path | None = None) -> Repo:
        """Make a repository (or open the one that is there). parent: of one that is made; has to be
        of the same mode. Raises ObjectError, NoSpaceError."""
        if mode not in STORAGES or mode == SPLIT:
            raise ObjectError(f"no repository of mode {mode} can be made")
        written = "archive-z2" if mode == "archive" else mode
        config = f"[core]\nrepo_version=1\nmode={written}\n"
        if parent is not None:
            config += f"parent={parent}\n"
        try:
            for folder in _FOLDERS:
                (path / folder).mkdir(parents=True, exist_ok=True)
            if not (path / "config").exists():
                atomic_write(path / "config", config.encode())
        except OSError as error:
            raise os_error(error, "making the OSTree repository") from error
        return Repo.open(path)

    @staticmethod
    def open(path: Path) -> Repo:
        """Open a repository. Raises ObjectError when it is none, or of a mode that is not read."""
        try:
            with open(path / "config", encoding="utf-8") as stream:
                text = stream.read(_MAX_CONFIG_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectError(f"{path} is not an OSTree repository") from None
        except UnicodeDecodeError:
            raise ObjectError(f"the configuration of {path} is not UTF-8") from None
        config = configparser.RawConfigParser(strict=False, interpolation=None)
        try:
            config.read_string(text)
            mode = config.get("core", "mode", fallback=BARE)
            version = config.get("core", "repo_version", fallback="")
            fsync = config.getboolean("core", "fsync", fallback=True)
            above = config.get("core", "parent", fallback="")
        except (configparser.Error, ValueError) as error:
            raise ObjectError(f"the configuration of {path} cannot be read: {error}") from error
        if version != "1":
            raise ObjectError(f"{path} is not an OSTree repository of version 1")
        if mode not in STORAGES:
            raise ObjectError(
                f"{path} is a repository of mode {mode}, which is not read",
                hint=f"known modes: {', '.join(sorted(STORAGES))}",
            )
        return Repo(path, mode, fsync=fsync, parent=_parent(path, mode, above) if above else None)

    # --- objects ---------------------------------------------------------------------------

    def object_path(self, checksum: str, kind: str) -> str:
        """Where an object is. kind: file, dirtree, dirmeta, commit, commitmeta."""
        own = self._own_path(checksum, kind)
        if self.parent is None or os.path.lexists(own):
            return own
        above = self.parent.object_path(checksum, kind)
        return above if os.path.lexists(above) else own

    def _own_path(self, checksum: str, kind: str) -> str:
        suffix = self.storage.suffix if kind == "file" else kind
        return f"{self._objects}/{checksum[:2]}/{checksum[2:]}.{suffix}"

    def owns(self, checksum: str, kind: str) -> bool:
        """Whether an object is in this repository itself, and not only in its parent."""
        return os.path.lexists(self._own_path(checksum, kind))

    def has(self, checksum: str, kind: str) -> bool:
        """Whether an object is there."""
        return os.path.lexists(self.object_path(checksum, kind))

    def read_metadata(self, checksum: str, kind: str) -> bytes:
        """A metadata object's bytes. Raises ObjectError when it is missing or too large."""
        try:
            with open(self.object_path(checksum, kind), "rb", buffering=0) as stream:
                data = stream.read(MAX_METADATA_BYTES + 1)
        except FileNotFoundError:
            raise ObjectError(f"the {kind} object {checksum} is missing") from None
        if len(data) > MAX_METADATA_BYTES:
            raise ObjectError(f"the {kind} object {checksum} is too large")
        return data

    def commit(self, checksum: str) -> Commit:
        """A commit object."""
        return Commit.decode(self.read_metadata(checksum, "commit"))

    def dirtree(self, checksum: str) -> DirTree:
        """A dirtree object."""
        return DirTree.decode(self.read_metadata(checksum, "dirtree"))

    def dirmeta(self, checksum: str) -> DirMeta:
        """A dirmeta object."""
        return DirMeta.decode(self.read_metadata(checksum, "dirmeta"))

    def header(self, checksum: str) -> FileHeader:
        """A content object's header."""
        with self._content(checksum) as path:
            return self.storage.header(path)

    def size(self, checksum: str) -> int:
        """The size of a content object's body in bytes; 0 for a link."""
        with self._content(checksum) as path:
            return self.storage.size(path)

    @contextmanager
    def open_content(self, checksum: str) -> Iterator[Closable]:
        """The bytes of a regular content object's body."""
        with self._content(checksum) as path:
            stream = self.storage.open(path)
        try:
            yield stream
        finally:
            stream.close()

    @contextmanager
    def _content(self, checksum: str) -> Iterator[str]:
        try:
            yield self.object_path(checksum, "file")
        except FileNotFoundError:
            raise ObjectError(f"the content object {checksum} is missing") from None

    # --- refs ------------------------------------------------------------------------------

    def ref_path(self, name: str) -> Path:
        """The file of a local ref (`NAME`) or a remote's (`REMOTE:NAME`). Raises ObjectError."""
        remote, colon, rest = name.partition(":")
        local, folder = (rest, f"refs/remotes/{remote}") if colon else (name, "refs/heads")
        parts = [*local.split("/"), remote] if colon else local.split("/")
        if any(part in ("", ".", "..") for part in parts) or (colon and "/" in remote):
            raise ObjectError(f"{name!r} is not a ref")
        return self.path / folder / local

    def resolve(self, ref: str) -> Checksum | None:
        """The commit a ref points to, or None when there is no such ref."""
        try:
            return parse_checksum(self.ref_path(ref).read_text(encoding="ascii").strip())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return self.parent.resolve(ref) if self.parent else None

    def rev_parse(self, text: str) -> Checksum:
        """The commit a ref or a checksum names. Raises ObjectError when there is no such commit."""
        hexadecimal = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
        commit = parse_checksum(text) if hexadecimal else self.resolve(text)
        if commit is None or not self.has(commit, "commit"):
            raise ObjectError(
                f"the repository {self.path} has no commit or ref {text}",
                hint=f"ostree refs --repo={self.path} lists them",
            )
        return commit

    def refs(self, prefix: str = "") -> dict[str, Checksum]:
        """All local refs under a prefix (with its slash), sorted."""
        own = self._refs_below(self.path / "refs/heads", prefix)
        return dict(sorted({**(self.parent.refs(prefix) if self.parent else {}), **own}.items()))

    def remote_refs(self) -> dict[str, Checksum]:
        """All refs of remotes, as `REMOTE:NAME`."""
        found = {}
        for remote in sorted((self.path / "refs/remotes").iterdir()):
            for name, checksum in self._refs_below(remote, "").items():
                found[f"{remote.name}:{name}"] = checksum
        return found

    @staticmethod
    def _refs_below(top: Path, prefix: str) -> dict[str, Checksum]:
        found = {}
        for path in sorted(top.rglob("*")):
            name = str(path.relative_to(top))
            if name.startswith(prefix) and path.is_file():
                found[name] = parse_checksum(path.read_text(encoding="ascii").strip())
        return found

    def delete_ref(self, name: str) -> None:
        """Remove a ref, and the folders that are empty without it."""
        path = self.ref_path(name)
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self.path / "refs/heads":
                break
            try:
                parent.rmdir()
            except OSError:
                break

    # --- partial commits -------------------------------------------------------------------

    def _partial_path(self, commit: str) -> Path:
        return self.path / "state" / f"{parse_checksum(commit)}.commitpartial"

    def is_complete(self, commit: str) -> bool:
        """Whether a commit is there with all its objects, as its writer said."""
        if self.parent is not None and not self.owns(commit, "commit"):
            return self.parent.is_complete(commit)
        return self.has(commit, "commit") and not self._partial_path(commit).exists()

    def mark_partial(self, commit: str) -> None:
        """Say that a commit's objects are still coming."""
        path = self._partial_path(commit)
        path.touch()
        fsync_dir(path.parent)

    def clear_partial(self, commit: str) -> None:
        """Say that a commit's objects are all there."""
        self._partial_path(commit).unlink(missing_ok=True)

    # --- the lock that libostree takes too ---------------------------------------------------

    @contextmanager
    def locked(self, *, exclusive: bool, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Hold the repository's lock: shared to write, exclusive to prune, as libostree does.

        Raises ObjectError when another process keeps it for too long.
        """
        kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        whole = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ObjectError(
                            f"the repository {self.path} is locked by another process",
                            hint="wait for it to finish",
                        ) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(fd)


def _parent(path: Path, mode: str, above: str) -> Repo:
    parent = Repo.open(Path(above))
    if parent.mode != STORAGES[mode].mode or parent.parent is not None:
        raise ObjectError(
            f"the parent {above} of {path} is of another mode, or has a parent itself",
            hint="both have to be of one mode, and only two are read together",
        )
    return parent
