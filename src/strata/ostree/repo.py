"""A repository of mode `bare`: objects are the files themselves, with their owners and modes.

Writing is safe beside other writers and against interruption: an object appears under its name
whole, by link or rename, and never before its bytes are right; refs appear at the end, after the
file system was synced. What an interrupted writer leaves are unnamed files, which the kernel
removes, and at most a temporary link in `tmp/`, which the next writer removes.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, Union

from strata.core.errors import DigestError, ObjectError
from strata.core.files import atomic_write, fsync_dir
from strata.core.process import os_error
from strata.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    Xattrs,
    checksum_of,
    parse_checksum,
)

CONFIG = "[core]\nrepo_version=1\nmode=bare\n"
_FOLDERS = (
    "objects",
    "extensions",
    "refs/heads",
    "refs/mirrors",
    "refs/remotes",
    "state",
    "tmp/cache",
)
_CHUNK = 1 << 20
_PREFIX = "strata-"


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""


Body = Union[bytes, Readable, None]


def read_xattrs(path: str) -> Xattrs:
    """A path's extended attributes sorted by name, without overlayfs's own; links not followed.

    Those with an empty value are left out, as libostree does: its fsck would not see them.
    """
    names = os.listxattr(path, follow_symlinks=False)
    pairs = (
        (os.fsencode(name), os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(names)
        if not name.startswith("trusted.overlay.")
    )
    return tuple((name, value) for name, value in pairs if value)


def file_header(path: str) -> FileHeader:
    """A file's or link's header as it is on disk."""
    status = os.lstat(path)
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return FileHeader(status.st_uid, status.st_gid, status.st_mode, target, read_xattrs(path))


class Repo:
    """A bare repository. Raises ObjectError when something in it is missing or malformed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._objects = str(path / "objects")

    @staticmethod
    def init(path: Path) -> Repo:
        """Make a repository (or open the one that is there)."""
        try:
            for folder in _FOLDERS:
                (path / folder).mkdir(parents=True, exist_ok=True)
            if not (path / "config").exists():
                atomic_write(path / "config", CONFIG.encode())
        except OSError as error:
            raise os_error(error, "making the OSTree repository") from error
        return Repo.open(path)

    @staticmethod
    def open(path: Path) -> Repo:
        """Open a repository. Raises ObjectError when it is none, or not of mode bare."""
        try:
            config = (path / "config").read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectError(f"{path} is not an OSTree repository") from None
        settings = [line.replace(" ", "") for line in config.splitlines()]
        if "mode=bare" not in settings:
            raise ObjectError(
                f"{path} is not a repository of mode bare",
                hint="ostree init --mode=bare makes one",
            )
        return Repo(path)

    # --- objects ---------------------------------------------------------------------------

    def object_path(self, checksum: str, kind: str) -> str:
        """Where an object is. kind: file, dirtree, dirmeta, commit, commitmeta."""
        return f"{self._objects}/{checksum[:2]}/{checksum[2:]}.{kind}"

    def has(self, checksum: str, kind: str) -> bool:
        """Whether an object is there."""
        return os.path.lexists(self.object_path(checksum, kind))

    def read_metadata(self, checksum: str, kind: str) -> bytes:
        """A metadata object's bytes. Raises ObjectError when it is missing or too large."""
        try:
            with open(self.object_path(checksum, kind), "rb") as stream:
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
        """A content object's header, read from the file that it is."""
        path = self.object_path(checksum, "file")
        try:
            return file_header(path)
        except FileNotFoundError:
            raise ObjectError(f"the content object {checksum} is missing") from None

    def size(self, checksum: str) -> int:
        """A content object's size in bytes; 0 for a link."""
        status = os.lstat(self.object_path(checksum, "file"))
        return 0 if stat.S_ISLNK(status.st_mode) else status.st_size

    def open_content(self, checksum: str) -> BinaryIO:
        """A regular content object's bytes."""
        return open(self.object_path(checksum, "file"), "rb", buffering=0)

    # --- refs ------------------------------------------------------------------------------

    def _ref_path(self, name: str) -> Path:
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise ObjectError(f"{name!r} is not a ref")
        return self.path / "refs/heads" / name

    def resolve(self, ref: str) -> Checksum | None:
        """The commit a ref points to, or None when there is no such ref."""
        try:
            return parse_checksum(self._ref_path(ref).read_text(encoding="ascii").strip())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def refs(self, prefix: str = "") -> dict[str, Checksum]:
        """All refs under a prefix (with its slash), sorted."""
        top = self.path / "refs/heads"
        found = {}
        for path in sorted(top.rglob("*")):
            name = str(path.relative_to(top))
            if path.is_file() and name.startswith(prefix):
                found[name] = parse_checksum(path.read_text(encoding="ascii").strip())
        return found

    def delete_ref(self, name: str) -> None:
        """Remove a ref, and the folders that are empty without it."""
        path = self._ref_path(name)
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
        return self.has(commit, "commit") and not self._partial_path(commit).exists()

    def mark_partial(self, commit: str) -> None:
        """Say that a commit's objects are still coming."""
        path = self._partial_path(commit)
        path.touch()
        fsync_dir(path.parent)

    def clear_partial(self, commit: str) -> None:
        """Say that a commit's objects are all there."""
        self._partial_path(commit).unlink(missing_ok=True)

    @contextmanager
    def writer(self, *, sync: bool = True) -> Iterator[Writer]:
        """Write objects and refs; refs are published when the block ends well.

        sync: sync the file system before the refs. Raises NoSpaceError when it is full.
        """
        writer = Writer(self)
        try:
            yield writer
            if sync:
                syncfs(self.path)
            writer.publish_refs()
        except OSError as error:
            raise os_error(error, "writing the OSTree repository") from error
        finally:
            writer.clean()


