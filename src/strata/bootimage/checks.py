"""The rule R5.1: a boot image holds the CoreOS layer and nothing of a node.

Packages are looked up in the tree's package database; programs by their names too, since a binary
may come without a package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from strata.core.errors import TreeError
from strata.inspect.layers import check_no_node_packages
from strata.ostree.tree import Tree
from strata.rpm.inventory import Inventory

# What node layers in the field bring to a path of programs.
NODE_PROGRAMS = frozenset(
    "kubelet kubectl kubeadm oc hyperkube crio crictl containerd ovs-vswitchd ovsdb-server".split()
)
_FOLDERS = frozenset("bin sbin libexec local opt".split())


def check_boot_image(tree: Tree, inventory: Inventory, patterns: Sequence[str], of: str) -> None:
    """Raise PackageError on a node package, TreeError on a node program. of: the image's name."""
    check_no_node_packages(
        inventory.nevras(), patterns, layer=of, origin=lambda nevra: "it is in the base image"
    )
    found = node_programs(tree)
    if found:
        raise TreeError(
            f"{found[0]} belongs to the node layer and may not be in {of}",
            hint="take it out of the CoreOS layer; machines get it with their node image",
            context={"paths": ", ".join(found)},
        )


def node_programs(tree: Tree) -> list[str]:
    """The paths of programs that only nodes have, sorted."""
    usr = tree.folder("usr")
    if usr is None:
        return []
    return sorted(
        f"/usr{path}"
        for path, _ in usr.walk_files()
        if PurePosixPath(path).name in NODE_PROGRAMS and path.split("/")[1] in _FOLDERS
    )
