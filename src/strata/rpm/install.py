"""Installing locked packages into a root: dnf's transaction, offline, and nothing of dnf's left.

The package database is `/usr/lib/sysimage/rpm` of the root. Afterwards it is closed so that rpm
reads it on a read-only file system, where it could not make the `-wal` and `-shm` files it would
otherwise look for.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from strata.core import rooted
from strata.core.errors import NoSpaceError, PackageError, ToolFailedError
from strata.core.events import Step
from strata.core.process import require_root
from strata.rpm import dnf
from strata.rpm.inventory import RPMDB_FOLDER

LANGS_MACRO = "_install_langs"
# What dnf and libdnf write into a root beside the packages.
_LEFT = ("var/lib/dnf", "var/cache/dnf", "var/log", "var/lib/rpm", "root/.rpmdb", "etc/dnf")


def install(
    root: Path,
    files: Sequence[Path],
    *,
    arch: str,
    source_date_epoch: int,
    documentation: bool,
    scratch: Path,
    step: Step,
    replaces: Sequence[str] = (),
    langs: Sequence[str] = (),
) -> None:
    """Install package files, and only those, into a root (which may hold packages already).

    replaces: names of packages there that may go for another build of theirs. langs: locales whose
    files are installed, all when empty.
    With the same files and source_date_epoch the database is the same to the byte.
    Raises PackageError, ToolFailedError, NotRootError.
    """
    require_root("installing packages")
    database = rooted.resolve(root, f"{RPMDB_FOLDER}/rpmdb.sqlite")
    there = {name for name in _LEFT if rooted.resolve(root, name).exists()}
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dnf.", dir=scratch) as cache:
        answer = dnf.call(
            {
                "task": "install",
                "root": str(root),
                "installed": database.exists(),
                "cachedir": cache,
                "arch": arch,
                "documentation": documentation,
                "replaces": list(replaces),
                "files": [str(path) for path in files],
            },
            env={"SOURCE_DATE_EPOCH": str(source_date_epoch)},
            macros={LANGS_MACRO: ":".join(langs)} if langs else {},
            on_progress=lambda done: step.progress(done, len(files), "packages"),
        )
    if answer.get("error") == "unsolvable":
        text = " ".join(str(answer["message"]).split())
        raise PackageError(f"the locked packages cannot be installed: {text}")
    if answer.get("error"):
        _refuse_full_disk(answer, root, len(files))
        raise ToolFailedError(
            "dnf could not install the packages", context={"output": answer.get("message")}
        )
    if answer["installed"] != len(files):
        raise PackageError(f"dnf installed {answer['installed']} of {len(files)} packages")
    for name in _LEFT:
        if name not in there:
            rooted.remove(root, name)
    close_database(rooted.resolve(root, f"{RPMDB_FOLDER}/rpmdb.sqlite"))


def check_installable(root: Path, files: Sequence[Path], *, arch: str, scratch: Path) -> None:
    """Run dnf's transaction test of package files on a root: all that an install does, up to the
    point where rpm would write. The root's package database is opened, and so has to be writable.

    Raises PackageError saying what is in the way, NoSpaceError, ToolFailedError, NotRootError.
    """
    require_root("testing a transaction")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dnf.", dir=scratch) as cache:
        answer = dnf.call(
            {
                "task": "install",
                "test": True,
                "root": str(root),
                "installed": True,
                "cachedir": cache,
                "arch": arch,
                "files": [str(path) for path in files],
            }
        )
    if answer.get("error"):
        _refuse_full_disk(answer, root, len(files))
        raise PackageError(" ".join(str(answer["message"]).split()))
    if answer["installed"] != len(files):
        raise PackageError(f"dnf would install {answer['installed']} of {len(files)} packages")


def _refuse_full_disk(answer: Mapping[str, object], root: Path, count: int) -> None:
    """rpm counts the space before a transaction, and may still run out in it."""
    message = str(answer.get("message"))
    if "more space needed" in message or "No space left on device" in message:
        raise NoSpaceError(
            f"no space left on the device while installing {count} packages in {root}",
            hint="free some space, or put the store on a larger disk with --store",
        )


def close_database(database: Path) -> None:
    """Fold the write-ahead log into the database and go back to a journal that needs no files."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.with_name(".rpm.lock").unlink(missing_ok=True)