class Writer:
    """Writes objects; may be used from several threads at once."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self._tmp = str(repo.path / "tmp")
        self._refs: dict[str, Checksum] = {}
        self._folders: set[str] = set()
        self._lock = threading.Lock()
        self._remove_stale()

    def _remove_stale(self) -> None:
        """Remove temporary links of writers that are gone: their names start with their pid."""
        for name in os.listdir(self._tmp):
            if name.startswith(_PREFIX):
                pid = name[len(_PREFIX) :].split("-", 1)[0]
                if not pid.isdigit() or not os.path.exists(f"/proc/{pid}"):
                    Path(self._tmp, name).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove this writer's own temporary links (there are none unless a write failed)."""
        mine = f"{_PREFIX}{os.getpid()}-{id(self)}-"
        for name in os.listdir(self._tmp):
            if name.startswith(mine):
                os.unlink(f"{self._tmp}/{name}")

    def _temporary(self) -> str:
        return f"{self._tmp}/{_PREFIX}{os.getpid()}-{id(self)}-{uuid.uuid4().hex}"

    def _target(self, checksum: str, kind: str) -> str:
        folder = checksum[:2]
        if folder not in self._folders:
            os.makedirs(f"{self.repo.path}/objects/{folder}", exist_ok=True)
            self._folders.add(folder)
        return self.repo.object_path(checksum, kind)

    def metadata(self, kind: str, data: bytes, expected: str | None = None) -> Checksum:
        """Write a metadata object. Raises DigestError when its checksum is not the expected."""
        checksum = checksum_of(data)
        if expected is not None and checksum != expected:
            raise DigestError(
                f"a {kind} object does not have its checksum",
                context={"expected": expected, "actual": checksum},
            )
        target = self._target(checksum, kind)
        if not os.path.lexists(target):
            fd = self._unnamed()
            try:
                _write_all(fd, data)
                os.fchmod(fd, 0o644)
                self._link(fd, target)
            finally:
                os.close(fd)
        return checksum

    def content(self, header: FileHeader, body: Body, expected: str | None = None) -> Checksum:
        """Write a content object; body: its bytes, or a stream read to its end; None for a link.

        Raises DigestError when its checksum is not the expected one; nothing is left then.
        """
        if header.is_symlink:
            return self._symlink(header, expected)
        digest = header.digest()
        fd = self._unnamed()
        try:
            for chunk in _chunks(body):
                digest.update(chunk)
                _write_all(fd, chunk)
            checksum = _checked(digest, expected)
            target = self._target(checksum, "file")
            if not os.path.lexists(target):
                os.fchown(fd, header.uid, header.gid)
                os.fchmod(fd, header.mode & 0o7777)
                for name, value in header.xattrs:
                    os.setxattr(fd, name, value)
                os.utime(fd, (0, 0))
                self._link(fd, target)
        finally:
            os.close(fd)
        return checksum

    def _symlink(self, header: FileHeader, expected: str | None) -> Checksum:
        checksum = _checked(header.digest(), expected)
        target = self._target(checksum, "file")
        if not os.path.lexists(target):
            temporary = self._temporary()
            os.symlink(header.target, temporary)
            os.lchown(temporary, header.uid, header.gid)
            for name, value in header.xattrs:
                os.setxattr(temporary, name, value, follow_symlinks=False)
            os.utime(temporary, (0, 0), follow_symlinks=False)
            os.rename(temporary, target)
        return checksum

    def adopt(self, path: str, checksum: Checksum) -> None:
        """Make a file that already is the object (bytes, owner, mode, xattrs) the object itself.

        The file stays where it was, as another name of the same inode; its time becomes 0. It must
        not be written any more. From another file system it is copied.
        """
        target = self._target(checksum, "file")
        if not os.path.lexists(target):
            os.utime(path, (0, 0), follow_symlinks=False)
            try:
                os.link(path, target, follow_symlinks=False)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK):
                    raise
                self.file(path, checksum)

    def file(self, path: str, expected: Checksum | None = None) -> Checksum:
        """Write a file or link on disk as a content object."""
        header = file_header(path)
        if header.is_symlink:
            return self.content(header, None, expected)
        with open(path, "rb", buffering=0) as stream:
            return self.content(header, stream, expected)

    def set_ref(self, name: str, checksum: Checksum) -> None:
        """Point a ref to a commit when the writing ends well."""
        self.repo._ref_path(name)
        with self._lock:
            self._refs[name] = checksum

    def publish_refs(self) -> None:
        """Write the refs that were set; their temporary files are in `tmp/`, never among refs."""
        for name, checksum in sorted(self._refs.items()):
            path, temporary = self.repo._ref_path(name), self._temporary()
            with open(temporary, "xb") as stream:
                stream.write(checksum.encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, path)
            fsync_dir(path.parent)
        self._refs.clear()

    def _unnamed(self) -> int:
        return os.open(self._tmp, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

    @staticmethod
    def _link(fd: int, target: str) -> None:
        try:
            # With a folder given, Python calls linkat(AT_SYMLINK_FOLLOW); the path is absolute.
            os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd, follow_symlinks=True)
        except FileExistsError:
            pass  # another writer was first, with the same bytes


def _checked(digest: hashlib._Hash, expected: str | None) -> Checksum:
    checksum = Checksum(digest.hexdigest())
    if expected is not None and checksum != expected:
        raise DigestError(
            "a content object does not have its checksum",
            context={"expected": expected, "actual": checksum},
        )
    return checksum


def _chunks(body: Body) -> Iterable[bytes]:
    if body is None:
        return
    if isinstance(body, bytes):
        yield body
        return
    while True:
        chunk = body.read(_CHUNK)
        if not chunk:
            return
        yield chunk


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def syncfs(path: Path) -> None:
    """Sync the file system a path is on."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
