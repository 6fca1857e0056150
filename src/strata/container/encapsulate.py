"""Encapsulate: an OSTree commit as a container image of chunks (tar layout v1).

Every object of the tree belongs to a *component* (a package, the initramfs, the package database);
a *packing* says which components share a chunk. The first layer is the commit layer, each further
one a chunk. Layers are written and compressed in threads, streaming, the largest first; the same
commit and packing give the same bytes. Source: ostree-ext's container/encapsulate.rs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from strata.container.export import write_chunk_layer, write_commit_layer
from strata.container.labels import COMMAND, COMPONENTS, CONTENT, image_labels
from strata.container.layers import Layer, write_image, write_layer
from strata.container.packing import Bin, Component, chunk_name
from strata.container.packing_stable import chunk_content, pack_stable
from strata.core.clock import rfc3339
from strata.core.errors import ImageError
from strata.core.events import Step
from strata.oci.layout import Layout
from strata.oci.model import Descriptor, History, ImageConfig, goarch
from strata.oci.tar import TarWriter
from strata.ostree.objects import Checksum, Commit
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

Packing = Callable[[Sequence[Component]], Sequence[Bin]]


@dataclass(frozen=True)
class ComponentMap:
    """Which component each file belongs to.

    components: by identifier, without sizes (they are counted from the tree). owner: from a path in
    the tree (`/usr/bin/x`) and its object to a component's identifier.
    """

    components: Mapping[str, Component]
    owner: Callable[[str, Checksum], str]


@dataclass(frozen=True)
class Options:
    """How an image is written.

    architecture: as rpm names it. labels: added to those that follow from the commit. command:
    empty for the commit's own. copy, copy_if_there: keys of the commit's metadata that become
    labels too. compression: one of `compress.COMPRESSIONS`. threads: at once. stop_signal: what
    asks its first process to end, empty for the runtime's.
    """

    architecture: str
    labels: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    copy: Sequence[str] = ()
    copy_if_there: Sequence[str] = ()
    compression: str = "gzip"
    threads: int = 2
    stop_signal: str = ""


def encapsulate(
    repo: Repo,
    commit: str,
    layout: Layout,
    components: ComponentMap,
    options: Options,
    *,
    packing: Packing = pack_stable,
    step: Step,
) -> Descriptor:
    """Write a commit's image into a layout; returns its manifest's descriptor (not tagged).

    Raises ObjectError, ImageError, NoSpaceError, UsageError.
    """
    found = repo.commit(commit)
    tree = Tree.load(repo, commit)
    _check_sysroot(tree)
    content = assign(repo, tree, components)
    bins = tuple(packing(content.components))
    chunks = [content.chunk(packed) for packed in bins]
    title = found.subject or f"ostree export of commit {commit}"
    jobs = [_Job(title, 0, _commit(repo, commit, tree))]
    for packed, objects in zip(bins, chunks):
        size = sum(item.size_bytes for item in packed)
        jobs.append(_Job(chunk_name(packed), size, _chunk(repo, objects)))
    layers = _write(layout, jobs, options, step)
    descriptors = [layers[0].descriptor]
    for layer, packed in zip(layers[1:], bins):
        names = ",".join(sorted(item.name for item in packed))
        of = layer.descriptor
        notes = {COMPONENTS: names}
        if packed:
            notes[CONTENT] = chunk_content(packed)
        descriptors.append(Descriptor(of.media_type, of.digest, of.size_bytes, notes))
    return _image(layout, commit, found, layers, descriptors, options)


def _check_sysroot(tree: Tree) -> None:
    """In an image the repository is in /sysroot: a commit's own content there would be lost."""
    sysroot = tree.dirs.get("sysroot")
    inside = [*sysroot.files, *sysroot.dirs] if sysroot else []
    if inside:
        raise ImageError(
            f"the commit has /sysroot/{sorted(inside)[0]}, which no image of it could carry",
            hint="/sysroot of a commit has to be empty",
        )


