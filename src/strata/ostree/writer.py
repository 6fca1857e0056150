"""Writing to a repository: safe beside other writers, against interruption and power cuts.

Objects are made in a staging folder of the writer's own under `tmp/`. Publishing syncs the file
system, renames them to their places, syncs again and then sets the refs: under an object's name
there are never other bytes than its own, not even after a power cut, and a ref never points to what
is not there. What an interrupted writer staged is removed by the next one, which knows by the
folder's lock that its owner is gone. The repository's lock is held shared, as libostree's
transactions do, so that no prune runs meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import itertools
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Union

from strata.core.errors import DigestError, ObjectError
from strata.core.files import fsync_dir, remove_tree
from strata.core.process import os_error
from strata.core.streams import Readable
from strata.ostree.modes import BARE, file_header
from strata.ostree.objects import MAX_METADATA_BYTES, Checksum, FileHeader, checksum_of
from strata.ostree.repo import Repo

_CHUNK = 1 << 20
MAX_STAGED = 20_000
_PREFIX = "strata-"


Body = Union[bytes, Readable, None]


@contextmanager
def writing(repo: Repo, *, sync: bool = True) -> Iterator[Writer]:
    """Write objects and refs; what was staged is published when the block ends well.

    sync: make it durable (unless the repository's configuration says otherwise).
    Raises NoSpaceError when the disk is full, ObjectError when the repository is locked.
    """
    try:
        with repo.locked(exclusive=False), _staging(repo.path / "tmp") as folder:
            writer = Writer(repo, folder, sync=sync and repo.fsync)
            yield writer
            writer.publish()
    except OSError as error:
        raise os_error(error, "writing the OSTree repository") from error


class Writer:
    """Stages objects and refs; may be used from several threads at once. Made by `writing`."""

    def __init__(self, repo: Repo, folder: str, *, sync: bool) -> None:
        self.repo = repo
        self._folder = folder
        self._sync = sync
        self._names = itertools.count()
        self._staged: dict[str, str] = {}
        self._refs: dict[str, Checksum] = {}
        self._lock = threading.Lock()
        # One publishes at a time: a ref may hold objects that another thread is just placing.
        self._publishing = threading.RLock()

    def has(self, checksum: str, kind: str) -> bool:
        """Whether an object is in the repository or staged."""
        return _key(checksum, kind) in self._staged or self.repo.has(checksum, kind)

    def metadata(self, kind: str, data: bytes, expected: str | None = None) -> Checksum:
        """Write a metadata object. Raises DigestError when its checksum is not the expected,
        ObjectError when it is larger than any reader takes."""
        if len(data) > MAX_METADATA_BYTES:
            raise ObjectError(
                f"a {kind} object would have {len(data)} bytes; {MAX_METADATA_BYTES} are the most"
            )
        checksum = checksum_of(data)
        if expected is not None and checksum != expected:
            raise DigestError(
                f"a {kind} object does not have its checksum",
                context={"expected": expected, "actual": checksum},
            )
        self._put(checksum, kind, data)
        return checksum

    def detached_metadata(self, commit: str, data: bytes) -> None:
        """Write a commit's detached metadata (`commitmeta`), which has no checksum of its own: what
        was there is replaced."""
        self._put(commit, "commitmeta", data)

    def _put(self, checksum: str, kind: str, data: bytes) -> None:
        if kind != "commitmeta" and self.has(checksum, kind):
            return
        path = self._new_path()
        with open(path, "xb", buffering=0) as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), 0o644)
        self._stage(checksum, kind, path)

    def content(self, header: FileHeader, body: Body, expected: str | None = None) -> Checksum:
        """Write a content object; body: its bytes, or a stream read to its end; None for a link.

        Who expects a checksum has looked whether the object is there. Raises DigestError when it
        has another one; nothing is left then.
        """
        digest = header.digest()
        path = self._new_path()
        self.repo.storage.write(path, header, _hashed(None if header.is_symlink else body, digest))
        checksum = Checksum(digest.hexdigest())
        if expected is not None and checksum != expected:
            os.unlink(path)
            raise DigestError(
                "a content object does not have its checksum",
                context={"expected": expected, "actual": checksum},
            )
        if expected is None and self.has(checksum, "file"):
            os.unlink(path)
        else:
            self._stage(checksum, "file", path)
        return checksum

    def adopt(self, path: str, checksum: Checksum) -> None:
        """Make a file that already is the object (bytes, owner, mode, xattrs) the object itself.

        Only in a repository of mode bare. The file stays where it was, as another name of the same
        inode; its time becomes 0. It must not be written any more. From another file system it is
        copied.
        """
        if self.repo.mode != BARE:
            raise ObjectError(f"a repository of mode {self.repo.mode} adopts no files")
        if self.has(checksum, "file"):
            return
        staged = self._new_path()
        os.utime(path, (0, 0), follow_symlinks=False)
        try:
            os.link(path, staged, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK):
                raise
            self.file(path, checksum)
        else:
            self._stage(checksum, "file", staged)

    def file(self, path: str, expected: Checksum | None = None) -> Checksum:
        """Write a file or link on disk as a content object."""
        header = file_header(path)
        if header.is_symlink:
            return self.content(header, None, expected)
        with open(path, "rb", buffering=0) as stream:
            return self.content(header, stream, expected)

    def set_ref(self, name: str, checksum: Checksum) -> None:
        """Point a ref to a commit when the writing ends well."""
        self.repo.ref_path(name)
        with self._lock:
            self._refs[name] = checksum

    # --- staging and publishing ------------------------------------------------------------

    def _new_path(self) -> str:
        return f"{self._folder}/{next(self._names)}"

    def _stage(self, checksum: str, kind: str, path: str) -> None:
        # Of two threads with the same object the first one's stays; the other's goes with the
        # folder.
        with self._lock:
            self._staged.setdefault(_key(checksum, kind), path)
            full = len(self._staged) >= MAX_STAGED
        if full:
            self._publish_objects()

    def publish(self) -> None:
        """Have everything staged so far in its place, then the refs set so far.

        Called at the end; and in between, to keep what a long work has done until then.
        """
        with self._publishing:
            with self._lock:
                refs, self._refs = self._refs, {}
            placed = self._publish_objects()
            if refs:
                if self._sync and placed:
                    syncfs(self.repo.path)
                self._set_refs(refs)

    def _publish_objects(self) -> bool:
        """Objects that no ref holds yet harm nobody; to remember them all would take memory."""
        with self._publishing:
            with self._lock:
                staged, self._staged = self._staged, {}
            if staged:
                if self._sync:
                    syncfs(self.repo.path)
                self._place(staged)
            return bool(staged)

    def _place(self, staged: dict[str, str]) -> None:
        made: set[str] = set()
        objects = f"{self.repo.path}/objects"
        suffix = self.repo.storage.suffix
        for key, path in staged.items():
            folder = key[:2]
            if folder not in made:
                os.makedirs(f"{objects}/{folder}", exist_ok=True)
                made.add(folder)
            name = f"{key[2:-4]}{suffix}" if key.endswith("file") else key[2:]
            # Should another writer have been faster, its object is replaced by the same bytes.
            os.rename(path, f"{objects}/{folder}/{name}")

    def _set_refs(self, refs: dict[str, Checksum]) -> None:
        """Replace each ref atomically; the temporary files are in staging, never among refs."""
        folders = set()
        for name, checksum in sorted(refs.items()):
            path, temporary = self.repo.ref_path(name), self._new_path()
            with open(temporary, "xb", buffering=0) as stream:
                stream.write(checksum.encode() + b"\n")
                os.fsync(stream.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, path)
            folders.add(path.parent)
        if self._sync:
            for folder in folders:
                fsync_dir(folder)


def content_checksum(header: FileHeader, body: Body) -> Checksum:
    """The checksum of a content object that is not kept; its body is read to the end."""
    digest = header.digest()
    for _ in _hashed(None if header.is_symlink else body, digest):
        pass
    return Checksum(digest.hexdigest())


def _key(checksum: str, kind: str) -> str:
    return f"{checksum}.{kind}"


def _hashed(body: Body, digest: hashlib._Hash) -> Iterator[bytes]:
    """The body's pieces, each taken into the digest on its way."""
    if body is None or isinstance(body, bytes):
        if body:
            digest.update(body)
            yield body
        return
    while True:
        chunk = body.read(_CHUNK)
        if not chunk:
            return
        digest.update(chunk)
        yield chunk


@contextmanager
def _staging(parent: Path) -> Iterator[str]:
    """A folder of one's own, locked while in use and removed at the end."""
    _remove_stale(parent)
    folder, fd = _new_staging(parent)
    try:
        yield str(folder)
    finally:
        remove_tree(folder)
        os.close(fd)


def _new_staging(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another writer took it for stale before it was locked
        fcntl.flock(fd, fcntl.LOCK_EX)
        if folder.exists():
            return folder, fd
        os.close(fd)


def _remove_stale(parent: Path) -> None:
    """Remove the staging folders of writers that are gone: nobody holds their lock."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(folder)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


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
