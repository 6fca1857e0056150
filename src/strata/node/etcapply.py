"""Reading the three trees of an /etc merge from disk, and carrying a plan out.

Every file is made beside its place and renamed over it, so that a reader sees the old or the new.
What a change replaces is copied away first, so that the merge can be undone as long as the machine
is up; undoing restores content, type, mode, owner and attributes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from strata.core.errors import StrataError
from strata.core.files import atomic_write, is_fixed
from strata.core.text import shown
from strata.node.etcmerge import FILE, FOLDER, INSTALL, LINK, SPECIAL, Entry, Plan
from strata.ostree.checkout import copy
from strata.ostree.modes import read_xattrs

MAX_DEPTH = 64
_NEW = ".strata-new"


def read_tree(top: str, mount_points: frozenset[str] = frozenset()) -> dict[str, Entry]:
    """Every path below a folder. mount_points: absolute paths whose insides are not looked at."""
    found: dict[str, Entry] = {}
    _read(top, "", mount_points, found, 0)
    return found


def _read(
    folder: str, path: str, mount_points: frozenset[str], found: dict[str, Entry], depth: int
) -> None:
    if depth > MAX_DEPTH:
        raise StrataError(f"{shown(folder)} is deeper than {MAX_DEPTH} folders")
    with os.scandir(folder) as entries:
        for item in sorted(entries, key=lambda entry: entry.name):
            if item.name == _NEW:
                continue  # a rename that an interruption prevented
            where = f"{path}/{item.name}" if path else item.name
            if item.path in mount_points:
                found[where] = Entry(SPECIAL)
                continue
            found[where] = entry = read_entry(item.path)
            if entry.kind == FOLDER:
                _read(item.path, where, mount_points, found, depth + 1)


def read_entry(path: str) -> Entry:
    """What is at a path; links are not followed."""
    status = os.lstat(path)
    mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    if stat.S_ISREG(status.st_mode):
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as stream:
            while True:
                chunk = stream.read(1 << 18)
                if not chunk:
                    break
                digest.update(chunk)
            fixed = is_fixed(stream.fileno())
        return Entry(FILE, mode, uid, gid, read_xattrs(path), digest.hexdigest(), fixed)
    if stat.S_ISLNK(status.st_mode):
        return Entry(LINK, 0o777, uid, gid, read_xattrs(path), os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fixed = is_fixed(fd)
        finally:
            os.close(fd)
        return Entry(FOLDER, mode, uid, gid, read_xattrs(path), fixed=fixed)
    return Entry(SPECIAL)


def carry_out(plan: Plan, theirs: str, etc: str, backup: Path, *, also: Sequence[str] = ()) -> None:
    """Change /etc as planned; what is replaced is kept in `backup` first.

    also: files that others will change next, and that undoing must restore as well.
    Raises StrataError; after it, `undo` restores what was.
    """
    shutil.rmtree(backup, ignore_errors=True)
    backup.mkdir(parents=True, mode=0o700)
    planned = [action.path for action in plan.actions]
    _save([*planned, *(path for path in also if path not in planned)], etc, backup)
    for action in plan.actions:
        target = f"{etc}/{action.path}"
        try:
            if action.kind == INSTALL:
                _install(f"{theirs}/{action.path}", target)
            else:
                _remove(target)
        except OSError as error:
            raise StrataError(
                f"/etc/{shown(action.path)} could not be changed: {error.strerror}"
            ) from error


def _save(paths: Sequence[str], etc: str, backup: Path) -> None:
    """Copy what will be touched; the list, written last, says what was not there."""
    rows = []
    for number, path in enumerate(paths):
        source = f"{etc}/{path}"
        there = os.path.lexists(source)
        if there:
            _copy_entry(source, str(backup / str(number)))
        rows.append([path, there])
    # In ASCII: a name that is not UTF-8 has its bytes escaped, and comes back as it was.
    atomic_write(backup / "paths.json", json.dumps(rows).encode("ascii"))


def undo(etc: str, backup: Path) -> bool:
    """Put back what `carry_out` replaced; returns whether there was anything to undo.

    May be interrupted and called again. A new folder stays when somebody else's files are in it.
    """
    listing = backup / "paths.json"
    if not listing.exists():
        return False
    rows = list(enumerate(json.loads(listing.read_bytes())))
    for _, (path, there) in sorted(rows, key=lambda row: row[1][0], reverse=True):
        _remove(_beside(f"{etc}/{path}"))  # a copy that was being made
        if not there:
            _remove_if_empty(f"{etc}/{path}")
    for number, (path, there) in sorted(rows, key=lambda row: row[1][0]):
        saved, target = str(backup / str(number)), f"{etc}/{path}"
        if there and not (os.path.lexists(target) and read_entry(target) == read_entry(saved)):
            _install(saved, target)
    # The listing goes first: without it the copies are rubbish, with it all of them are needed.
    listing.unlink()
    shutil.rmtree(backup)
    return True


def _remove_if_empty(target: str) -> None:
    try:
        _remove(target)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def _copy_entry(source: str, target: str) -> None:
    """A file, link, or folder (without what is in it) with all that belongs to it."""
    if stat.S_ISDIR(os.lstat(source).st_mode):
        os.mkdir(target, 0o700)
        _copy_folder_metadata(source, target)
    else:
        copy(source, target)


def _install(source: str, target: str) -> None:
    is_folder = stat.S_ISDIR(os.lstat(source).st_mode)
    there = os.path.lexists(target)
    target_is_folder = there and stat.S_ISDIR(os.lstat(target).st_mode)
    if is_folder:
        if there and not target_is_folder:
            os.unlink(target)
            there = False
        if not there:
            os.mkdir(target, 0o700)
        _copy_folder_metadata(source, target)
        return
    if target_is_folder:
        os.rmdir(target)
    fresh = _beside(target)
    if os.path.lexists(fresh):
        os.unlink(fresh)
    copy(source, fresh)
    os.rename(fresh, target)


def _beside(target: str) -> str:
    """Where a file is made before it takes its place; any name that may be there fits."""
    return f"{os.path.dirname(target)}/{_NEW}"


def _copy_folder_metadata(source: str, target: str) -> None:
    status = os.lstat(source)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    wanted = dict(read_xattrs(source))
    for name, _ in read_xattrs(target):
        if name not in wanted:
            os.removexattr(target, name)
    for name, value in wanted.items():
        os.setxattr(target, name, value)
    os.chmod(target, stat.S_IMODE(status.st_mode))


def _remove(target: str) -> None:
    if not os.path.lexists(target):
        return
    if stat.S_ISDIR(os.lstat(target).st_mode):
        os.rmdir(target)
    else:
        os.unlink(target)
