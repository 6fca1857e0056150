"""SELinux labels of a merged tree, from the policy that is in it, through libselinux.

Files of derived layers come without labels, and a layer may change the policy itself: so everything
is labelled anew from the merged tree's own `file_contexts`, and what already has its label keeps
its object. The machine that imports needs no SELinux of its own, only the library.
Source: libostree's ostree-sepolicy.c, ostree-repo-commit.c; selabel_open(3).
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from strata.container.derived import Rules
from strata.core.errors import ImageError, ToolMissingError
from strata.ostree.objects import Checksum, DirMeta, FileHeader, Xattrs
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree
from strata.ostree.writer import Writer

SELINUX = "usr/etc/selinux"
XATTR = b"security.selinux"
_CONTEXTS = "contexts/files"
_MAX_CONFIG_BYTES = 1 << 16
_MAX_CONTEXTS_BYTES = 64 << 20
_ENOENT = 2


class _Option(ctypes.Structure):
    """struct selinux_opt."""

    _fields_ = [("type", ctypes.c_int), ("value", ctypes.c_char_p)]


_ALL = Rules()


class Labeller(Protocol):
    """Knows labels."""

    def of(self, path: str, mode: int) -> bytes | None:
        """The label of an absolute path, see Labels."""


class Labels:
    """The labels a policy gives to paths."""

    def __init__(self, file_contexts: Path) -> None:
        self._lib = _libselinux()
        option = _Option(3, os.fsencode(file_contexts))  # SELABEL_OPT_PATH
        self._handle = self._lib.selabel_open(0, ctypes.byref(option), 1)  # SELABEL_CTX_FILE
        if not self._handle:
            raise ImageError(
                f"the image's SELinux policy cannot be read: {os.strerror(ctypes.get_errno())}",
                hint=f"its file_contexts is /{SELINUX}/*/{_CONTEXTS}/file_contexts",
            )

    def close(self) -> None:
        """Let go of the policy."""
        self._lib.selabel_close(self._handle)

    def of(self, path: str, mode: int) -> bytes | None:
        """The label of an absolute path with a mode (its type counts), with the closing NUL;
        None when the policy has none."""
        if path == "/proc":
            path = "/mnt"  # the policy labels the mounted one; as libostree does
        context = ctypes.c_char_p()
        found = self._lib.selabel_lookup_raw(
            self._handle, ctypes.byref(context), path.encode("utf-8", "surrogateescape"), mode
        )
        if found != 0:
            if ctypes.get_errno() == _ENOENT:
                return None
            raise ImageError(f"SELinux has no label for {path}: {os.strerror(ctypes.get_errno())}")
        label = (context.value or b"") + b"\0"
        self._lib.freecon(context)
        return label


@contextmanager
def policy_of(repo: Repo, tree: Tree) -> Iterator[Labels | None]:
    """The labels of the policy in a tree; None when it has none, or it is disabled.

    Raises ImageError when it cannot be read, ToolMissingError when libselinux is not there.
    """
    folder = tree.folder(SELINUX)
    kind = _policy_type(repo, folder) if folder else ""
    contexts = folder.folder(f"{kind}/{_CONTEXTS}") if folder and kind else None
    if contexts is None or "file_contexts" not in contexts.files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="strata-selinux.") as scratch:
        _write_contexts(repo, contexts, Path(scratch))
        labels = Labels(Path(scratch) / "file_contexts")
        try:
            yield labels
        finally:
            labels.close()


def _write_contexts(repo: Repo, contexts: Tree, target: Path) -> None:
    """The text files that say what has which label. Links are the image's and lead nowhere here,
    and the compiled form (`.bin`) is nothing to hand to a C library from outside."""
    for name, checksum in contexts.files.items():
        if not name.startswith("file_contexts") or name.endswith(".bin"):
            continue
        if repo.header(checksum).is_symlink:
            if name == "file_contexts":
                raise ImageError(f"/{SELINUX}/*/{_CONTEXTS}/{name} in the image is a link")
            continue
        left = _MAX_CONTEXTS_BYTES
        with repo.open_content(checksum) as stream, open(target / name, "wb") as sink:
            while left and (data := stream.read(min(left, 1 << 18))):
                sink.write(data)
                left -= len(data)
        if not left:
            raise ImageError(f"{name} of the image's SELinux policy is too large")


def read_config(repo: Repo, checksum: Checksum) -> str:
    """A small text file of an image; empty when it is a link."""
    if repo.header(checksum).is_symlink:
        return ""
    with repo.open_content(checksum) as stream:
        return stream.read(_MAX_CONFIG_BYTES).decode("utf-8", "replace")


def _policy_type(repo: Repo, folder: Tree) -> str:
    checksum = folder.files.get("config")
    if checksum is None:
        return ""
    text = read_config(repo, checksum)
    settings = dict(
        line.strip().split("=", 1)
        for line in text.splitlines()
        if "=" in line and not line.strip().startswith("#")
    )
    if settings.get("SELINUX", "").strip() == "disabled":
        return ""
    kind = settings.get("SELINUXTYPE", "").strip()
    return kind if "/" not in kind and kind not in (".", "..") else ""


def relabel(
    repo: Repo, writer: Writer, tree: Tree, labels: Labeller, *, rules: Rules = _ALL
) -> int:
    """Give every file and folder of a tree its label; returns how many objects were written anew.

    Objects that have their label stay. The tree's objects must be in the repository already,
    but for those that the rules do not store: they are left as they are.
    """
    return _Relabel(repo, writer, labels, rules).tree(tree, "")


class _Relabel:
    def __init__(self, repo: Repo, writer: Writer, labels: Labeller, rules: Rules) -> None:
        self.repo, self.writer, self.labels, self.rules = repo, writer, labels, rules
        self.headers: dict[Checksum, FileHeader] = {}
        self.made: dict[tuple[Checksum, bytes], Checksum] = {}

    def tree(self, tree: Tree, path: str) -> int:
        changed = 0
        label = self.labels.of(path or "/", tree.meta.mode)
        if label is not None:
            xattrs = _with_label(tree.meta.xattrs, label)
            if xattrs != tree.meta.xattrs:
                tree.meta = DirMeta(tree.meta.uid, tree.meta.gid, tree.meta.mode, xattrs)
        for name, checksum in tree.files.items():
            if not self.rules.stores(f"{path}/{name}"[1:]):
                continue
            tree.files[name] = self._file(checksum, f"{path}/{name}")
            changed += tree.files[name] != checksum
        for name, inner in tree.dirs.items():
            changed += self.tree(inner, f"{path}/{name}")
        return changed

    def _file(self, checksum: Checksum, path: str) -> Checksum:
        if checksum not in self.headers:
            self.headers[checksum] = self.repo.header(checksum)
        header = self.headers[checksum]
        label = self.labels.of(path, header.mode)
        if label is None:
            return checksum
        xattrs = _with_label(header.xattrs, label)
        if xattrs == header.xattrs:
            return checksum
        key = (checksum, label)
        if key not in self.made:
            self.made[key] = self._write(checksum, replace(header, xattrs=xattrs))
        return self.made[key]

    def _write(self, checksum: Checksum, header: FileHeader) -> Checksum:
        if header.is_symlink:
            return self.writer.content(header, None)
        with self.repo.open_content(checksum) as stream:
            return self.writer.content(header, stream)


def _with_label(xattrs: Xattrs, label: bytes) -> Xattrs:
    kept = [item for item in xattrs if item[0] != XATTR]
    return tuple(sorted([*kept, (XATTR, label)]))


def _libselinux() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libselinux.so.1", use_errno=True)
    except OSError as error:
        raise ToolMissingError(
            "libselinux.so.1 is not on this machine, and the image has an SELinux policy",
            hint="apt install libselinux1   (or: dnf install libselinux)",
        ) from error
    lib.selabel_open.restype = ctypes.c_void_p
    lib.selabel_open.argtypes = [ctypes.c_uint, ctypes.POINTER(_Option), ctypes.c_uint]
    lib.selabel_close.argtypes = [ctypes.c_void_p]
    lib.selabel_lookup_raw.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    lib.freecon.argtypes = [ctypes.c_char_p]
    return lib