def _image(
    layout: Layout,
    commit: str,
    found: Commit,
    layers: Sequence[Layer],
    descriptors: Sequence[Descriptor],
    options: Options,
) -> Descriptor:
    labels = image_labels(
        commit,
        found,
        str(layers[-1].diff_id),
        options.labels,
        copy=options.copy,
        copy_if_there=options.copy_if_there,
    )
    created = rfc3339(found.timestamp)
    inner: dict[str, object] = {"Labels": labels}
    command = options.command
    if not command and COMMAND in found.metadata:
        command = found.metadata[COMMAND].as_texts()
    if command:
        inner["Cmd"] = list(command)
    if options.stop_signal:
        inner["StopSignal"] = options.stop_signal
    config = ImageConfig(
        goarch(options.architecture),
        "linux",
        created,
        inner,
        tuple(layer.diff_id for layer in layers),
        tuple(History(created, layer.title) for layer in layers),
    )
    return write_image(layout, config, descriptors, labels)


# --- writing layers at once ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    title: str
    size_bytes: int
    fill: Callable[[TarWriter], None]


def _commit(repo: Repo, commit: str, tree: Tree) -> Callable[[TarWriter], None]:
    return lambda tar: write_commit_layer(tar, repo, commit, tree)


def _chunk(repo: Repo, objects: Mapping[Checksum, Sequence[str]]) -> Callable[[TarWriter], None]:
    return lambda tar: write_chunk_layer(tar, repo, objects)


def _write(layout: Layout, jobs: Sequence[_Job], options: Options, step: Step) -> list[Layer]:
    """Write the layers, returned in the order of the jobs. The commit layer and then the largest
    come first, so that no large one is left for one thread at the end."""
    written: dict[int, Layer] = {}
    order = [0, *sorted(range(1, len(jobs)), key=lambda index: -jobs[index].size_bytes)]

    def write(index: int) -> None:
        job = jobs[index]
        written[index] = write_layer(layout, job.title, job.fill, options.compression)
        step.progress(len(written), len(jobs), "layers")

    with ThreadPoolExecutor(options.threads) as pool:
        for done in [pool.submit(write, index) for index in order]:
            done.result()
    return [written[index] for index in range(len(jobs))]


# --- which object goes where ---------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """A tree's objects by component. components: with sizes and content, sorted by identifier.

    objects: by component, checksums ascending; paths: of an object, in tree order.
    """

    components: tuple[Component, ...]
    objects: Mapping[str, Sequence[Checksum]]
    paths: Mapping[Checksum, Sequence[str]]

    def chunk(self, packed: Bin) -> dict[Checksum, Sequence[str]]:
        """The objects of a bin with their paths, checksums ascending."""
        mine = sorted(c for item in packed for c in self.objects[item.identifier])
        return {checksum: self.paths[checksum] for checksum in mine}


def assign(repo: Repo, tree: Tree, components: ComponentMap) -> Content:
    """Objects to components. An object of several owners goes to the first in order of identifier.

    Raises ImageError when an owner is not among the components.
    """
    paths: dict[Checksum, list[str]] = {}
    owners: dict[Checksum, str] = {}
    for path, checksum in tree.walk_files():
        paths.setdefault(checksum, []).append(path)
        owner = components.owner(path, checksum)
        owners[checksum] = min(owner, owners.get(checksum, owner))
    objects: dict[str, list[Checksum]] = {}
    for checksum, owner in owners.items():
        objects.setdefault(owner, []).append(checksum)
    sized = []
    for identifier in sorted(objects):
        if identifier not in components.components:
            raise ImageError(f"component {identifier} owns files and is not described")
        of = components.components[identifier]
        size = sum(repo.size(checksum) for checksum in objects[identifier])
        content = _content_digest(objects[identifier], paths)
        sized.append(replace(of, size_bytes=size, content=content))
    ordered = {identifier: sorted(mine) for identifier, mine in objects.items()}
    return Content(tuple(sized), ordered, paths)


def _content_digest(objects: Sequence[Checksum], paths: Mapping[Checksum, Sequence[str]]) -> str:
    """Of all that a component puts into its layer: its objects, and where they are visible."""
    total = hashlib.sha256()
    for checksum in sorted(objects):
        for path in paths[checksum]:
            total.update(f"{checksum} {path}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
