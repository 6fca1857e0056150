"""The base layers: bootc and CoreOS. Packages become a tree, a commit and an encapsulated image.

The CoreOS tree starts from the bootc commit and is committed and encapsulated anew, as upstream
does: it has a commit, chunks and a final-diffid of its own. The initramfs is made once, in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from strata.compose import osrelease
from strata.compose.amend import LABEL
from strata.compose.arrange import arrange
from strata.compose.baseimage import import_base
from strata.compose.baseplan import BasePlan, plan_base, version_of
from strata.compose.bootfiles import NOTHING, BootFiles, beside, read_boot_files
from strata.compose.components import component_map
from strata.compose.composefs import check_composefs
from strata.compose.contentmanifest import (
    ContentSets,
    read_content_sets,
    write_content_manifest,
)
from strata.compose.context import BuildContext
from strata.compose.definitions import (
    Definition,
    amended,
    content_time,
    load_definition,
    tool_inputs,
)
from strata.compose.install import Transaction, install_packages, packages_at_hand
from strata.compose.kept import KeptSteps
from strata.compose.labels import STOP_SIGNAL, Identity, base_labels
from strata.compose.localoverrides import OF, ROOTFS, read_local_overrides
from strata.compose.locks import amended_lock, check_locked, lock_for
from strata.compose.normalise import (
    find_kernel,
    normalise,
    prepare_root,
    reopen,
    warn_of_dropped,
)
from strata.compose.sandbox import run_script, tell
from strata.compose.steps import IMAGE, TREE, Step
from strata.compose.store import prior_of, publish, stored_manifest
from strata.compose.variant import Variant, identified, variant_of
from strata.container.encapsulate import Options, encapsulate
from strata.container.labels import commit_metadata
from strata.container.packing_plan import read_plan
from strata.container.packing_stable import pack_stable
from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.files import canonical_json
from strata.core.record import BuildRecord, Input
from strata.inspect.layers import check_no_node_packages
from strata.inspect.osrelease import PATH, parse
from strata.oci.model import Manifest
from strata.oci.reference import ImageReference
from strata.ostree.checkout import checkout
from strata.ostree.tree import Tree
from strata.rpm.inventory import Inventory, read_inventory
from strata.rpm.lock import Lock
from strata.rpm.nevra import NEVRA
from strata.treefile.project import BootImages, Stream
from strata.treefile.target import Target


@dataclass(frozen=True)
class BaseJob:
    """A base layer, ready to be built: all that goes in is known and digested.

    parent: the bootc commit a CoreOS tree starts from, empty for none. os_release_token: what the
    version takes the place of in os-release. identity: what the system is called. boot: what
    makers of boot images find in the tree. content_sets: by repository. below: the packages of the
    parent. plan: what else the treefile decides. version: X.Y, empty where the treefile's scheme
    counts.
    """

    target: Target
    stream: Stream
    definition: Definition
    lock: Lock
    parent: str
    inputs: tuple[Input, ...]
    epoch: int
    os_release_token: str
    identity: Identity
    boot: BootFiles
    content_sets: Mapping[str, str] | None
    below: tuple[NEVRA, ...]
    plan: BasePlan
    version: str

    @property
    def transaction(self) -> Transaction:
        """What is installed."""
        return Transaction.of(
            self.definition, self.lock, self.parent, self.epoch, self.plan.accounts
        )

    @property
    def steps(self) -> Step:
        """The last of the steps: the installed packages become a tree, and that an image."""
        tree = Step(TREE, self.inputs, (self.transaction.step,))
        return Step(IMAGE, (), (tree,))

    def build(
        self,
        context: BuildContext,
        earlier: BuildRecord | None,
        current: bool,
        reporter: Reporter,
    ) -> Mapping[str, object]:
        """Build it. What is built again from the same inputs keeps its version."""
        version = (
            str(earlier.outputs["version"])
            if earlier and current
            else next_version_of(self, earlier, dev=context.dev)
        )
        return build_base(context, self, version, reporter)


def prepare_base(context: BuildContext, target: Target, reporter: Reporter) -> BaseJob:
    """Read, solve and lock a base layer. Nothing is built.

    Raises DefinitionError, RepositoryError, PackageError (also when a node package would come in).
    """
    stream = context.project.stream(target.name)
    variant = variant_of(context.project, target)
    definition = load_definition(
        context.project,
        variant.treefile,
        variables=variant.variables,
        arch=context.arch,
        store=context.workspace.files,
        reporter=reporter,
        users=variant.users,
    )
    boot = _boot_files(context, target, stream, variant)
    sets = _content_sets(context, stream)
    parent = _parent_commit(context, target, stream, reporter)
    with context.workspace.scratch("solve") as scratch:
        root = context.packages_of(parent, scratch / "root") if parent else None
        below = read_inventory(root).nevras() if root else ()
        lock = lock_for(context, target, definition, root, reporter)
        local = read_local_overrides(context.project.path)
        amendment = local.of_layer(lock.packages)
        if amendment.local:
            names = ", ".join(str(one.nevra) for one in amendment.local)
            reporter.warn(f"{target}: {OF} replaces {names}")
            definition = amended(definition, amendment, context.workspace)
            lock = amended_lock(context, target, definition, lock, root, reporter)
    if local.rootfs and target.kind == "coreos":
        reporter.warn(f"{target}: {ROOTFS} is laid over the tree")
        overlays = (*definition.overlays, (ROOTFS, local.rootfs))
        definition = replace(definition, overlays=overlays)
    check_no_node_packages(
        [package.nevra for package in lock.packages],
        context.project.node_only,
        layer=str(target),
        origin=lock.explain,
    )
    inputs = [
        Input("definition", str(target), context.project.definition_digest(target)),
        *definition.inputs(),
        *variant.inputs,
        *boot.inputs,
        *amendment.inputs(),
        Input("lock", str(target), lock.identity()),
        *tool_inputs(),
    ]
    if sets:
        inputs.append(Input("treefile", stream.content_sets, f"sha256:{sets.sha256}"))
    if parent:
        inputs.append(Input("base", "bootc commit", parent))
    if context.dev:
        inputs.append(Input("definition", "developer build", ".dev"))
    plan = plan_base(context, target, definition, lock, inputs, variant.files)
    inputs += plan.inputs()
    parent_time = context.workspace.repo().commit(parent).timestamp if parent else 0
    epoch, clock = content_time(parent_time, lock)
    token = variant.os_release_token or definition.treefile.mutate_os_release
    identity = identified(variant.identity, definition.treefile)
    return BaseJob(
        target,
        stream,
        definition,
        lock,
        parent,
        tuple(sorted([*inputs, *clock])),
        epoch,
        token,
        identity,
        boot,
        sets.names if sets else None,
        below,
        plan,
        variant.version,
    )


def _boot_files(
    context: BuildContext, target: Target, stream: Stream, variant: Variant
) -> BootFiles:
    """Those of strata.toml's `bootimages`, else those beside the build-args file (R1.20, R1.21)."""
    if target.kind != "coreos":
        return NOTHING
    images = stream.bootimages or BootImages("", ())
    folder = context.project.path
    return read_boot_files(
        folder,
        config=images.config or variant.image_config,
        platforms=images.platforms or beside(folder, variant.folder, "platforms.yaml"),
        live=images.live or beside(folder, variant.folder, "live"),
        stream=variant.identity.stream,
        arch=context.arch,
    )


