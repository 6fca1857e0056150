"""The node layer: packages on top of a base image, as derived layers.

The base is resolved to a digest and imported as the commit it was made from. Its tree, as a
container sees it (`/etc`, not `/usr/etc`), is the lower side of an overlay mount; packages,
overlays and scripts go in; what the upper side then holds becomes layers. The base's layers stay
byte-identical and first. The last layer is only the package list (requirement R3.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.compose import osrelease
from strata.compose.components import RPMDB, tree_path
from strata.compose.context import BuildContext
from strata.compose.definitions import Definition, load_definition, tool_inputs
from strata.compose.fetch import fetch_to_store
from strata.compose.install import populate
from strata.compose.normalise import LEFT_OVERS, move_var_to_tmpfiles, reopen
from strata.compose.overlaymount import overlay_mount
from strata.compose.store import prior_of, publish, stored_manifest
from strata.container import derive
from strata.container.importer import import_image
from strata.container.labels import METALAYER, VERSION
from strata.core import rooted
from strata.core.clock import rfc3339, source_date_epoch
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.files import canonical_json, remove_tree
from strata.core.record import BuildRecord, Input
from strata.oci.digest import Digest
from strata.oci.model import ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.checkout import checkout
from strata.ostree.tree import Tree
from strata.rpm.inventory import RPMDB_FOLDER, Inventory, read_inventory
from strata.rpm.lock import Lock
from strata.treefile.conditions import Variable
from strata.treefile.project import NodeStream
from strata.treefile.target import Target

PKGLIST_PATH = "usr/share/openshift/base/meta.json"
PKGLIST_TITLE = "package list"
TITLE_LABEL = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Base:
    """A node build's base image, in the store and in its repository.

    manifest: the digest of its manifest for this architecture; commit: the tree to build on.
    """

    manifest: Digest
    commit: str
    version: str


@dataclass(frozen=True)
class NodeJob:
    """A node layer, ready to be built: all that goes in is known and digested."""

    target: Target
    node: NodeStream
    definition: Definition
    lock: Lock
    base: Base
    inputs: tuple[Input, ...]
    epoch: int

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
    context: BuildContext, target: Target, base: ImageReference | None, reporter: Reporter
) -> NodeJob:
    """Resolve the base, read, solve and lock a node layer. Nothing is built.

    base: an image in place of the definitions' own.
    Raises DefinitionError, ImageError, TransportError, RepositoryError, PackageError.
    """
    node = context.project.node(target)
    found = resolve_base(context, node, base, reporter)
    tree = Tree.load(context.workspace.repo(), found.commit)
    definition = load_definition(
        context.project,
        node.treefile,
        variables=node_variables(context, tree, node),
        arch=context.arch,
        store=context.workspace.store,
        reporter=reporter,
    )
    with reporter.step(f"solve {target}") as step, context.workspace.scratch("solve") as scratch:
        lock = definition.lock(
            arch=context.arch,
            metadata_cache=context.workspace.metadata,
            installed_root=context.packages_of(found.commit, scratch / "root"),
        )
        step.detail(f"{len(lock.packages)} packages on top of the base")
    inputs = [
        Input("definition", str(target), context.project.definition_digest(target)),
        *definition.inputs(),
        Input("lock", str(target), lock.identity()),
        Input("base", "image", str(found.manifest)),
        *tool_inputs(),
    ]
    given = source_date_epoch()
    if given is not None:
        inputs.append(Input("clock", "SOURCE_DATE_EPOCH", str(given)))
    of_base = context.workspace.repo().commit(found.commit).timestamp
    epoch = max(lock.generated, of_base) if given is None else given
    return NodeJob(target, node, definition, lock, found, tuple(sorted(inputs)), epoch)


def resolve_base(
    context: BuildContext, node: NodeStream, given: ImageReference | None, reporter: Reporter
) -> Base:
    """The base image, by digest, copied to the store and imported to its repository."""
    workspace = context.workspace
    if given is not None:
        reference = given
    elif node.base == "stream":
        reference = ImageReference("oci", str(workspace.store), f"coreos/{node.stream}")
    else:
        reference = ImageReference.parse(node.base)
    pinned = fetch_to_store(workspace, reference, arch=context.arch, reporter=reporter)
    return import_base(context, pinned, reporter)


def import_base(context: BuildContext, pinned: ImageReference, reporter: Reporter) -> Base:
    """An image of the store, by digest, as a commit of its repository."""
    repo = context.workspace.repo()
    with open_source(pinned, architecture=context.arch) as source:
        stored = import_image(
            source, repo, reference=pinned, threads=context.jobs, reporter=reporter
        )
        derived = any(layer.kind == "derived" for layer in stored.layers)
        commit = stored.merge_commit if derived else stored.base_commit
        return Base(source.manifest_digest, commit, source.config.labels.get(VERSION, ""))


def node_variables(context: BuildContext, tree: Tree, node: NodeStream) -> dict[str, Variable]:
    """What conditions may ask, from the base's os-release: a node needs no base definitions."""
    checksum = tree.lookup(osrelease.PATH)
    if not isinstance(checksum, str):
        raise DefinitionError(f"the base image has no /{osrelease.PATH}")
    with context.workspace.repo().open_content(checksum) as stream:
        values = osrelease.parse(stream.read().decode("utf-8"))
    identity, version = values.get("ID", ""), values.get("VERSION_ID", "")
    return {
        "deriving": True,
        "id": identity,
        "stream": node.stream,
        "osversion": f"{identity}-{version}",
    }


