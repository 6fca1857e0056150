"""Are two images the same system, whatever their layers? (requirement R0.2)

Compared: every path with type, content, mode, owner, attributes and target; packages; os-release.
Build metadata does not count: times, labels, the split into layers, the bytes of the package
database and the package list (the packages themselves are compared), and os-release's text (its
values are).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strata.inspect.diff import (
    OS_RELEASE,
    FileChange,
    Opened,
    PackageDiff,
    diff_files,
    read_os_release,
)
from strata.inspect.entries import File
from strata.rpm.inventory import KNOWN_FOLDERS, PKGLIST_PATH

# From the inside out: each goes when nothing else is in it.
_PKGLIST_FOLDERS = ("/usr/share/openshift/base", "/usr/share/openshift")
_DATABASES = tuple(f"/{folder}/" for folder in KNOWN_FOLDERS)


@dataclass(frozen=True)
class Difference:
    """One thing in which two systems differ. subject: a path, a package or `os-release`."""

    subject: str
    what: str

    def to_json(self) -> dict[str, str]:
        """As JSON-ready values."""
        return {"subject": self.subject, "what": self.what}


def same_system(
    old: Opened,
    new: Opened,
    files: tuple[Mapping[str, File], Mapping[str, File]],
    packages: PackageDiff,
) -> tuple[Difference, ...]:
    """Every difference of two systems; none when they are the same.

    files: of both, with digests.
    """
    found = []
    for change in packages.changes:
        evrs = f"{change.old.evr if change.old else 'none'} → " + (
            str(change.new.evr) if change.new else "none"
        )
        found.append(Difference(f"package {change.name}.{change.either.arch}", evrs))
    left, right = (read_os_release(*pair) for pair in zip((old, new), files, strict=True))
    found += [Difference("os-release", what) for what in diff_os_release(left, right)]
    found += [_of_file(change) for change in diff_files(system(files[0]), system(files[1]))]
    return tuple(found)


def _of_file(change: FileChange) -> Difference:
    if change.old is None or change.new is None:
        file = change.new or change.old
        return Difference(change.path, f"{change.kind} ({file.kind if file else ''})")
    return Difference(change.path, ", ".join(change.what))


def system(files: Mapping[str, File]) -> dict[str, File]:
    """The files that count: without the database, the package list and the folders made for it.

    os-release stays with all but its content, which is compared by value.
    """
    kept = {}
    for path, file in files.items():
        if path.startswith(_DATABASES) or path == f"/{PKGLIST_PATH}":
            continue
        kept[path] = _without_content(file) if path in OS_RELEASE else file
    for folder in _PKGLIST_FOLDERS:
        if not any(path.startswith(f"{folder}/") for path in kept):
            kept.pop(folder, None)
    return kept


def _without_content(file: File) -> File:
    return File(
        file.kind,
        file.mode,
        file.uid,
        file.gid,
        0,
        file.target,
        file.xattrs,
        "",
        file.layer,
        file.stored,
    )


def diff_os_release(left: Mapping[str, str], right: Mapping[str, str]) -> tuple[str, ...]:
    """The keys whose values differ, as words."""
    return tuple(
        f"{key} {left.get(key, 'none')} → {right.get(key, 'none')}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    )
