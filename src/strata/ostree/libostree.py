"""What this machine's libostree can do."""

from __future__ import annotations

import ctypes
import os
import re
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


_ErrorPointer = ctypes.POINTER(_Error)


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


def _load() -> ctypes.CDLL:
    """The library, with the types of what is called. Source: its and GLib's headers."""
    try:
        lib = ctypes.CDLL("libostree-1.so.1")
        verify = lib.ostree_repo_signature_verify_commit_data
    except (OSError, AttributeError):
        raise ToolMissingError(
            "libostree-1.so.1 (2021.4 or newer) is needed to verify a remote's signatures",
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
        (
            verify,
            ctypes.c_int,
            (pointer, text, pointer, pointer, ctypes.c_int, pointer, error),
        ),
    ):
        function.restype, function.argtypes = result, arguments
    return lib
