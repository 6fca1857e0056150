"""Which packages an image holds, reading no more of it than needed.

A node image says it in its last layer (`meta.json`, label `io.openshift.metalayer`); an image
derived further inherits the label without the layer, so it is believed only when the layer really
is that (requirement R3.8). Otherwise the package database is looked for: derived layers from the
top, then the chunk that names it, then the chunks of what no package owns, then the others.
Multisets: the same NEVRA may stand twice. `gpg-pubkey` is no package, on either way (R8.6).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.container.derived import OPAQUE, WHITEOUT
from strata.container.labels import METALAYER
from strata.core.errors import ImageError, PackageError
from strata.core.text import shown
from strata.inspect.entries import normal_path
from strata.inspect.stream import open_tar
from strata.inspect.view import ImageView, LayerView
from strata.oci.source import ImageSource
from strata.oci.tar import DIRECTORY, FILE, HARDLINK, TarReader
from strata.rpm.inventory import KNOWN_FOLDERS, PKGLIST_PATH, Inventory, read_database
from strata.rpm.nevra import NEVRA

MAX_PKGLIST_BYTES = 16 << 20
MAX_METALAYER_BYTES = 4 << 20
MAX_DATABASE_BYTES = 2 << 30
DATABASE_NAMES = {"rpmdb.sqlite": "sqlite", "Packages": "Berkeley DB", "Packages.db": "ndb"}
NO_PACKAGE = "gpg-pubkey"
# Chunks by how likely they hold the database: ours names it, rpm-ostree's is with what no one owns.
_LIKELY = ("rpmdb", "rpmostree-unpackaged-content", "unpackaged")
_SQLITE = b"SQLite format 3\0"
_OBJECTS = "sysroot/ostree/repo/objects/"


class NoDatabaseError(PackageError):
    """An image has no package database, in any layer that was looked at."""


@dataclass(frozen=True)
class ImagePackages:
    """An image's packages, sorted. layer: the one that says so; origin: how it does, as words.

    problem: why the package list was not believed, empty when it was or is not claimed.
    """

    nevras: tuple[NEVRA, ...]
    layer: LayerView
    origin: str
    problem: str = ""


def read_packages(source: ImageSource, view: ImageView) -> ImagePackages:
    """The packages of an image. Raises NoDatabaseError, PackageError when it cannot be read."""
    listed, problem = read_metalayer(source, view)
    if listed is not None:
        last = view.layers[-1]
        return ImagePackages(listed, last, f"the package list in {last}")
    inventory, layer = read_inventory_in(source, view, view.layers)
    origin = f"the package database in {layer}"
    return ImagePackages(real_packages(inventory.nevras()), layer, origin, problem)


def read_base_packages(source: ImageSource, view: ImageView) -> tuple[NEVRA, ...]:
    """The packages of the base below the derived layers; none when it has no database.

    Raises PackageError when it cannot be read.
    """
    try:
        return real_packages(read_inventory_in(source, view, view.base)[0].nevras())
    except NoDatabaseError:
        return ()


def real_packages(nevras: Iterable[NEVRA]) -> tuple[NEVRA, ...]:
    """Sorted, without the keys that rpm keeps as if they were packages."""
    return tuple(sorted(nevra for nevra in nevras if nevra.name != NO_PACKAGE))


# --- the package list ------------------------------------------------------------------------


def read_metalayer(source: ImageSource, view: ImageView) -> tuple[tuple[NEVRA, ...] | None, str]:
    """The package list of the last layer, or None; and what is wrong when it is only claimed."""
    if view.config.labels.get(METALAYER) != "true" or not view.layers:
        return None, ""
    last = view.layers[-1]
    claim = f"the label {METALAYER} says that the last layer is the package list, but "
    if last.size_bytes > MAX_METALAYER_BYTES:
        return None, f"{claim}{last} has {last.size_bytes} bytes"
    data = b""
    with open_tar(source, last.descriptor) as tar:
        for entry in tar:
            path = normal_path(entry.path)
            if entry.type == DIRECTORY:
                continue
            if path != PKGLIST_PATH or entry.type != FILE:
                return None, f"{claim}{last} holds /{shown(path)}"
            data = tar.read_all(MAX_PKGLIST_BYTES)
    if not data:
        return None, f"{claim}{last} does not hold /{PKGLIST_PATH}"
    try:
        return parse_pkglist(data), ""
    except ImageError as error:
        return None, f"{claim}{error.message}"


def parse_pkglist(data: bytes) -> tuple[NEVRA, ...]:
    """The packages of a meta.json: {"rpmdb.pkglist": [[name, epoch, version, release, arch], …]}.

    Raises ImageError.
    """
    try:
        rows = json.loads(data)["rpmdb.pkglist"]
        return real_packages(
            NEVRA(name, 0 if epoch == "(none)" else int(epoch), version, release, arch)
            for name, epoch, version, release, arch in _texts(rows)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageError(f"/{PKGLIST_PATH} is not a package list") from error


def _texts(rows: object) -> Iterator[list[str]]:
    if not isinstance(rows, list):
        raise TypeError("no list")
    for row in rows:
        if not isinstance(row, list) or not all(isinstance(item, str) for item in row):
            raise TypeError("a row is not a list of texts")
        yield row


# --- the database ----------------------------------------------------------------------------


def read_inventory_in(
    source: ImageSource, view: ImageView, layers: Sequence[LayerView]
) -> tuple[Inventory, LayerView]:
    """The inventory in the topmost package database of some layers, and where that is.

    Raises NoDatabaseError, PackageError when it is damaged, or of a format that is not read.
    """
    hidden: set[str] = set()
    for layer in search_order(layers):
        with _database(source, layer, hidden) as found:
            if found is not None:
                return read_database(found), layer
    raise NoDatabaseError(
        f"{view.name} has no package database",
        hint="packages are read from images of rpm systems; `strata image ls` shows any image",
        context={"looked in": ", ".join(f"/{folder}" for folder in KNOWN_FOLDERS)},
    )


def search_order(layers: Sequence[LayerView]) -> list[LayerView]:
    """The layers to look for the database in: the topmost derived layer hides all below it."""
    derived = [layer for layer in reversed(layers) if layer.kind == "derived"]
    chunks = [layer for layer in layers if layer.kind != "derived"]

    def unlikely(layer: LayerView) -> int:
        likely = (at for at, name in enumerate(_LIKELY) if name in layer.components)
        return min(likely, default=len(_LIKELY))

    return [*derived, *sorted(chunks, key=unlikely)]


@contextmanager
def _database(source: ImageSource, layer: LayerView, hidden: set[str]) -> Iterator[Path | None]:
    """The database in a layer as a file, or None. hidden: folders that layers above removed."""
    with tempfile.TemporaryDirectory(prefix="strata-rpmdb.") as scratch:
        yield _extract(source, layer, hidden, Path(scratch))


def _extract(source: ImageSource, layer: LayerView, hidden: set[str], scratch: Path) -> Path | None:
    found: Path | None = None
    other = ""
    objects: dict[str, Path] = {}
    removed: set[str] = set()
    with open_tar(source, layer.descriptor) as tar:
        for entry in tar:
            path = normal_path(entry.path)
            if path.startswith(_OBJECTS) and layer.kind != "derived":
                # An object comes before the path it is visible at: it is told by its first bytes.
                if entry.type == FILE and entry.size_bytes > len(_SQLITE):
                    head = tar.read(len(_SQLITE))
                    if head == _SQLITE:
                        objects[path] = _spool(scratch, head, tar, entry.size_bytes)
                continue
            folder, _, name = path.rpartition("/")
            removed |= _hides(folder, name)
            if folder not in KNOWN_FOLDERS or folder in hidden or name not in DATABASE_NAMES:
                continue
            if name != "rpmdb.sqlite":
                other = other or f"/{folder} is in {DATABASE_NAMES[name]} format"
            elif entry.type == FILE:
                found = _spool(scratch, b"", tar, entry.size_bytes)
            elif entry.type == HARDLINK:
                found = objects.get(normal_path(entry.target), found)
    hidden |= removed
    if found is None and other:
        raise PackageError(
            f"the package database in {other}, which is not read",
            hint="convert it with rpmdb --rebuilddb on a host whose rpm uses sqlite",
        )
    return found


def _spool(scratch: Path, head: bytes, tar: TarReader, size: int) -> Path:
    if size > MAX_DATABASE_BYTES:
        raise ImageError(f"a package database of {size} bytes is larger than {MAX_DATABASE_BYTES}")
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".sqlite", delete=False) as out:
        out.write(head)
        shutil.copyfileobj(tar, out, 1 << 18)
    return Path(out.name)


def _hides(folder: str, name: str) -> set[str]:
    """The database folders that a whiteout hides in the layers below."""
    if name == OPAQUE:
        gone = folder
    elif name.startswith(WHITEOUT):
        gone = f"{folder}/{name[len(WHITEOUT) :]}".lstrip("/")
    else:
        return set()
    return {
        known
        for known in KNOWN_FOLDERS
        if gone == f"{known}/rpmdb.sqlite" or not gone or f"{known}/".startswith(f"{gone}/")
    }
