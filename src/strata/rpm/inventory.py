"""What is installed in a root, read straight from its package database.

A multiset: several builds of one name may be installed, and none is lost (a map by name would). The
database is opened immutable, so a read-only file system, or no rpm on the host, is no hindrance.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import PackageError
from strata.core.rooted import resolve
from strata.rpm import header as tags
from strata.rpm.header import Header, HeaderError
from strata.rpm.nevra import NEVRA

# Where an image lists its packages, in its last layer (requirement R3.7).
PKGLIST_PATH = "usr/share/openshift/base/meta.json"
RPMDB_FOLDER = "usr/lib/sysimage/rpm"
KNOWN_FOLDERS = (RPMDB_FOLDER, "usr/share/rpm", "var/lib/rpm")


@dataclass(frozen=True)
class Package:
    """An installed package. changelog_times: seconds, newest first."""

    nevra: NEVRA
    source_rpm: str
    build_time: int
    size_bytes: int
    changelog_times: tuple[int, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """All installed packages, sorted by NEVRA; the same NEVRA may stand twice."""

    packages: tuple[Package, ...]

    def nevras(self) -> tuple[NEVRA, ...]:
        """The NEVRAs, sorted."""
        return tuple(package.nevra for package in self.packages)

    def file_owners(self) -> dict[str, tuple[NEVRA, ...]]:
        """From an absolute path to the packages that own it, sorted."""
        owners: dict[str, list[NEVRA]] = {}
        for package in self.packages:
            for path in package.files:
                owners.setdefault(path, []).append(package.nevra)
        return {path: tuple(found) for path, found in owners.items()}

    def pkglist(self) -> list[list[str]]:
        """[[name, epoch, version, release, arch], …] by name, an absent epoch as "0"; without
        gpg-pubkey (requirement R3.7)."""
        return [
            [item.name, str(item.epoch), item.version, item.release, item.arch]
            for item in self.nevras()
            if item.name != "gpg-pubkey"
        ]


def read_inventory(root: Path) -> Inventory:
    """The packages installed in a root. Raises PackageError when there is no readable database."""
    for folder in KNOWN_FOLDERS:
        database = resolve(root, f"{folder}/rpmdb.sqlite")
        if database.is_file():
            return read_database(database)
    for folder in KNOWN_FOLDERS:
        for name in ("Packages", "Packages.db"):
            if resolve(root, f"{folder}/{name}").is_file():
                kind = "Berkeley DB" if name == "Packages" else "ndb"
                raise PackageError(
                    f"the package database in /{folder} is in {kind} format, which is not read",
                    hint="convert it with rpmdb --rebuilddb on a host whose rpm uses sqlite",
                )
    raise PackageError(f"{root} has no package database", context={"looked in": KNOWN_FOLDERS})


def read_database(database: Path) -> Inventory:
    """The packages of an rpmdb.sqlite. Raises PackageError when it is damaged."""
    try:
        packages = sorted(_packages(database), key=lambda package: package.nevra)
    except (sqlite3.Error, HeaderError, ValueError) as error:
        raise PackageError(
            f"the package database {database.name} is damaged: {error}",
            context={"file": database},
        ) from error
    return Inventory(tuple(packages))


def _packages(database: Path) -> Iterator[Package]:
    # sqlite reads the name as a URI: a name with ? or # in it must not end it early.
    name = str(database.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    uri = f"file:{name}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        for (blob,) in connection.execute("SELECT blob FROM Packages ORDER BY hnum"):
            if not isinstance(blob, bytes):
                raise HeaderError("a package's header is not bytes")
            yield package_of(Header.parse(blob))


def package_of(header: Header) -> Package:
    """An installed package from its header. Raises HeaderError."""
    epoch = header.numbers(tags.EPOCH)
    arch = header.strings(tags.ARCH)
    nevra = NEVRA(
        header.text(tags.NAME),
        epoch[0] if epoch else 0,
        header.text(tags.VERSION),
        header.text(tags.RELEASE),
        arch[0] if arch else "(none)",
    )
    size = header.numbers(tags.LONGSIZE) or header.numbers(tags.SIZE) or (0,)
    built = header.numbers(tags.BUILDTIME) or (0,)
    source = header.strings(tags.SOURCERPM)
    return Package(
        nevra,
        source[0] if source else "",
        built[0],
        size[0],
        header.numbers(tags.CHANGELOGTIME),
        _files(header),
    )


def _files(header: Header) -> tuple[str, ...]:
    folders = header.strings(tags.DIRNAMES)
    names = header.strings(tags.BASENAMES)
    indexes = header.numbers(tags.DIRINDEXES)
    if len(names) != len(indexes) or any(index >= len(folders) for index in indexes):
        raise HeaderError("the file names do not match their folders")
    return tuple(folders[index] + name for name, index in zip(names, indexes, strict=True))
