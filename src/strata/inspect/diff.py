"""Comparing two images: packages, then layers and what a client fetches, then files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strata.core.errors import ArchitectureError
from strata.core.text import shown
from strata.inspect.contents import read_contents
from strata.inspect.entries import File
from strata.inspect.osrelease import PATH, Reading, look, os_version, readings
from strata.inspect.packagediff import PackageChange, diff_packages, with_marks
from strata.inspect.packages import (
    ImagePackages,
    NoDatabaseError,
    read_base_packages,
    read_packages,
)
from strata.inspect.view import ImageView, LayerView
from strata.oci.source import ImageSource
from strata.rpm.nevra import NEVRA

Opened = tuple[ImageSource, ImageView]


def check_comparable(old: ImageView, new: ImageView) -> None:
    """Raise ArchitectureError when two images are for different architectures."""
    if old.config.architecture != new.config.architecture:
        raise ArchitectureError(
            f"{old.name} is for {old.config.architecture or 'no architecture'} and {new.name} for "
            f"{new.config.architecture or 'no architecture'}: they cannot be compared",
            hint="compare images of one architecture",
        )


# --- layers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fetch:
    """What a client that has A fetches for B: layers, each once, in B's order."""

    layers: tuple[LayerView, ...]

    @property
    def size_bytes(self) -> int:
        """The sum of their compressed sizes."""
        return sum(layer.size_bytes for layer in self.layers)


def fetch_of(old: ImageView, new: ImageView) -> Fetch:
    """The layers of `new` that `old` has neither by digest nor by diff-id."""
    digests = {layer.digest for layer in old.layers}
    diff_ids = {layer.diff_id for layer in old.layers}
    found = []
    for layer in new.layers:
        if layer.digest not in digests and layer.diff_id not in diff_ids:
            found.append(layer)
            digests.add(layer.digest)
            diff_ids.add(layer.diff_id)
    return Fetch(tuple(found))


# --- packages --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PackageDiff:
    """The packages of two images, sorted, and their differences."""

    old: tuple[NEVRA, ...]
    new: tuple[NEVRA, ...]
    changes: tuple[PackageChange, ...]


def compare_packages(old: Opened, new: Opened) -> PackageDiff:
    """Read and compare the packages of two images; the bases' only when something differs.

    An image without a package database has no packages. Raises PackageError when one is damaged or
    of a format that is not read.
    """
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(_read, (old, new))
        left, right = (found.nevras if found else () for found in (ours, theirs))
        changes = diff_packages(left, right)
        if not changes:
            return PackageDiff(left, right, ())
        pairs = ((old, ours), (new, theirs))
        bases: Sequence[Sequence[NEVRA] | None]
        if [of.digest for of in old[1].base] == [of.digest for of in new[1].base]:
            # One base: it is read once, from the image with the fewest layers on top, if any.
            bases = 2 * (_base(*min(pairs, key=lambda pair: len(pair[0][1].layers))),)
        else:
            bases = tuple(pool.map(lambda pair: _base(*pair), pairs))
    return PackageDiff(left, right, with_marks(changes, (left, bases[0]), (right, bases[1])))


def _read(image: Opened) -> ImagePackages | None:
    try:
        return read_packages(*image)
    except NoDatabaseError:
        return None


def _base(image: Opened, packages: ImagePackages | None) -> Sequence[NEVRA] | None:
    view = image[1]
    if not view.base_layers:
        return None
    if packages and packages.layer.number <= view.base_layers:
        return packages.nevras
    return read_base_packages(*image)


# --- files -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileChange:
    """One path that differs. what: what differs about it, as words; empty when added or removed."""

    path: str
    old: File | None
    new: File | None
    what: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """changed, added or removed."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "path": shown(self.path),
            "change": self.kind,
            "what": list(self.what),
            "old": self.old.to_json() if self.old else None,
            "new": self.new.to_json() if self.new else None,
        }


def diff_files(old: Mapping[str, File], new: Mapping[str, File]) -> tuple[FileChange, ...]:
    """Every path that differs, sorted; which layer a file is in does not count."""
    found = []
    for path in sorted(old.keys() | new.keys()):
        one, other = old.get(path), new.get(path)
        if one is None or other is None:
            found.append(FileChange(path, one, other))
        else:
            what = differences(one, other)
            if what:
                found.append(FileChange(path, one, other, what))
    return tuple(found)


def differences(old: File, new: File) -> tuple[str, ...]:
    """What differs between two files of a path, as words."""
    if old.kind != new.kind:
        return (f"{old.kind} → {new.kind}",)
    found = []
    if old.size_bytes != new.size_bytes:
        found.append(f"content ({old.size_bytes} → {new.size_bytes} bytes)")
    elif old.digest != new.digest:
        found.append("content")
    if old.target != new.target:
        found.append(f"target {shown(old.target)} → {shown(new.target)}")
    if old.mode != new.mode:
        found.append(f"mode {old.mode:04o} → {new.mode:04o}")
    if (old.uid, old.gid) != (new.uid, new.gid):
        found.append(f"owner {old.uid}:{old.gid} → {new.uid}:{new.gid}")
    left, right = dict(old.xattrs), dict(new.xattrs)
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name):
            values = f"{_value(left.get(name))} → {_value(right.get(name))}"
            found.append(f"xattr {name.decode('utf-8', 'backslashreplace')} {values}")
    return tuple(found)


def _value(data: bytes | None) -> str:
    if data is None:
        return "none"
    text = data.rstrip(b"\0").decode("utf-8", "replace")
    return text if text.isprintable() and "�" not in text else data.hex()


# --- os-release ------------------------------------------------------------------------------

OS_RELEASE = (f"/{PATH}", "/etc/os-release")


def read_os_release(image: Opened, files: Mapping[str, File]) -> dict[str, str]:
    """What an image's os-release says; nothing when it has none. files: with digests."""
    for path in OS_RELEASE:
        file = files.get(path)
        if file and file.kind == "file":
            return look(read_contents(*image, [file])[file.digest])
    return {}


@dataclass(frozen=True)
class OSReleaseDiff:
    """What who reads A's os-release reads in B. old, new: the OS's version as consumers read it."""

    old: str
    new: str
    readings: tuple[Reading, ...]

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "old_os_version": self.old,
            "new_os_version": self.new,
            "readings": [reading.to_json() for reading in self.readings],
        }


def compare_os_release(before: Mapping[str, str], after: Mapping[str, str]) -> OSReleaseDiff:
    """Compare what os-release of two images says."""
    return OSReleaseDiff(os_version(before), os_version(after), readings(before, after))