def _content_sets(context: BuildContext, stream: Stream) -> ContentSets | None:
    return (
        read_content_sets(context.project.path, stream.content_sets)
        if stream.content_sets
        else None
    )


def _parent_commit(
    context: BuildContext, target: Target, stream: Stream, reporter: Reporter
) -> str:
    """The commit of the bootc layer that a CoreOS layer starts from; empty for none."""
    if target.kind != "coreos" or stream.bootc is None:
        return ""
    if stream.bootc.image:
        return import_base(context, ImageReference.parse(stream.bootc.image), reporter).commit
    record = context.record(Target("bootc", target.name))
    if record is None:
        raise DefinitionError(
            f"{target} starts from bootc/{target.name}, which is not in the store",
            hint=f"strata build bootc/{target.name} {target}",
        )
    return str(record.outputs["commit"])


def next_version_of(job: BaseJob, earlier: BuildRecord | None, *, dev: bool = False) -> str:
    """The version of a new build. dev: it is a developer's. Raises DefinitionError."""
    return version_of(job.version, job.definition.treefile, job.epoch, earlier, dev=dev)


def build_base(
    context: BuildContext, job: BaseJob, version: str, reporter: Reporter
) -> Mapping[str, object]:
    """Build a prepared base layer into the store; returns the record's outputs."""
    workspace = context.workspace
    repo = workspace.repo()
    with workspace.scratch(job.target.kind) as scratch:
        root = scratch / "root"
        _install(context, job, root, reporter)
        arrange(
            root,
            job.definition,
            run=partial(run_script, root, before_shell=context.before_shell),
            tell=partial(tell, root, job.epoch),
            source_date_epoch=job.epoch,
            reporter=reporter,
            before_scripts=lambda: _describe(job, root, version, reporter),
            name=job.identity.name,
        )
        accounts = job.plan.after_scripts(root)
        kernel, inventory = _finish_tree(context, job, root, reporter)
        called = parse(osrelease.read(root, str(job.target))).get("NAME", "Linux")
        with reporter.step("commit") as step:
            commit = job.plan.commit(
                repo,
                root,
                str(job.target),
                metadata=commit_metadata(version=version, kernel=kernel),
                subject=f"{job.target} {version}",
                epoch=job.epoch,
                threads=context.jobs,
            )
            step.detail(commit[:12])
    labels = base_labels(
        job.identity,
        target=str(job.target),
        version=version,
        description=f"{called} {job.version or version}",
        inputs=job.inputs,
    )
    labels.update(job.plan.labels)
    swapped = _swapped(context, job)
    labels.update({LABEL: canonical_json(swapped).decode()} if swapped else {})
    with reporter.step("encapsulate") as step:
        prior = stored_manifest(workspace.layout, str(job.target), context.arch)
        plan = read_plan(Manifest.parse(workspace.layout.read(prior))) if prior else ()
        manifest = encapsulate(
            repo,
            commit,
            workspace.layout,
            component_map(inventory, kernel),
            Options(
                context.arch,
                labels,
                job.plan.command,
                threads=context.jobs,
                stop_signal=STOP_SIGNAL,
            ),
            packing=partial(pack_stable, prior=plan),
            step=step,
        )
        outputs = publish(workspace.layout, str(job.target), manifest, context.arch)
        size = int(str(outputs["size_bytes"]))
        step.progress(size, size)
        step.detail(f"{outputs['layers']} layers")
    return {
        **outputs,
        "commit": commit,
        "version": version,
        "kernel": kernel,
        "packages": len(inventory.packages),
        "epoch": job.epoch,
        "accounts": accounts.to_json(),
        **({"accounts-before": job.plan.accounts.to_json()} if job.plan.accounts.inputs() else {}),
        **({"ref": job.plan.ref} if job.plan.ref else {}),
        "prior": prior_of(context.record(job.target), prior, manifest),
        **({"with": swapped} if swapped else {}),
    }


