"""The node layer: packages on top of a base image, as derived layers, and hotfixes of it.

The base is resolved to a digest and imported as the commit it was made from. One of two engines
makes the layers; the base's stay byte-identical and first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.amend import WITH, Amendment, Debt, overrides_of, weigh
from strata.compose.baseimage import Base, image_variables, resolve_base
from strata.compose.buildah import Recipe, build_containerfile, context_digest, write_context
from strata.compose.context import BUILDAH, BuildContext
from strata.compose.definitions import (
    Definition,
    amended,
    content_time,
    load_definition,
    tool_inputs,
)
from strata.compose.hotfix import (
    CONFLICTING,
    HOTFIX_LABEL,
    NEEDED,
    changes_of,
    check_not_expired,
    standings,
)
from strata.compose.install import Transaction
from strata.compose.locks import amended_lock, check_locked, lock_for
from strata.compose.nodechecks import (
    STREAM_CLASS_LABEL,
    check_release,
    product_labels,
    stream_class,
)
from strata.compose.nodenative import NodeLayers, build_native
from strata.compose.revision import revision_inputs, revision_labels, without_revision
from strata.compose.steps import IMAGE, TREE, Step
from strata.compose.store import prior_of, publish, stored_manifest
from strata.container import derive
from strata.container.labels import METALAYER, TARGET
from strata.container.layers import written_layers
from strata.core.clock import rfc3339, today
from strata.core.errors import DefinitionError, UsageError
from strata.core.events import Reporter
from strata.core.files import sha256_file
from strata.core.process import tool_version
from strata.core.record import BuildRecord, Input
from strata.oci.model import ImageConfig, Manifest, goarch
from strata.oci.reference import ImageReference
from strata.ostree.tree import Tree
from strata.rpm.inventory import read_inventory
from strata.rpm.lock import Lock
from strata.rpm.nevra import NEVRA
from strata.treefile.buildargs import read_arguments
from strata.treefile.project import Hotfix, NodeStream
from strata.treefile.target import Target


@dataclass(frozen=True)
class NodeJob:
    """A node layer, ready to be built: all that goes in is known and digested.

    arguments: of the Containerfile. labels: what scanners find the image by. revision: labels of
    the definitions'. below: the base's packages. hotfix: when it is one. debts: of strata.toml's
    overrides; hotfix_debts: of a hotfix's
    packages.
    """

    target: Target
    node: NodeStream
    definition: Definition
    lock: Lock
    base: Base
    inputs: tuple[Input, ...]
    epoch: int
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    revision: Mapping[str, str]
    below: tuple[NEVRA, ...]
    stream_class: str
    hotfix: Hotfix | None
    debts: tuple[Debt, ...]
    hotfix_debts: tuple[Debt, ...]
    engine: str

    @property
    def transaction(self) -> Transaction:
        """What is installed."""
        return Transaction.of(self.definition, self.lock, self.base.commit, self.epoch)

    @property
    def steps(self) -> Step:
        """The last of the steps: the installed packages become a tree, and that layers. What an
        engine of containers does is one step to us."""
        if self.engine == BUILDAH:
            return Step(IMAGE, self.inputs)
        return Step(IMAGE, (), (Step(TREE, self.inputs, (self.transaction.step,)),))

    @property
    def build_arguments(self) -> Mapping[str, str]:
        """What its Containerfile is told, beside the base and the time."""
        told = {"TREEFILE": self.node.treefile, "STREAM": self.node.stream}
        return {**told, **self.arguments}

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
    recipe_inputs, arguments = _recipe_inputs(context, node)
    architecture = goarch(context.arch)
    found = resolve_base(context, node, base, reporter)
    variables = image_variables(context, found.commit, node.stream)
    plain = load_definition(
        context.project,
        node.treefile,
        variables=variables,
        arch=context.arch,
        store=context.workspace.files,
        reporter=reporter,
    )
    with context.workspace.scratch("solve") as scratch:
        root = context.packages_of(found.commit, scratch / "root")
        below = read_inventory(root).nevras()
        ahead, debts = weigh(overrides_of(context.project, of), below)
        for debt in debts:
            reporter.warn(f"{of}: {debt}")
        official = amended(plain, Amendment(ahead=ahead), context.workspace)
        lock = lock_for(context, of, official, root, reporter, there=below)
        amendment = replace(given, ahead=ahead)
        hotfix_debts: list[Debt] = []
        if hotfix:
            swaps, packages = changes_of(context.project, hotfix)
            there = (*below, *(one.nevra for one in lock.packages))
            packages, hotfix_debts = weigh(packages, there)
            amendment = replace(amendment, swaps=(*swaps, *given.swaps), ahead=(*ahead, *packages))
        amendment = amendment.without_doubles()
        if context.engine == BUILDAH and amendment.swaps:
            raise UsageError(
                f"{target} swaps files, which a Containerfile does not",
                hint="leave --engine out",
            )
        definition = amended(plain, amendment, context.workspace)
        if amendment.requests != official.amendment.requests:
            lock = amended_lock(context, target, definition, lock, root, reporter)
    check_release(
        [one.nevra for one in lock.packages],
        str(plain.treefile.metadata.get("ocp_version", "")),
        node.other_releases,
    )
    inputs = [
        Input("definition", str(target), context.project.definition_digest(target)),
        *definition.inputs(),
        *amendment.inputs(),
        *recipe_inputs,
        Input("lock", str(target), lock.identity()),
        Input("base", "image", str(found.manifest)),
        *tool_inputs(),
    ]
    top = context.project.path
    recipe = [top / item.name for item in recipe_inputs if item.kind == "treefile"]
    folder = (top / node.treefile).parent
    revision = revision_labels(context.project, folder, (*plain.paths(), *recipe))
    inputs += revision_inputs(revision)
    epoch, clock = content_time(context.workspace.repo().commit(found.commit).timestamp, lock)
    return NodeJob(
        target,
        node,
        definition,
        lock,
        found,
        tuple(sorted([*inputs, *clock])),
        epoch,
        arguments,
        product_labels(arguments, str(variables["id"]), architecture, epoch),
        revision,
        below,
        stream_class(variables),
        hotfix,
        tuple(debts),
        tuple(hotfix_debts),
        context.engine,
    )


def _recipe_inputs(
    context: BuildContext, node: NodeStream
) -> tuple[list[Input], Mapping[str, str]]:
    """What is read beside the definition: the build arguments, and by the engine that runs it, the
    Containerfile; and the arguments. Raises DefinitionError when there is no Containerfile.
    """
    folder = context.project.path
    arguments: Mapping[str, str] = {}
    files = []
    if node.build_args:
        arguments = read_arguments(folder / node.build_args, node.build_args)
        files.append(node.build_args)
    if context.engine != BUILDAH:
        return _digested(folder, files), arguments
    if not node.containerfile:
        raise DefinitionError(
            f"node/{node.release}@{node.stream} has no Containerfile for --engine {BUILDAH}",
            hint='add containerfile = { file = "node/Containerfile" } to its table in strata.toml',
        )
    inputs = _digested(folder, [*files, node.containerfile])
    # A step may read, and COPY, whatever is in its context.
    store = context.workspace.store
    inputs.append(Input("overlay", "context of the Containerfile", context_digest(folder, store)))
    return [*inputs, Input("tool", "buildah", tool_version("buildah"))], arguments


def _digested(folder: Path, names: Sequence[str]) -> list[Input]:
    return [Input("treefile", name, f"sha256:{sha256_file(folder / name)}") for name in names]


def build_node(context: BuildContext, job: NodeJob, reporter: Reporter) -> Mapping[str, object]:
    """Build a prepared node layer into the store; returns the record's outputs."""
    layout = context.workspace.layout
    manifest = Manifest.parse(layout.read(layout.resolve(digest=job.base.manifest)))
    config = ImageConfig.parse(layout.read(manifest.config))
    prior = stored_manifest(layout, str(job.target), context.arch)
    amendment = job.definition.amendment
    if context.engine == BUILDAH:
        made = _build_by_buildah(context, job, reporter)
    else:
        made = build_native(
            context,
            job.target,
            job.definition,
            job.transaction,
            labels=job.labels,
            own=written_layers(layout, Manifest.parse(layout.read(prior))) if prior else {},
            reporter=reporter,
        )
    check_locked(made.packages, job.lock, job.below, job.target)
    config = replace(config, config={**config.config, **made.config})
    # The base's revision is of other definitions.
    labels = without_revision(config.labels)
    derived = derive.append_layers(
        layout,
        replace(manifest, annotations=without_revision(manifest.annotations)),
        replace(config, config={**config.config, "Labels": labels}),
        made.layers,
        labels={
            METALAYER: "true",
            TARGET: str(job.target),
            STREAM_CLASS_LABEL: job.stream_class,
            **job.labels,
            **job.revision,
            **made.labels,
            **amendment.labels(config.labels),
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
        "packages": len(made.packages),
        "prior": prior_of(context.record(job.target), prior, derived),
        **_provenance(context, job, made.replaced, reporter),
        "node_layers": [
            {
                "title": of.title,
                "digest": str(of.descriptor.digest),
                "size": of.descriptor.size_bytes,
            }
            for of in made.layers
        ],
    }


def _build_by_buildah(context: BuildContext, job: NodeJob, reporter: Reporter) -> NodeLayers:
    node, workspace = job.node, context.workspace
    recipe = Recipe(context.project.path, node.containerfile, job.build_arguments, context.secrets)
    base = ImageReference("oci", str(workspace.store), "", job.base.manifest)
    with workspace.scratch("context") as scratch:
        with reporter.step("fetch packages") as step:
            write_context(scratch, job.lock, job.definition.repos, workspace)
            step.detail(f"{len(job.lock.packages)} packages")
        return build_containerfile(
            workspace,
            base,
            recipe,
            scratch,
            derive.container_view(Tree.load(workspace.repo(), job.base.commit)),
            source_date_epoch=job.epoch,
            reporter=reporter,
        )


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
        # What is in conflict stays so until somebody looks: the earlier file is what counts.
        kept = {state.subject for state in states if state.state == CONFLICTING}
        if isinstance(known, dict):
            found["replaced"] = {**replaced, **{path: known[path] for path in kept}}
        found["hotfix"] = {
            "reason": job.hotfix.reason,
            "expires": str(job.hotfix.expires),
            "changes": [state.to_json() for state in states],
        }
    return found
