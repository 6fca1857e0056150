"""The process of a second build: build again in a store of its own, compare, answer.

Its store has downloads and what the target stands on from the first one. Of what the first build
derived it has only the plan by which its image is packed, which an image's next build starts from.
"""

from __future__ import annotations

import base64
import os
import pickle
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from strata.compose.again import UMASK, Task, compared
from strata.compose.build import prepare, run_job
from strata.compose.context import BuildContext
from strata.compose.fetch import known_tag
from strata.compose.graph import build_order
from strata.compose.verify import IMAGE, Changed, Finding, likely_cause
from strata.compose.workspace import Workspace
from strata.container.importer import import_image
from strata.core.errors import StrataError
from strata.core.events import Reporter, json_lines
from strata.core.files import canonical_json
from strata.core.process import os_error
from strata.core.record import changed_inputs
from strata.inspect.contents import read_contents
from strata.inspect.diff import FileChange, Opened, diff_files
from strata.inspect.entries import File, LayerEntries
from strata.inspect.files import LayerKey, read_files
from strata.inspect.view import ImageView, view_of
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import Descriptor, Index, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.treefile.target import Target

# Of how many files the text is looked at for a cause, and how large they may be.
_MAX_TEXTS, _MAX_TEXT_BYTES = 500, 64 << 10


def main() -> None:
    """Read the task from standard input, answer on standard output; events go to standard error."""
    signal.signal(signal.SIGTERM, _terminated)
    # Our own value, over a pipe of our own.
    task: Task = pickle.loads(base64.b64decode(sys.stdin.read()))  # noqa: S301
    os.sched_setaffinity(0, task.cpus)
    os.umask(UMASK)
    try:
        answer = _build_and_compare(task, Reporter(json_lines(sys.stderr)))
    except StrataError as error:
        answer = {"error": error.to_json()}
    except OSError as error:
        answer = {"error": os_error(error, "building a second time").to_json()}
    sys.stdout.buffer.write(canonical_json(answer))


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _build_and_compare(task: Task, reporter: Reporter) -> dict[str, object]:
    lender = task.context.workspace
    workspace = Workspace.create(Path(task.second.work), lender.store)
    context = replace(task.context, workspace=workspace, jobs=task.jobs)
    with reporter.step("have what it stands on"):
        base = _borrow(context, task, reporter)
    job = prepare(context, task.target, base, task.given, reporter)
    changes = changed_inputs(task.record.inputs, job.inputs)
    if changes:
        return {"inputs": [str(change) for change in changes]}
    outputs = run_job(job, context, task.record, True, reporter)
    found: Sequence[Finding] = ()
    if compared(outputs) != compared(task.record.outputs):
        with reporter.step("look for what differs") as step:
            files = differing_files(task.record.outputs, outputs)
            found = files or _findings(task, context, str(outputs["manifest"]))
            step.detail(f"{len(found)} things")
    findings = [finding.to_json() for finding in found]
    return {"inputs": [], "outputs": compared(outputs), "findings": findings}


# --- what is taken from the first store ------------------------------------------------------


def _borrow(context: BuildContext, task: Task, reporter: Reporter) -> ImageReference | None:
    """Have what the target stands on, and the packing plan of its own image.

    Returns the image to build on in place of the definitions' own, when the first build was on one.
    """
    first, store = task.context.workspace.layout, context.workspace
    order = build_order(context.project, [task.target], base_given=task.base is not None)
    for target in order:
        record = task.record if target == task.target else task.context.record(target)
        tag = first.tags().get(str(target))
        if record is None or tag is None:
            continue
        record.save(store.record_path(str(target)))
        _link(first, store.layout, tag.digest)
        for item in Index.parse(first.read(tag)).manifests:
            if first.has(item.digest):
                _link_image(first, store.layout, item, layers=target != task.target)
        store.layout.tag(str(target), tag)
    _borrow_foreign(task, first, store.layout)
    if len(order) > 1:
        _import(context, order[-2], reporter)
    base = task.record.outputs.get("base")
    if base is None:
        return None
    digest = Digest.parse(str(base))
    _link_image(first, store.layout, first.resolve(digest=digest), layers=True)
    return ImageReference("oci", str(store.store), "", digest)


def _borrow_foreign(task: Task, first: Layout, dest: Layout) -> None:
    """Have the foreign bootc image that a CoreOS layer stands on: nobody is asked for it again."""
    if task.target.kind != "coreos":
        return
    bootc = task.context.project.stream(task.target.name).bootc
    if bootc is not None and bootc.image:
        tag = known_tag(ImageReference.parse(bootc.image), task.context.arch)
        image = first.tags().get(tag)
        if image is not None:
            _link_image(first, dest, image, layers=True)
            dest.tag(tag, image)