def build_node(context: BuildContext, job: NodeJob, reporter: Reporter) -> Mapping[str, object]:
    """Build a prepared node layer into the store; returns the record's outputs."""
    workspace = context.workspace
    layout = workspace.layout
    manifest = Manifest.parse(layout.read(layout.resolve(digest=job.base.manifest)))
    config = ImageConfig.parse(layout.read(manifest.config))
    tree = Tree.load(workspace.repo(), job.base.commit)
    view = derive.container_view(tree)
    with base_root(context, tree) as lower, workspace.scratch("node") as scratch:
        with overlay_mount(lower, scratch) as mount:
            before = read_inventory(mount.merged)
            populate(
                mount.merged,
                job.definition,
                job.lock,
                workspace,
                source_date_epoch=job.epoch,
                reporter=reporter,
            )
            _clean(mount.merged, reporter)
            inventory = read_inventory(mount.merged)
        _forget_build_folders(mount.upper)
        with reporter.step("write the node layers") as step:
            found = derive.changes(str(mount.upper), view)
            prior = stored_manifest(layout, str(job.target), context.arch)
            own = derive.titles(Manifest.parse(layout.read(prior))) if prior else ()
            groups = derive.group(found, _owner(before, inventory), [RPMDB], own)
            upper = str(mount.upper)
            with ThreadPoolExecutor(context.jobs) as pool:
                writing = [
                    pool.submit(derive.write_changes, layout, title, items, view, upper)
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
        labels={METALAYER: "true", TITLE_LABEL: str(job.target)},
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
        "node_layers": [
            {
                "title": of.title,
                "digest": str(of.descriptor.digest),
                "size": of.descriptor.size_bytes,
            }
            for of in layers
        ],
    }


@contextmanager
def base_root(context: BuildContext, tree: Tree) -> Iterator[Path]:
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


def _owner(before: Inventory, after: Inventory) -> Callable[[str], str | None]:
    """Which layer a changed path belongs to: its package's, if the node layer brought it."""
    old = set(before.nevras())
    owners: dict[str, str] = {}
    for path, nevras in after.file_owners().items():
        new = [nevra for nevra in nevras if nevra not in old]
        if new:
            where = tree_path(path)
            owners[where[4:] if where.startswith("/usr/etc/") else where] = new[0].name

    def owner(path: str) -> str | None:
        return RPMDB if path.startswith(f"/{RPMDB_FOLDER}") else owners.get(path)

    return owner
