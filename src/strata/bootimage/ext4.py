"""A folder becomes an ext4 file system in a file, without a mount: mke2fs, then debugfs.

`mke2fs -d` would do it alone, but it copies times of the host and takes entries in the order that
the host's file system lists them. A script for debugfs, sorted, gives the same bytes anywhere.
Hard links, owners, modes and extended attributes are kept; every time is `TIME`.
Linear in the number of files. Sources: debugfs(8), mke2fs(8).
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from strata.core.errors import TreeError
from strata.core.process import Completed, run

BLOCK = 4096
MIB = 1 << 20
TIME = 1
_ENV = {"E2FSPROGS_FAKE_TIME": str(TIME), "MKE2FS_CONFIG": "/nonexistent"}
_BYTES_PER_INODE = 8192
_JOURNAL_MIB = 32
_FREE_MIB = 96
_IMMUTABLE_FOLDER = 0x80010  # EXTENTS_FL | IMMUTABLE_FL


def size_for(source: Path) -> int:
    """Bytes that a file system for a folder needs, with some room for a first boot."""
    seen, content = set(), 0
    for folder, folders, files in os.walk(source):
        content += BLOCK
        for name in [*files, *folders]:
            status = os.lstat(os.path.join(folder, name))
            if status.st_ino not in seen and not stat.S_ISDIR(status.st_mode):
                seen.add(status.st_ino)
                content += -(-status.st_size // BLOCK) * BLOCK
    inodes = content // _BYTES_PER_INODE * 256
    wanted = content + inodes + content // 16 + (_JOURNAL_MIB + _FREE_MIB) * MIB
    return -(-wanted // (16 * MIB)) * 16 * MIB


def write_ext4(
    source: Path,
    image: Path,
    *,
    size_bytes: int,
    label: str,
    identity: uuid.UUID,
    immutable: Path,
    scratch: Path,
) -> None:
    """Write a new image file, sparse. immutable: the folder that gets this attribute.

    Raises TreeError on a name that debugfs cannot be told and on special files, ToolFailedError.
    """
    with open(image, "wb") as stream:
        stream.truncate(size_bytes)
    options = f"hash_seed={identity},assume_storage_prezeroed=1"
    run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-U", str(identity)),
            *("-b", str(BLOCK), "-I", "256", "-i", str(_BYTES_PER_INODE), "-m", "1"),
            *("-J", f"size={_JOURNAL_MIB}", "-E", options, str(image)),
        ],
        env=_ENV,
    )
    script = scratch / "debugfs"
    with open(script, "w", encoding="utf-8", errors="surrogateescape") as commands:
        commands.writelines(f"{line}\n" for line in _commands(source, immutable))
    _check(run(["debugfs", "-w", "-f", str(script), str(image)], env=_ENV))
    run(["e2fsck", "-f", "-n", str(image)], env=_ENV)


def _check(done: Completed) -> None:
    """debugfs goes on after a command that failed, and ends with 0."""
    complaints = [
        line
        for line in done.stderr.splitlines()
        if line.strip() and not line.startswith("debugfs 1.")
    ]
    if complaints:
        raise TreeError(
            f"the file system could not be filled: {complaints[0]}",
            context={"output": "\n".join(complaints)},
        )


def _commands(source: Path, immutable: Path) -> Iterator[str]:
    """debugfs commands that make a folder's content; folders before what is in them."""
    first: dict[int, str] = {}
    links: dict[str, int] = {}
    yield from _attributes(source, "/", os.lstat(source))
    for folder, folders, files in os.walk(source):
        folders.sort()
        at = "/" + os.path.relpath(folder, source) if folder != str(source) else ""
        yield f"cd {_quoted(at or '/')}"
        names = sorted([*folders, *files])
        for _ in range(_blocks_for(folder, names, first)):
            yield "expand_dir ."
        for name in names:
            path, inside = Path(folder) / name, f"{at}/{name}"
            status = os.lstat(path)
            known = first.get(status.st_ino)
            if known is not None:
                yield f"ln {_quoted(known)} {_quoted(name)}"
                links[known] += 1
                continue
            yield _create(path, name, status)
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
                first[status.st_ino], links[inside] = inside, 1
            yield from _attributes(path, name, status)
    for path_inside, count in links.items():
        if count > 1:
            yield f"sif {_quoted(path_inside)} links_count {count}"
    yield f"sif {_quoted('/' + str(immutable.relative_to(source)))} flags {_IMMUTABLE_FOLDER:#x}"


def _blocks_for(folder: str, names: list[str], first: dict[int, str]) -> int:
    """How many blocks a folder with hard links needs: debugfs' ln does not ask for more, and what
    else is written there takes of the same."""
    status = [os.lstat(os.path.join(folder, name)) for name in names]
    numbers = [one.st_ino for one in status if one.st_nlink > 1 and not stat.S_ISDIR(one.st_mode)]
    if len(set(numbers)) == len(numbers) and not any(number in first for number in numbers):
        return 0
    return -(-sum(16 + len(os.fsencode(name)) for name in names) // (BLOCK - 300))


def _create(path: Path, name: str, status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return f"mkdir {_quoted(name)}"
    if stat.S_ISLNK(status.st_mode):
        return f"symlink {_quoted(name)} {_quoted(os.readlink(path))}"
    if stat.S_ISREG(status.st_mode):
        return f"write {_quoted(str(path))} {_quoted(name)}"
    raise TreeError(f"{path} is a special file, and no image holds one")


def _attributes(path: Path, name: str, status: os.stat_result) -> Iterator[str]:
    """What an entry has that debugfs does not give it by itself."""
    quoted = _quoted(name)
    if not stat.S_ISLNK(status.st_mode):
        yield f"sif {quoted} mode 0{status.st_mode:o}"
    if status.st_uid:
        yield f"sif {quoted} uid {status.st_uid}"
    if status.st_gid:
        yield f"sif {quoted} gid {status.st_gid}"
    for attribute in sorted(os.listxattr(path, follow_symlinks=False)):
        value = os.getxattr(path, attribute, follow_symlinks=False)
        octal = "".join(f"\\{byte:03o}" for byte in value)
        yield f'ea_set {quoted} {attribute} "{octal}"'


def _quoted(text: str) -> str:
    """A word as debugfs reads it: in quotation marks, which are doubled inside."""
    if "\n" in text or len(text) > 4000:
        raise TreeError(f"the name {text!r} cannot be written to an image")
    return '"' + text.replace('"', '""') + '"'
