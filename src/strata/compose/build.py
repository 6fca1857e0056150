"""Building targets in order: nothing is done when nothing differs, and what differs is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strata.compose.base import prepare_base
from strata.compose.context import BuildContext
from strata.compose.extensions import prepare_extensions
from strata.compose.graph import build_order
from strata.compose.job import Job
from strata.compose.node import prepare_node
from strata.container.stored import find_stored
from strata.core.clock import rfc3339
from strata.core.errors import DigestError, UsageError
from strata.core.events import Reporter
from strata.core.files import atomic_write
from strata.core.process import require_root
from strata.core.record import BuildRecord, Input, InputChange, StepRecord, changed_inputs
from strata.oci.digest import Digest
from strata.oci.model import Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.treefile.target import Target

BUILDABLE = ("bootc", "coreos", "node", "extensions")
BUILT, UP_TO_DATE, WOULD_BUILD = "built", "up to date", "would build"


@dataclass(frozen=True)
class BuildResult:
    """What became of one target. changes: why it was built; empty when it was built first."""

    target: Target
    status: str
    record: BuildRecord | None
    compared: tuple[Input, ...]
    changes: tuple[InputChange, ...]
    seconds: float = 0.0


def build_targets(
    context: BuildContext,
    targets: Sequence[Target],
    *,
    base: ImageReference | None,
    verify: bool,
    dry_run: bool,
    reporter: Reporter,
) -> list[BuildResult]:
    """Build targets and what they stand on.

    base: builds node targets on this image. verify: build again what is up to date and compare.
    dry_run: images, commits, records and locks stay as they are; repositories' metadata is read.
    Raises any StrataError; what was built before stays, the failed target's parts do not.
    """
    require_root("building trees")
    for target in targets:
        if target.kind not in BUILDABLE:
            known = ", ".join(f"{kind}/" for kind in BUILDABLE)
            raise UsageError(f"{target} cannot be built yet", hint=f"what can: {known}")
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
            results.append(_build(context, target, below, verify, dry_run, reporter))
    return results


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
    if target.kind not in ("node", "extensions"):
        return "", base
    node, store = context.project.node(target), context.workspace.store
    if target.kind == "extensions":
        base = ImageReference("oci", str(store), f"node/{target.name}@{target.stream}")
    elif base is None and node.base == "stream":
        base = ImageReference("oci", str(store), f"coreos/{node.stream}")
    elif base is None:
        base = ImageReference.parse(node.base)
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
    verify: bool,
    dry_run: bool,
    reporter: Reporter,
) -> BuildResult:
    with reporter.step(f"build {target}") as step:
        first_timing = len(reporter.timings)
        job = _prepare(context, target, base, reporter)
        earlier = context.record(target)
        changes = changed_inputs(earlier.inputs, job.inputs) if earlier else ()
        current = earlier is not None and not changes and _is_stored(context, earlier)
        if earlier and current and not verify:
            step.detail(f"up to date; {summary(job.inputs)} are the same")
            return BuildResult(target, UP_TO_DATE, earlier, job.inputs, ())
        for change in changes:
            reporter.note(f"{target}: {change}")
        if dry_run:
            return BuildResult(target, WOULD_BUILD, earlier, job.inputs, changes)
        outputs = job.build(context, earlier, current, reporter)
        steps = tuple(
            StepRecord(item.title, item.seconds, item.size_bytes)
            for item in reporter.timings[first_timing:]
        )
        record = BuildRecord(
            str(target), context.arch, job.inputs, outputs, steps, rfc3339(job.epoch)
        )
        if earlier and current and verify:
            _verify(earlier, record)
        atomic_write(context.workspace.lock_path(str(target)), job.lock.to_bytes())
        record.save(context.workspace.record_path(str(target)))
        step.detail(f"{outputs['manifest']}")
    seconds = reporter.timings[-1].seconds
    return BuildResult(target, BUILT, record, job.inputs, changes, seconds)


def _prepare(
    context: BuildContext, target: Target, base: ImageReference | None, reporter: Reporter
) -> Job:
    if target.kind == "node":
        return prepare_node(context, target, base, reporter)
    if target.kind == "extensions":
        return prepare_extensions(context, target, reporter)
    return prepare_base(context, target, reporter)


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


def _verify(earlier: BuildRecord, again: BuildRecord) -> None:
    for key in ("commit", "manifest"):
        before, now = earlier.outputs.get(key), again.outputs.get(key)
        if before != now:
            raise DigestError(
                f"{earlier.target} was built again from the same inputs and its {key} differs",
                hint="something in the build reads what is not an input",
                context={"expected": before, "actual": now},
            )
