"""The native engine of node builds: an overlay mount on the base's tree, and what its upper side
then holds, split into layers by package. The last layer is only the package list (R3.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from strata.compose import osrelease
from strata.compose.amend import Swap, apply_swaps
from strata.compose.arrange import arrange
from strata.compose.components import RPMDB
from strata.compose.context import BuildContext
from strata.compose.definitions import Definition
from strata.compose.install import Transaction, install_packages, packages_at_hand
from strata.compose.kept import KeptSteps
from strata.compose.nodechecks import write_labels
from strata.compose.nodekernel import settle_kernel
from strata.compose.normalise import clean_node, find_kernel, kernels, reopen, tree_path
from strata.compose.overlaymount import UPPER, overlay_mount
from strata.compose.pyc import keep_pyc
from strata.compose.sandbox import run_script, tell
from strata.container import derive
from strata.container.labels import LINUX
from strata.container.layers import Layer
from strata.core.events import Reporter
from strata.core.files import canonical_json, remove_tree
from strata.ostree.checkout import checkout
from strata.ostree.tree import Tree
from strata.rpm.inventory import PKGLIST_PATH, RPMDB_FOLDER, Inventory, read_inventory
from strata.rpm.nevra import NEVRA
from strata.treefile.target import Target

PKGLIST_TITLE = "package list"


@dataclass(frozen=True)
class NodeLayers:
    """What an engine made. packages: all that the image has. replaced: the sha256 of what
    swapped paths had before. config: what it changes of the image's configuration. labels: those
    that follow from what was made.
    """

    layers: list[Layer]
    packages: tuple[NEVRA, ...]
    replaced: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def build_native(
    context: BuildContext,
    target: Target,
    definition: Definition,
    transaction: Transaction,
    *,
    labels: Mapping[str, str],
    own: Mapping[str, Layer],
    reporter: Reporter,
) -> NodeLayers:
    """Build a node layer's layers on a base's commit, which is what lies below the transaction.

    labels: kept in the tree, too. own: the layers of the image before, by title; what comes out
    again is not written again.
    """
    layout = context.workspace.layout
    tree = Tree.load(context.workspace.repo(), transaction.below)
    epoch = transaction.epoch
    view = derive.container_view(tree)
    workspace = context.workspace
    kept = KeptSteps(workspace, target)
    with (
        base_root(context, tree) as lower,
        workspace.scratch("node") as scratch,
        packages_at_hand(transaction.lock, definition.repos, workspace, reporter) as files,
    ):
        before = read_inventory(lower)
        release = osrelease.read(lower, "the base image")
        pyc = keep_pyc(lower, lower)
        kernel = [find_kernel(lower)] if kernels(lower) else []
        there = kept.restore(transaction.step, scratch / UPPER, reporter)
        with overlay_mount(lower, scratch) as mount:
            if not there:
                install_packages(mount.merged, transaction, files, workspace, reporter)
                kept.keep(transaction.step, mount.upper, reporter)
            arrange(
                mount.merged,
                definition,
                run=partial(run_script, mount.merged, before_shell=context.before_shell),
                tell=partial(tell, mount.merged, epoch),
                source_date_epoch=epoch,
                reporter=reporter,
            )
            added = osrelease.read(mount.merged, str(target))
            osrelease.check_node(release, added, definition.treefile)
            write_labels(mount.merged, labels)
            replacing = settle_kernel(
                mount.merged, kernel, source_date_epoch=epoch, reporter=reporter
            )
            restored = pyc.restore(mount.merged)
            if restored:
                reporter.note(f"{len(restored)} .pyc files of the base were put back")
            swaps = definition.amendment.swaps
            replaced = apply_swaps(mount.merged, swaps)
            clean_node(mount.merged, reporter)
            inventory = read_inventory(mount.merged)
        _forget_build_folders(mount.upper)
        with reporter.step("write the node layers") as step:
            found = derive.changes(str(mount.upper), view)
            groups = derive.group(found, _owner(before, inventory, swaps), [RPMDB], own)
            upper = str(mount.upper)
            with ThreadPoolExecutor(context.jobs) as pool:
                writing = [
                    pool.submit(
                        derive.write_changes, layout, title, items, view, upper, own.get(title)
                    )
                    for title, items in groups
                ]
                layers = [layer.result() for layer in writing]
            pkglist = canonical_json({"rpmdb.pkglist": inventory.pkglist()})
            listed = {PKGLIST_PATH: pkglist}
            layers.append(derive.file_layer(layout, PKGLIST_TITLE, listed, view))
            size = sum(layer.descriptor.size_bytes for layer in layers)
            step.progress(size, size)
            step.detail(f"{len(layers)} layers, {size / 1e6:.1f} MB")
    return NodeLayers(
        layers, inventory.nevras(), replaced, labels={LINUX: replacing} if replacing else {}
    )


@contextmanager
def base_root(context: BuildContext, tree: Tree) -> Iterator[Path]:
    """The base's tree checked out as a container's root, to lie under an overlay mount."""
    with context.workspace.scratch("base") as scratch:
        root = scratch / "root"
        checkout(context.workspace.repo(), tree, str(root), link=True)
        reopen(root)
        yield root


def _forget_build_folders(upper: Path) -> None:
    """The upper side's /var, /run and /tmp say nothing: the base's are empty and stay so."""
    for name in ("var", "run", "tmp"):
        remove_tree(upper / name)


def _owner(
    before: Inventory, after: Inventory, swaps: Sequence[Swap]
) -> Callable[[str], str | None]:
    """Which layer a changed path belongs to: its package's, if the node layer brought it.

    A swapped file has a layer of its own: what is swapped often moves no other.
    """
    swapped = {swap.path: f"swapped {swap.path}" for swap in swaps}
    old = set(before.nevras())
    owners: dict[str, str] = {}
    for path, nevras in after.file_owners().items():
        new = [nevra for nevra in nevras if nevra not in old]
        if new:
            where = tree_path(path)
            owners[where[4:] if where.startswith("/usr/etc/") else where] = new[0].name

    def owner(path: str) -> str | None:
        if path.startswith(f"/{RPMDB_FOLDER}"):
            return RPMDB
        return swapped.get(path) or owners.get(path)

    return owner
