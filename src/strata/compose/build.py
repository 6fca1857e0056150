"""Building targets in order: nothing is done when nothing differs, and what differs is named."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.again import verify_again
from strata.compose.amend import Amendment
from strata.compose.base import prepare_base
from strata.compose.baseimage import base_reference
from strata.compose.buildah import write_context
from strata.compose.context import BUILDAH, BuildContext
from strata.compose.extensions import prepare_extensions
from strata.compose.fetch import at_hand
from strata.compose.graph import build_order
from strata.compose.job import Job
from strata.compose.node import prepare_node
from strata.compose.steps import Fate, fates, steps_json
from strata.compose.verify import Verification
from strata.container.stored import find_stored
from strata.core.clock import rfc3339
from strata.core.errors import UsageError
from strata.core.events import Reporter
from strata.core.files import usual_umask
from strata.core.process import require_root
from strata.core.record import BuildRecord, Input, InputChange, StepRecord, changed_inputs
from strata.oci.digest import Digest
from strata.oci.indexes import choose_manifest
from strata.oci.model import Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.treefile.target import Target

BUILDABLE = ("bootc", "coreos", "node", "extensions", "hotfix")
ON_A_BASE = ("node", "hotfix")
BUILT, UP_TO_DATE, WOULD_BUILD = "built", "up to date", "would build"


@dataclass(frozen=True)
class BuildResult:
    """What became of one target. changes: why it was built; empty when it was built first.

    steps: what became of each step; empty when none is made. verified: the comparison with a second
    build, when there was one.
    """

    target: Target
    status: str
    record: BuildRecord | None
    compared: tuple[Input, ...]
    changes: tuple[InputChange, ...]
    steps: tuple[Fate, ...] = ()
    seconds: float = 0.0
    verified: Verification | None = None


def build_targets(
    context: BuildContext,
    targets: Sequence[Target],
    *,
    base: ImageReference | None,
    given: Amendment,
    verify: bool,
    dry_run: bool,
    reporter: Reporter,
) -> list[BuildResult]:
    """Build targets and what they stand on.

    base: builds node targets on this image. given: components swapped by hand in the targets named,
    which are node layers or hotfixes. verify: build the targets named a second time,
    under other conditions, and compare.
    dry_run: images, commits, records and locks stay as they are; repositories' metadata is read.
    Raises any StrataError; what was built before stays, the failed target's parts do not.
    """
    require_root("building trees")
    for target in targets:
        buildable = (*BUILDABLE, *context.makers)
        if target.kind not in buildable:
            known = ", ".join(f"{kind}/" for kind in buildable)
            raise UsageError(f"{target} cannot be built yet", hint=f"what can: {known}")
    wanted = [context.project.canonical(target) for target in targets]
    if given != Amendment() and not all(target.kind in ON_A_BASE for target in wanted):
        raise UsageError("--with swaps components of node layers", hint="name node/ targets only")
    order = build_order(context.project, targets, base_given=base is not None)
    results: list[BuildResult] = []
    with context.workspace.locked():
        context.workspace.clear_scratch()
        for target in order:
            below = base
            if dry_run:
                missing, below = _look_below(context, target, base, results, reporter)
                if missing:
                    # Without what it stands on, its own inputs cannot be known.
                    reporter.note(f"{target}: {missing}, and then it would be built")
                    results.append(BuildResult(target, WOULD_BUILD, None, (), ()))
                    continue
            swapped = given if target in wanted else Amendment()
            results.append(_build(context, target, below, swapped, dry_run, reporter))
        for number, result in enumerate(results):
            if verify and not dry_run and result.target in wanted:
                found = verify_again(context, result.target, base, given, reporter)
                results[number] = replace(result, verified=found)
        if not dry_run:
            context.workspace.limit_cache(reporter)
    return results


def prepare_context(
    context: BuildContext,
    target: Target,
    base: ImageReference | None,
    given: Amendment,
    folder: Path,
    reporter: Reporter,
) -> Mapping[str, str]:
    """Write what a node layer's Containerfile needs to a new folder; returns its build arguments.

    What the node stands on is built. Raises any StrataError.
    """
    if target.kind not in ON_A_BASE:
        raise UsageError(f"{target} has no Containerfile", hint="node/ targets have")
    if folder.exists():
        raise UsageError(f"{folder} is there already", hint="name a new folder")
    target = context.project.canonical(target)
    below = build_order(context.project, [target], base_given=base is not None)[:-1]
    if below:
        build_targets(
            context,
            below,
            base=None,
            given=Amendment(),
            verify=False,
            dry_run=False,
            reporter=reporter,
        )
    with context.workspace.locked(), context.workspace.scratch("context") as scratch:
        # What a Containerfile cannot do is told here too.
        job = prepare_node(replace(context, engine=BUILDAH), target, base, given, reporter)
        fresh = scratch / "context"
        write_context(fresh, job.lock, job.definition.repos, context.workspace)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, folder)
    named = base_reference(context, job.node, base)
    return {
        "IMAGE_FROM": _named_for_buildah(context, named, job.base.manifest),
        "SOURCE_DATE_EPOCH": str(job.epoch),
        **job.build_arguments,
    }


def _named_for_buildah(context: BuildContext, reference: ImageReference, manifest: Digest) -> str:
    """A base image as FROM takes it: by digest in a registry, and by a tag in the store, as
    buildah knows no digests of layouts."""
    if reference.transport == "docker":
        return str(reference.at(manifest)).removeprefix("docker://")
    layout = context.workspace.layout
    for tag, item in sorted(layout.tags().items()):
        if choose_manifest(layout, item, context.arch).digest == manifest:
            return f"oci:{layout.path.resolve()}:{tag}"
    return str(reference)


def _look_below(
    context: BuildContext,
    target: Target,
    base: ImageReference | None,
    earlier: Sequence[BuildResult],
    reporter: Reporter,
) -> tuple[str, ImageReference | None]:
    """What would have to be made or fetched before a target's inputs could be compared, in words.

    Empty when all is there; then also the base image by its digest in the store. Only reads: an
    image in a registry is looked up, not fetched.
    """
    order = build_order(context.project, [target], base_given=base is not None)
    for result in earlier:
        if result.status == WOULD_BUILD and result.target in order:
            return f"{result.target} would be built", base
    if target.kind not in (*ON_A_BASE, "extensions"):
        return "", base
    store = context.workspace.store
    node = context.project.node(context.project.node_of(target))
    if target.kind == "extensions":
        base = ImageReference("oci", str(store), f"node/{target.name}@{target.stream}")
    else:
        base = base_reference(context, node, base)
    base = at_hand(context.workspace, base, arch=context.arch)
    with (
        reporter.step(f"look up the base {base}"),
        open_source(base, architecture=context.arch) as source,
    ):
        pinned = ImageReference("oci", str(store), "", source.manifest_digest)
    if not context.workspace.layout.has(source.manifest_digest):
        return f"its base {base} would be fetched", base
    if not (store / "repo").exists() or find_stored(context.workspace.repo(), pinned) is None:
        return f"its base {base} would be imported", base
    return "", pinned


def _build(
    context: BuildContext,
    target: Target,
    base: ImageReference | None,
    given: Amendment,
    dry_run: bool,
    reporter: Reporter,
) -> BuildResult:
    with reporter.step(f"build {target}") as step:
        first_timing = len(reporter.timings)
        job = prepare(context, target, base, given, reporter)
        earlier = context.record(target)
        changes = changed_inputs(earlier.inputs, job.inputs) if earlier else ()
        current = earlier is not None and not changes and _is_stored(context, earlier)
        if earlier and current:
            step.detail(f"up to date; {summary(job.inputs)} are the same")
            return BuildResult(target, UP_TO_DATE, earlier, job.inputs, ())
        for change in changes:
            reporter.note(f"{target}: {change}")
        found = fates(job.steps, earlier.outputs.get("steps") if earlier else None)
        if dry_run:
            return BuildResult(target, WOULD_BUILD, earlier, job.inputs, changes, found)
        made = run_job(job, context, earlier, current, reporter)
        outputs = {**made, "steps": steps_json(job.steps)}
        steps = tuple(
            StepRecord(item.title, item.seconds, item.size_bytes)
            for item in reporter.timings[first_timing:]
        )
        record = BuildRecord(
            str(target), context.arch, job.inputs, outputs, steps, rfc3339(job.epoch)
        )
        if job.lock is not None:
            context.workspace.keep_lock(str(target), job.lock)
        record.save(context.workspace.record_path(str(target)))
        step.detail(f"{outputs['manifest']}")
    seconds = reporter.timings[-1].seconds
    return BuildResult(target, BUILT, record, job.inputs, changes, found, seconds)


def prepare(
    context: BuildContext,
    target: Target,
    base: ImageReference | None,
    given: Amendment,
    reporter: Reporter,
) -> Job:
    """Find out all that goes into a target. Raises any StrataError."""
    if target.kind in context.makers:
        return context.makers[target.kind](context, target, reporter)
    if target.kind in ON_A_BASE:
        return prepare_node(context, target, base, given, reporter)
    if target.kind == "extensions":
        return prepare_extensions(context, target, reporter)
    return prepare_base(context, target, reporter)


def run_job(
    job: Job,
    context: BuildContext,
    earlier: BuildRecord | None,
    current: bool,
    reporter: Reporter,
) -> Mapping[str, object]:
    """Build a prepared target; returns the record's outputs. Raises any StrataError."""
    with usual_umask():
        return job.build(context, earlier, current, reporter)


def summary(inputs: Sequence[Input]) -> str:
    """What was compared, in words: `2 treefiles, 1 lock`."""
    counts: dict[str, int] = {}
    for item in inputs:
        counts[item.kind] = counts.get(item.kind, 0) + 1
    return ", ".join(
        f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items())
    )


def _is_stored(context: BuildContext, record: BuildRecord) -> bool:
    """Whether the record's image is whole in the store, under its tag, and its commit too."""
    layout = context.workspace.layout
    tag = layout.tags().get(record.target)
    if tag is None or str(tag.digest) != record.outputs["index"] or not layout.has(tag.digest):
        return False
    digest = Digest.parse(str(record.outputs["manifest"]))
    if not layout.has(digest):
        return False
    manifest = Manifest.parse(layout.read(layout.resolve(digest=digest)))
    if not all(layout.has(item.digest) for item in (manifest.config, *manifest.layers)):
        return False
    commit = record.outputs.get("commit")
    return commit is None or context.workspace.repo().is_complete(str(commit))
