"""Which package owns each file of a tree: what the layers of an image follow.

The initramfs and the package database change with almost every build: they get components, and so
layers, of their own. What no package owns (overlays, generated files) is a component too; but what
depmod and the build put beside a kernel's modules changes with them and is the kernel's.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from strata.compose.normalise import tree_path
from strata.container.encapsulate import ComponentMap
from strata.container.packing import ALWAYS, Component
from strata.ostree.checkout import checkout
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree
from strata.rpm.inventory import (
    KNOWN_FOLDERS,
    RPMDB_FOLDER,
    Inventory,
    Package,
    read_inventory,
)

UNPACKAGED = "rpmostree-unpackaged-content"
RPMDB = "rpmdb"
_YEAR_S = 365 * 24 * 3600


def component_map(inventory: Inventory, kernel: str, *, as_upstream: bool = False) -> ComponentMap:
    """The components of a base tree and who owns each path of it.

    A file of several packages is the first's in order of NEVRA. as_upstream: the kernel's folder is
    no exception, as in rpm-ostree's images.
    """
    newest = max((package.build_time for package in inventory.packages), default=0)
    components = {str(package.nevra): _component(package, newest) for package in inventory.packages}
    initramfs = f"initramfs (kernel {kernel})"
    for identifier, name in ((initramfs, "initramfs"), (RPMDB, RPMDB), (UNPACKAGED, UNPACKAGED)):
        components[identifier] = Component(identifier, name, name, ALWAYS, 0)
    owners = {tree_path(path): str(own[0]) for path, own in inventory.file_owners().items()}
    modules = f"/usr/lib/modules/{kernel}/"
    beside = Counter(own for path, own in sorted(owners.items()) if path.startswith(modules))
    kernels = [] if as_upstream or not kernel else beside.most_common(1)
    owners[f"{modules}initramfs.img"] = initramfs

    def owner(path: str, checksum: Checksum) -> str:
        if path.startswith(f"/{RPMDB_FOLDER}/"):
            return RPMDB
        if kernels and path.startswith(modules):
            return owners.get(path, kernels[0][0])
        return owners.get(path, UNPACKAGED)

    return ComponentMap(components, owner)


def commit_components(repo: Repo, tree: Tree, *, as_upstream: bool = False) -> ComponentMap:
    """The components of a commit's tree, from the package database and the kernel in it.

    Without a package database everything is one component. as_upstream: see `component_map`.
    Raises PackageError when the database is damaged or of a format that is not read.
    """
    folder = next((tree.folder(name) for name in KNOWN_FOLDERS if tree.folder(name)), None)
    if folder is None or not folder.files:
        rest = Component(UNPACKAGED, UNPACKAGED, UNPACKAGED, ALWAYS, 0)
        return ComponentMap({UNPACKAGED: rest}, lambda path, checksum: UNPACKAGED)
    with tempfile.TemporaryDirectory(prefix="strata-rpmdb.") as scratch:
        root = Path(scratch)
        (root / RPMDB_FOLDER).parent.mkdir(parents=True)
        checkout(repo, folder, str(root / RPMDB_FOLDER), link=False)
        inventory = read_inventory(root)
    modules = tree.folder("usr/lib/modules")
    kernels = [
        name
        for name, inner in sorted((modules.dirs if modules else {}).items())
        if "vmlinuz" in inner.files
    ]
    return component_map(inventory, kernels[0] if kernels else "", as_upstream=as_upstream)


def _component(package: Package, newest: int) -> Component:
    """frequency: changelog entries in the year before the newest build, as rpm-ostree counts."""
    recent = [when for when in package.changelog_times if when >= newest - _YEAR_S]
    nevra = package.nevra
    return Component(str(nevra), nevra.name, package.source_rpm, len(recent), 0)