def _import(context: BuildContext, below: Target, reporter: Reporter) -> None:
    """Have the commit of a layer in the repository, from its image."""
    record, workspace = context.record(below), context.workspace
    if record is None or "commit" not in record.outputs:
        return
    digest = Digest.parse(str(record.outputs["manifest"]))
    image = ImageReference("oci", str(workspace.store), "", digest)
    with open_source(image, architecture=context.arch) as source:
        import_image(
            source, workspace.repo(), reference=image, threads=context.jobs, reporter=reporter
        )


def _link_image(source: Layout, dest: Layout, item: Descriptor, *, layers: bool) -> None:
    manifest = Manifest.parse(source.read(item))
    blobs = (manifest.config, *manifest.layers) if layers else (manifest.config,)
    for digest in (item.digest, *(blob.digest for blob in blobs)):
        _link(source, dest, digest)


def _link(source: Layout, dest: Layout, digest: Digest) -> None:
    with suppress(FileExistsError):
        dest.blob_path(digest).symlink_to(source.blob_path(digest))


# --- what differs ----------------------------------------------------------------------------


def _findings(task: Task, context: BuildContext, manifest: str) -> list[Finding]:
    """What differs between the two images, with its likely cause."""
    stores = (task.context.workspace.store, context.workspace.store)
    old, new = (
        ImageReference("oci", str(store), "", Digest.parse(digest))
        for store, digest in zip(stores, (str(task.record.outputs["manifest"]), manifest))
    )
    with (
        open_source(old, architecture=context.arch) as one,
        open_source(new, architecture=context.arch) as other,
    ):
        first, second = (one, view_of(one, "the first")), (other, view_of(other, "the second"))
        known: dict[LayerKey, LayerEntries] = {}
        files = [read_files(*image, known=known).files for image in (first, second)]
        changes = diff_files(files[0], files[1])
        looked = changes[:_MAX_TEXTS]
        bodies = (
            _bodies(first, (change.old for change in looked)),
            _bodies(second, (change.new for change in looked)),
        )
    found = [_changed(change, *bodies) for change in changes]
    if not found:
        found = [Changed(IMAGE, (what,)) for what in _image_differences(first[1], second[1])]
    return [
        Finding(of.path, ", ".join(of.what), likely_cause(of, task.first, task.second))
        for of in found
    ]


def differing_files(old: Mapping[str, object], new: Mapping[str, object]) -> list[Finding]:
    """Of targets that are files and no images, those that differ: outputs have them by name."""
    rows = (old.get("artefacts"), new.get("artefacts"))
    if not isinstance(rows[0], list) or not isinstance(rows[1], list):
        return []
    sums = {row["file"]: row["uncompressed-sha256"] for row in rows[0]}
    return [
        Finding(row["file"], "another content", "a tool that does not write it the same again")
        for row in rows[1]
        if sums.get(row["file"]) != row["uncompressed-sha256"]
    ]


def _changed(change: FileChange, old: dict[str, bytes], new: dict[str, bytes]) -> Changed:
    return Changed(
        change.path,
        change.what or (change.kind,),
        old.get(change.old.digest, b"") if change.old else b"",
        new.get(change.new.digest, b"") if change.new else b"",
    )


def _bodies(image: Opened, files: Iterable[File | None]) -> dict[str, bytes]:
    small = [
        file
        for file in files
        if file and file.kind == "file" and file.size_bytes <= _MAX_TEXT_BYTES
    ]
    return read_contents(*image, small)


def _image_differences(old: ImageView, new: ImageView) -> list[str]:
    """What differs between two images that have the same files."""
    found = []
    labels = (old.config.labels, new.config.labels)
    for key in sorted(labels[0].keys() | labels[1].keys()):
        if labels[0].get(key) != labels[1].get(key):
            found.append(f"label {key} {labels[0].get(key)} → {labels[1].get(key)}")
    if len(old.layers) != len(new.layers):
        found.append(f"{len(old.layers)} layers → {len(new.layers)}")
    for one, other in zip(old.layers, new.layers):
        if one.diff_id != other.diff_id:
            found.append(f"{one} holds the same files otherwise")
        elif one.digest != other.digest:
            found.append(f"{one} is compressed otherwise")
    return found or ["its configuration"]
