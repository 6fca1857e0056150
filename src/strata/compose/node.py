"""The node layer: packages on top of a base image, as derived layers.

The base is resolved to a digest and imported as the commit it was made from. Its tree, as a
container sees it (`/etc`, not `/usr/etc`), is the lower side of an overlay mount; packages,
overlays and scripts go in; what the upper side then holds becomes layers. The base's layers stay
byte-identical and first. The last layer is only the package list (requirement R3.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose import osrelease
from strata.compose.amend import (
    WITH,
    Amendment,
    Debt,
    Swap,
    apply_swaps,
    overrides_of,
    weigh,
)
from strata.compose.baseimage import Base, image_variables, resolve_base
from strata.compose.components import RPMDB, tree_path
from strata.compose.context import BuildContext
from strata.compose.definitions import Definition, amended, load_definition, tool_inputs
from strata.compose.hotfix import (
    HOTFIX_LABEL,
    NEEDED,
    changes_of,
    check_not_expired,
    standings,
)
from strata.compose.install import populate
from strata.compose.locks import amended_lock, check_locked, lock_for
from strata.compose.normalise import LEFT_OVERS, move_var_to_tmpfiles, reopen
from strata.compose.overlaymount import overlay_mount
from strata.compose.store import prior_of, publish, stored_manifest
from strata.container import derive
from strata.container.labels import METALAYER, TARGET
from strata.container.layers import written_layers
from strata.core import rooted
from strata.core.clock import rfc3339, source_date_epoch, today
from strata.core.events import Reporter
from strata.core.files import canonical_json, remove_tree
from strata.core.record import BuildRecord, Input
from strata.oci.model import ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.ostree.checkout import checkout
from strata.ostree.tree import Tree
from strata.rpm.inventory import RPMDB_FOLDER, Inventory, read_inventory
from strata.rpm.lock import Lock
from strata.treefile.project import Hotfix, NodeStream
from strata.treefile.target import Target

PKGLIST_PATH = "usr/share/openshift/base/meta.json"
PKGLIST_TITLE = "package list"


@dataclass(frozen=True)
class NodeJob:
    """A node layer, ready to be built: all that goes in is known and digested.

    hotfix: when it is one. debts: of strata.toml's overrides; hotfix_debts: of a hotfix's packages.
    """

    target: Target
    node: NodeStream
    definition: Definition
    lock: Lock
    base: Base
    inputs: tuple[Input, ...]
    epoch: int
    hotfix: Hotfix | None
    debts: tuple[Debt, ...]
    hotfix_debts: tuple[Debt, ...]

    def build(
        self,
        context: BuildContext,
        earlier: BuildRecord | None,
        current: bool,
        reporter: Reporter,
    ) -> Mapping[str, object]:
        """Build it."""
        return build_node(context, self, reporter)


def prepare_node(
    context: BuildContext,
    target: Target,
    base: ImageReference | None,
    given: Amendment,
    reporter: Reporter,
) -> NodeJob:
    """Resolve the base, read, solve and lock a node layer, or a hotfix of one. Nothing is built.

    base: an image in place of the definitions' own. given: components swapped by hand.
    Raises DefinitionError, ImageError, TransportError, RepositoryError, PackageError.
    """
    of = context.project.node_of(target)
    node = context.project.node(of)
    hotfix = context.project.hotfix(target.name) if target.kind == "hotfix" else None
    if hotfix:
        check_not_expired(hotfix, today())
    found = resolve_base(context, node, base, reporter)
    plain = load_definition(
        context.project,
        node.treefile,
        variables=image_variables(context, found.commit, node.stream),
        arch=context.arch,
        store=context.workspace.files,
        reporter=reporter,
    )
    with context.workspace.scratch("solve") as scratch:
        root = context.packages_of(found.commit, scratch / "root")
        below = read_inventory(root).nevras()
        ahead, debts = weigh(overrides_of(context.project, of), below)
        official = amended(plain, Amendment(ahead=ahead), context.workspace)
        lock = lock_for(context, of, official, root, reporter)
        amendment = replace(given, ahead=ahead)
        hotfix_debts: list[Debt] = []
        if hotfix:
            swaps, packages = changes_of(context.project, hotfix)
            there = (*below, *(one.nevra for one in lock.packages))
            packages, hotfix_debts = weigh(packages, there)
            amendment = replace(amendment, swaps=(*swaps, *given.swaps), ahead=(*ahead, *packages))
        definition = amended(plain, amendment, context.workspace)
        if amendment.requests != official.amendment.requests:
            lock = amended_lock(context, target, definition, lock, root, reporter)
    for debt in debts:
        reporter.warn(f"{of}: {debt}")
    inputs = [
        Input("definition", str(target), context.project.definition_digest(target)),
        *definition.inputs(),
        *amendment.inputs(),
        Input("lock", str(target), lock.identity()),
        Input("base", "image", str(found.manifest)),
        *tool_inputs(),
    ]
    clock = source_date_epoch()
    if clock is not None:
        inputs.append(Input("clock", "SOURCE_DATE_EPOCH", str(clock)))
    of_base = context.workspace.repo().commit(found.commit).timestamp
    epoch = max(lock.generated, of_base) if clock is None else clock
    return NodeJob(
        target,
        node,
        definition,
        lock,
        found,
        tuple(sorted(inputs)),
        epoch,
        hotfix,
        tuple(debts),
        tuple(hotfix_debts),
    )


def build_node(context: BuildContext, job: NodeJob, reporter: Reporter) -> Mapping[str, object]:
    """Build a prepared node layer into the store; returns the record's outputs."""
    workspace = context.workspace
    layout = workspace.layout
    manifest = Manifest.parse(layout.read(layout.resolve(digest=job.base.manifest)))
    config = ImageConfig.parse(layout.read(manifest.config))
    tree = Tree.load(workspace.repo(), job.base.commit)
    view = derive.container_view(tree)
    with _base_root(context, tree) as lower, workspace.scratch("node") as scratch:
        with overlay_mount(lower, scratch) as mount:
            before = read_inventory(mount.merged)
            release = osrelease.read(mount.merged, "the base image")
            populate(
                mount.merged,
                job.definition,
                job.lock,
                workspace,
                source_date_epoch=job.epoch,
                before_shell=context.before_shell,
                reporter=reporter,
            )
            added = osrelease.read(mount.merged, str(job.target))
            osrelease.check_node(release, added, job.definition.treefile)
            amendment = job.definition.amendment
            replaced = apply_swaps(mount.merged, amendment.swaps)
            _clean(mount.merged, reporter)
            inventory = read_inventory(mount.merged)
            check_locked(inventory.nevras(), job.lock, before.nevras(), job.target)
        _forget_build_folders(mount.upper)
        with reporter.step("write the node layers") as step:
            found = derive.changes(str(mount.upper), view)
            prior = stored_manifest(layout, str(job.target), context.arch)
            own = written_layers(layout, Manifest.parse(layout.read(prior))) if prior else {}
            groups = derive.group(found, _owner(before, inventory, amendment.swaps), [RPMDB], own)
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
            files = {PKGLIST_PATH: pkglist}
            layers.append(derive.file_layer(layout, PKGLIST_TITLE, files, view))
            size = sum(layer.descriptor.size_bytes for layer in layers)
            step.progress(size, size)
            step.detail(f"{len(layers)} layers, {size / 1e6:.1f} MB")
    derived = derive.append_layers(
        layout,
        manifest,
        config,
        layers,
        labels={
            METALAYER: "true",
            TARGET: str(job.target),
            **amendment.labels(),
            **({HOTFIX_LABEL: job.hotfix.name} if job.hotfix else {}),
        },
        created=rfc3339(job.epoch),
    )
    outputs = publish(layout, str(job.target), derived, context.arch)
    return {
        **outputs,
        "base": str(job.base.manifest),
        "base_layers": len(manifest.layers),
        "version": job.base.version,
        "packages": len(inventory.packages),
        "prior": prior_of(context.record(job.target), prior, derived),
        **_provenance(context, job, replaced, reporter),
        "node_layers": [
            {
                "title": of.title,
                "digest": str(of.descriptor.digest),
                "size": of.descriptor.size_bytes,
            }
            for of in layers
        ],
    }


