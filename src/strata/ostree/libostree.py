"""What this machine's libostree can do, and what it is asked for where its command cannot be."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import SignatureError, ToolFailedError, ToolMissingError
from strata.core.process import run

# From this release on, what an image has in /var is copied to a machine at its first deployment.
KEEPS_VAR = (2024, 3)


def libostree_version() -> tuple[int, int]:
    """The version of the `ostree` on PATH, or (0, 0) when there is none."""
    try:
        text = run(["ostree", "--version"]).stdout
    except (ToolMissingError, ToolFailedError):
        return (0, 0)
    return parse_version(text)


def parse_version(text: str) -> tuple[int, int]:
    """The version in `ostree --version`'s output; (0, 0) when it has none."""
    match = re.search(r"Version:\s*'?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def keeps_var() -> bool:
    """Whether deployments of this machine's libostree bring an image's /var along."""
    return libostree_version() >= KEEPS_VAR


class _Error(ctypes.Structure):
    """GError."""

    _fields_ = (
        ("domain", ctypes.c_uint32),
        ("code", ctypes.c_int),
        ("message", ctypes.c_char_p),
    )


class _Array(ctypes.Structure):
    """GPtrArray."""

    _fields_ = (("items", ctypes.POINTER(ctypes.c_void_p)), ("length", ctypes.c_uint))


_ErrorPointer = ctypes.POINTER(_Error)
_ArrayPointer = ctypes.POINTER(_Array)


def verify_commit(repo: Path, remote: str, commit: bytes, detached: bytes) -> None:
    """Hold a commit against the keys a repository's remote trusts; nothing is written.

    commit, detached: the commit object, and its detached metadata (a{sv}), which carries the
    signatures. The remote's configuration says which are wanted (`gpg-verify`, `sign-verify`).
    Raises SignatureError when no trusted key signed, ToolMissingError without libostree 2021.4.
    """
    lib = _load()
    failed = _ErrorPointer()
    place = lib.g_file_new_for_path(os.fsencode(repo))
    opened = lib.ostree_repo_new(place)
    data = lib.g_bytes_new(commit, len(commit))
    metadata = lib.g_bytes_new(detached, len(detached))
    try:
        done = lib.ostree_repo_open(opened, None, ctypes.byref(failed))
        done = done and lib.ostree_repo_signature_verify_commit_data(
            opened, os.fsencode(remote), data, metadata, 0, None, ctypes.byref(failed)
        )
        if not done:
            reason = failed.contents.message or b"" if failed else b""
            raise SignatureError(
                f"the image's commit is not signed as the remote {remote} asks for: "
                + "; ".join(reason.decode("utf-8", "replace").split("\n")),
                hint=f"`ostree remote list` and the keys of {remote} in {repo} say who is trusted",
            )
    finally:
        if failed:
            lib.g_error_free(failed)
        lib.g_bytes_unref(metadata)
        lib.g_bytes_unref(data)
        lib.g_object_unref(opened)
        lib.g_object_unref(place)


@dataclass(frozen=True)
class Deployed:
    """One deployment of a sysroot. stateroot: also called its OS name."""

    stateroot: str
    commit: str
    serial: int
    is_booted: bool


def deployments(sysroot: Path) -> list[Deployed]:
    """A sysroot's deployments, what boots next first. Raises ToolMissingError, ToolFailedError."""
    with _sysroot(sysroot) as (lib, opened), _deployments(lib, opened) as array:
        booted = lib.ostree_sysroot_get_booted_deployment(opened)
        rows = [array.contents.items[number] for number in range(array.contents.length)]
        return [
            Deployed(
                lib.ostree_deployment_get_osname(row).decode("utf-8", "replace"),
                lib.ostree_deployment_get_csum(row).decode("ascii"),
                lib.ostree_deployment_get_deployserial(row),
                bool(booted and lib.ostree_deployment_equal(row, booted)),
            )
            for row in rows
        ]


def make_default(sysroot: Path, which: Deployed) -> None:
    """Have a deployment boot next; the others keep their order. `ostree admin set-default` does
    this from libostree 2023.8 on. Raises ToolMissingError, ToolFailedError."""
    with _sysroot(sysroot, lock=True) as (lib, opened), _deployments(lib, opened) as array:
        items = array.contents.items
        number = deployments(sysroot).index(which)
        chosen = items[number]
        for place in range(number, 0, -1):
            items[place] = items[place - 1]
        items[0] = chosen
        failed = _ErrorPointer()
        done = lib.ostree_sysroot_write_deployments(opened, array, None, ctypes.byref(failed))
        _check(lib, done, failed, "ordering the deployments")


@contextmanager
def _sysroot(path: Path, *, lock: bool = False) -> Iterator[tuple[ctypes.CDLL, int]]:
    """An open sysroot, with its deployments read. lock: nobody else changes them meanwhile."""
    lib = _load()
    failed = _ErrorPointer()
    place = lib.g_file_new_for_path(os.fsencode(path))
    opened = lib.ostree_sysroot_new(place)
    try:
        if lock:
            done = lib.ostree_sysroot_lock(opened, ctypes.byref(failed))
            _check(lib, done, failed, f"locking the deployments of {path}")
        done = lib.ostree_sysroot_load(opened, None, ctypes.byref(failed))
        _check(lib, done, failed, f"reading the deployments of {path}")
        yield lib, opened
    finally:
        lib.g_object_unref(opened)
        lib.g_object_unref(place)


@contextmanager
def _deployments(lib: ctypes.CDLL, sysroot: int) -> Iterator[ctypes._Pointer[_Array]]:
    array = lib.ostree_sysroot_get_deployments(sysroot)
    try:
        yield array
    finally:
        lib.g_ptr_array_unref(array)


def _check(lib: ctypes.CDLL, done: int, failed: ctypes._Pointer[_Error], what: str) -> None:
    if not done:
        reason = (failed.contents.message or b"").decode("utf-8", "replace") if failed else ""
        if failed:
            lib.g_error_free(failed)
        raise ToolFailedError(f"{what} failed: {reason}", context={"output": reason})


def _load() -> ctypes.CDLL:
    """The library, with the types of what is called. Source: its and GLib's headers."""
    try:
        lib = ctypes.CDLL("libostree-1.so.1")
        verify = lib.ostree_repo_signature_verify_commit_data
    except (OSError, AttributeError):
        raise ToolMissingError(
            "libostree-1.so.1 (2021.4 or newer) is needed",
            hint="install libostree",
        ) from None
    pointer, text, error = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_ErrorPointer)
    for function, result, arguments in (
        (lib.g_file_new_for_path, pointer, (text,)),
        (lib.g_bytes_new, pointer, (text, ctypes.c_size_t)),
        (lib.g_bytes_unref, None, (pointer,)),
        (lib.g_object_unref, None, (pointer,)),
        (lib.g_error_free, None, (_ErrorPointer,)),
        (lib.ostree_repo_new, pointer, (pointer,)),
        (lib.ostree_repo_open, ctypes.c_int, (pointer, pointer, error)),
        (lib.g_ptr_array_unref, None, (_ArrayPointer,)),
        (lib.ostree_sysroot_new, pointer, (pointer,)),
        (lib.ostree_sysroot_lock, ctypes.c_int, (pointer, error)),
        (lib.ostree_sysroot_load, ctypes.c_int, (pointer, pointer, error)),
        (lib.ostree_sysroot_get_deployments, _ArrayPointer, (pointer,)),
        (lib.ostree_sysroot_get_booted_deployment, pointer, (pointer,)),
        (
            lib.ostree_sysroot_write_deployments,
            ctypes.c_int,
            (pointer, _ArrayPointer, pointer, error),
        ),
        (lib.ostree_deployment_get_osname, text, (pointer,)),
        (lib.ostree_deployment_get_csum, text, (pointer,)),
        (lib.ostree_deployment_get_deployserial, ctypes.c_int, (pointer,)),
        (lib.ostree_deployment_equal, ctypes.c_int, (pointer, pointer)),
        (
            verify,
            ctypes.c_int,
            (pointer, text, pointer, pointer, ctypes.c_int, pointer, error),
        ),
    ):
        function.restype, function.argtypes = result, arguments
    return lib
