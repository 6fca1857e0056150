"""Paths inside a tree that nobody vouches for, followed as they would be in a chroot of it.

A tree's links are its own: `/var/run → /run` means the tree's /run, never the host's. `resolve`
turns a path of the tree into a path of the host none of whose folders is a link any more, so what
is then opened, made or removed by that name is in the tree. It holds while nothing else changes the
tree: packages' scripts and dracut have ended when a compose touches it by name.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from strata.core.errors import TreeError
from strata.core.files import atomic_write, remove_tree

MAX_LINKS = 40  # as many as the kernel follows
MAX_TEXT_BYTES = 4 << 20


def resolve(root: Path, path: str, *, follow_last: bool = True) -> Path:
    """Where a path of a tree is on the host: `root` itself or below it, always.

    Absolute paths and links start at the root again, and `..` at the root stays there. What does
    not exist has no links to follow: its names are taken as they stand. follow_last: whether the
    last name is followed when it is a link; without it, the link itself is meant.
    Raises TreeError when more than MAX_LINKS links follow each other, as in a circle.
    """
    left = [name for name in reversed(path.split("/")) if name not in ("", ".")]
    done: list[str] = []
    links = 0
    while left:
        name = left.pop()
        if name == "..":
            del done[-1:]
            continue
        place = root.joinpath(*done, name)
        if not place.is_symlink() or not (left or follow_last):
            done.append(name)
            continue
        links += 1
        if links > MAX_LINKS:
            raise TreeError(
                f"the links of the tree go in a circle at /{path.lstrip('/')}",
                hint="look for the package or overlay that brings the link",
                context={"path": path, "link": place},
            )
        target = os.readlink(place)
        if target.startswith("/"):
            done.clear()
        left += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return root.joinpath(*done)


def real_folder(root: Path, path: str) -> Path:
    """A folder of a tree that is there and that no link leads to. Raises TreeError otherwise."""
    place = root
    for name in path.split("/"):
        place = place / name
        if place.is_symlink() or not place.is_dir():
            what = "is a link" if place.is_symlink() else "is not there"
            raise TreeError(
                f"/{place.relative_to(root)} of the tree {what}; it must be a folder",
                context={"path": path},
            )
    return place


def children(root: Path, path: str) -> list[Path]:
    """What is in a folder of a tree, sorted; nothing when it is not there or no folder."""
    folder = resolve(root, path)
    return sorted(folder.iterdir()) if folder.is_dir() else []


def remove(root: Path, path: str) -> None:
    """Remove a file, a link itself or a whole folder of a tree; nothing when it is not there.

    Raises TreeError when the path is the tree's root.
    """
    place = resolve(root, path, follow_last=False)
    # The last question before something is gone for good, asked of the kernel and not of `resolve`.
    above = os.path.realpath(place.parent)
    top = os.path.realpath(root)
    if (
        place.name in ("", "..")
        or place == root
        or not f"{above}/".startswith(f"{top.rstrip(os.sep)}/")
    ):
        raise TreeError(f"{path!r} does not name something inside the tree: it is not removed")
    try:
        remove_tree(place)
    except NotADirectoryError:
        pass  # a file stands where one of its folders would be: it is not there


def read_text(root: Path, path: str) -> str:
    """A text file of a tree, whole. Raises FileNotFoundError; TreeError when it is something else
    than a file, larger than MAX_TEXT_BYTES, or not UTF-8."""
    place = resolve(root, path)
    # A pipe or a device in its place must not be waited for.
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TreeError(f"/{path.lstrip('/')} of the tree is not a file")
        data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise TreeError(f"/{path.lstrip('/')} of the tree is larger than {MAX_TEXT_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TreeError(f"/{path.lstrip('/')} of the tree is not UTF-8: {error}") from error


def write_text(root: Path, path: str, text: str) -> None:
    """Write a text file of a tree, root's and 0644, in place of the file that is there."""
    atomic_write(resolve(root, path), text.encode())