def _provenance(
    context: BuildContext, job: NodeJob, replaced: Mapping[str, str], reporter: Reporter
) -> dict[str, object]:
    """What the record says of content beside the definition, or ahead of the base.

    replaced: the sha256 of what swapped paths had before.
    """
    amendment = job.definition.amendment
    found: dict[str, object] = {}
    if job.debts:
        found["overrides"] = [debt.to_json() for debt in job.debts]
    if amendment.provenance():
        found["with"] = amendment.provenance()
        found["replaced"] = dict(replaced)
    if job.hotfix:
        earlier = context.record(job.target)
        known = earlier.outputs.get("replaced") if earlier else None
        states = standings(
            [swap for swap in amendment.swaps if swap.of != WITH],
            replaced,
            known if isinstance(known, dict) else {},
            job.hotfix_debts,
        )
        for state in states:
            (reporter.note if state.state == NEEDED else reporter.warn)(f"{job.target}: {state}")
        found["hotfix"] = {
            "reason": job.hotfix.reason,
            "expires": str(job.hotfix.expires),
            "changes": [state.to_json() for state in states],
        }
    return found


@contextmanager
def _base_root(context: BuildContext, tree: Tree) -> Iterator[Path]:
    """The base's tree checked out as a container's root, to lie under an overlay mount."""
    with context.workspace.scratch("base") as scratch:
        root = scratch / "root"
        checkout(context.workspace.repo(), tree, str(root), link=True)
        reopen(root)
        yield root


def _clean(root: Path, reporter: Reporter) -> None:
    """Take away what tools left, and give /var's content to tmpfiles.d."""
    for name in LEFT_OVERS:
        rooted.remove(root, f"etc/{name}")
    dropped = move_var_to_tmpfiles(root, "strata-var-node.conf")
    if dropped:
        reporter.warn(
            f"{len(dropped)} files under /var are a machine's own and are not shipped: "
            + ", ".join(dropped[:5])
        )
    for name in ("run", "tmp"):
        for child in rooted.children(root, name):
            remove_tree(child)


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