def _swapped(context: BuildContext, job: BaseJob) -> list[dict[str, str]]:
    """What is in the tree beside the definitions, the layer below's too: no official image."""
    found = list(job.definition.amendment.provenance())
    if any(name == ROOTFS for name, _ in job.definition.overlays):
        found.append({"path": "/", "file": ROOTFS, "sha256": "", "of": ROOTFS})
    below = context.record(Target("bootc", job.target.name)) if job.parent else None
    given = below.outputs.get("with") if below and job.target.kind == "coreos" else None
    return found + (given if isinstance(given, list) else [])


def _install(context: BuildContext, job: BaseJob, root: Path, reporter: Reporter) -> None:
    """Make the root that the layer's packages are in, or take it as it was made before."""
    workspace, transaction = context.workspace, job.transaction
    kept = KeptSteps(workspace, job.target)
    with packages_at_hand(job.lock, job.definition.repos, workspace, reporter) as files:
        if kept.restore(transaction.step, root, reporter):
            return
        if job.parent:
            with reporter.step("check out the bootc tree"):
                repo = workspace.repo()
                checkout(repo, Tree.load(repo, job.parent), str(root), link=False)
                reopen(root)
        else:
            prepare_root(root)
        job.plan.before_packages(root)
        install_packages(root, transaction, files, workspace, reporter)
        kept.keep(transaction.step, root, reporter)


def _finish_tree(
    context: BuildContext, job: BaseJob, root: Path, reporter: Reporter
) -> tuple[str, Inventory]:
    """From an installed root to the tree that is committed; returns its kernel and packages."""
    if job.target.kind == "coreos":
        check_composefs(root, job.stream.composefs)
    with reporter.step("normalise the tree") as step:
        name = f"strata-var-{job.target.kind}.conf"
        normalised = normalise(root, tmpfiles_name=name, layout=job.plan.layout)
        kernel = find_kernel(root)
        step.detail(f"kernel {kernel}")
    warn_of_dropped(normalised.dropped, reporter)
    inventory = read_inventory(root)
    check_locked(inventory.nevras(), job.lock, job.below, job.target)
    check_no_node_packages(
        inventory.nevras(),
        context.project.node_only,
        layer=str(job.target),
        origin=job.lock.explain,
    )
    if job.target.kind == "coreos":
        job.plan.initramfs(root, kernel, job.epoch, reporter)
    job.plan.settle_boot(root, kernel)
    return kernel, inventory


def _describe(job: BaseJob, root: Path, version: str, reporter: Reporter) -> None:
    """Write into the tree what is said of it: its version, and what its boot images are made of.

    The scripts come later, as upstream has it: they see the version and may go on from it.
    """
    job.plan.before_scripts(root)
    _set_version(job, root, version, reporter)
    job.boot.write(root, job.lock.arch)
    if job.content_sets is not None:
        repos = [repo.id for repo in job.definition.repos]
        for repo in write_content_manifest(root, job.content_sets, repos, job.lock.arch):
            reporter.warn(
                f"{job.target}: {job.stream.content_sets} has no content set for repository {repo}"
            )


def _set_version(job: BaseJob, root: Path, version: str, reporter: Reporter) -> None:
    """Give os-release the build's version, by the treefile's token or over the layer below's."""
    token = job.os_release_token
    before = osrelease.read(root, str(job.target))
    after = osrelease.mutate(before, token, version)
    if after != before:
        rooted.write_text(root, PATH, after)
    if token and version not in parse(after).get("VERSION", ""):
        reporter.warn(
            f"{job.target}: the mutate-os-release token {token!r} is not in os-release's VERSION"
        )
