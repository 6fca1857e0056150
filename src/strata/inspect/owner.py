"""Where a path of an image comes from: its layer, its package, the line that asked for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from strata.container.labels import TARGET
from strata.core.errors import ImageError, UsageError
from strata.core.text import shown
from strata.inspect.entries import File
from strata.inspect.packagediff import mark_of
from strata.inspect.view import ImageView, LayerView
from strata.oci.model import goarch
from strata.rpm.inventory import Inventory
from strata.rpm.lock import Lock, LockFile
from strata.rpm.nevra import NEVRA
from strata.treefile.target import Target

_MAX_LINKS = 40


@dataclass(frozen=True)
class Reason:
    """Why a package is in the image. lock: its file name below the store; words: the chain of needs
    up to the line of a treefile."""

    lock: str
    words: str


@dataclass(frozen=True)
class Owner:
    """What is known of a path. path: where it really is, links in its folders followed.

    packages: those that own it, each with base, node, override or nothing as its mark.
    """

    path: str
    file: File
    layer: LayerView
    packages: tuple[tuple[NEVRA, str], ...]
    reasons: Mapping[NEVRA, Reason]


def normal(path: str) -> str:
    """A path as the file list has it: one leading slash, no trailing one. Raises UsageError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"{path!r} is not a plain path", hint="write it without ..")
    return "/" + "/".join(parts)


def resolve(files: Mapping[str, File], path: str) -> str:
    """A path with the links in its folders followed; the last name is not.

    Raises ImageError on a loop of links.
    """
    done: list[str] = []
    left = [part for part in path.split("/") if part]
    links = 0
    while left:
        part = left.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        file = files.get("/" + "/".join([*done, part]))
        if left and file is not None and file.kind == "link":
            links += 1
            if links > _MAX_LINKS:
                raise ImageError(f"{shown(path)} goes through more than {_MAX_LINKS} links")
            if file.target.startswith("/"):
                done = []
            left = [name for name in file.target.split("/") if name not in ("", ".")] + left
        else:
            done.append(part)
    return "/" + "/".join(done)


def find(view: ImageView, files: Mapping[str, File], path: str) -> tuple[str, File]:
    """The file at a path, and where that is. Raises ImageError naming the nearest that is there."""
    where = resolve(files, normal(path))
    file = files.get(where)
    if file is not None:
        return where, file
    above = where
    while above not in files and above != "/":
        above = above.rpartition("/")[0] or "/"
    raise ImageError(
        f"{view.name} has no {shown(path)}",
        hint=f"the nearest that is there is {shown(above)}",
        context={"path": shown(where)},
    )


def packages_owning(
    files: Mapping[str, File], inventory: Inventory, path: str
) -> tuple[NEVRA, ...]:
    """The packages that own a resolved path, sorted. Packages may name it through links (/bin)."""
    name = path.rpartition("/")[2]
    found = {
        package.nevra
        for package in inventory.packages
        for owned in package.files
        if owned.endswith(f"/{name}") and (owned == path or resolve(files, owned) == path)
    }
    return tuple(sorted(found))


def owner_of(
    view: ImageView,
    files: Mapping[str, File],
    inventory: Inventory,
    base: tuple[NEVRA, ...] | None,
    locks: Mapping[str, Lock],
    path: str,
) -> Owner:
    """What is known of a path. base: the base's packages, None when there is no base.

    Raises ImageError when the path is not there.
    """
    where, file = find(view, files, path)
    whole = inventory.nevras()
    owning = packages_owning(files, inventory, where)
    marked = tuple((one, "" if base is None else mark_of(one, whole, base)) for one in owning)
    reasons = {}
    for nevra in owning:
        for name, lock in locks.items():
            if any(package.nevra == nevra for package in lock.packages):
                reasons[nevra] = Reason(name, lock.explain(nevra))
                break
    return Owner(where, file, view.layers[file.layer - 1], marked, reasons)


# --- locks -----------------------------------------------------------------------------------


def read_locks(store: Path, view: ImageView) -> dict[str, Lock]:
    """The locks in a store that may explain an image's packages, by their name below it.

    The image's own target first (its label), then the layers its stream stands on. Empty when
    the store has none. Raises DefinitionError on one that is malformed.
    """
    found = {}
    for target in _targets(view.config.labels.get(TARGET, "")):
        name = f"locks/{target}.lock"
        path = store / name
        if path.is_file():
            for (_, arch), lock in LockFile.load(path).locks.items():
                if goarch(arch) == view.config.architecture:
                    found[name] = lock
    return found


def _targets(label: str) -> Iterator[Target]:
    try:
        target = Target.parse(label)
    except UsageError:
        return  # an image that strata did not build
    yield target
    stream = target.stream or target.name
    if target.kind == "node":
        yield Target("coreos", stream)
    if target.kind in ("node", "coreos"):
        yield Target("bootc", stream)
