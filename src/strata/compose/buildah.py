"""The engine that any CI has: buildah runs the node layer's Containerfile on the base image.

The step in the Containerfile applies the same treefile by the same code (compose/apply.py), with
the packages that were locked here, without a network. What buildah made becomes an image of the
store: the base's layers as they are, its own written anew by our compressor, so that the bytes do
not depend on its version.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from strata.compose.applyerror import read_error
from strata.compose.applypack import build_apply
from strata.compose.nodenative import NodeLayers
from strata.compose.workspace import Workspace
from strata.container.layers import write_layer
from strata.core.errors import DefinitionError, ImageError
from strata.core.events import Reporter
from strata.core.files import mounts_under, remove_tree, sha256_file
from strata.core.process import run
from strata.core.streams import Readable
from strata.inspect.packages import MAX_PKGLIST_BYTES, parse_pkglist
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.tar import FILE, TarReader, TarWriter
from strata.ostree.tree import Tree
from strata.rpm.cache import PackageCache
from strata.rpm.evict import in_use
from strata.rpm.inventory import PKGLIST_PATH
from strata.rpm.lock import Lock
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig

# What buildah mounts files of its own over; where the base has none, it leaves an empty one.
_MOUNT_POINTS = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
_PREFIX = "localhost/strata"
_CHUNK = 1 << 20
_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP (\d+/\d+): (.*)")
_OWN_LINE = re.compile(
    rf"{_STEP.pattern}|--> |COMMIT |subprocess exited with|Error: building at STEP |exit status "
)
_STEP_SHOWN = 60
_BUILDAH_LABEL = "io.buildah.version"


@dataclass(frozen=True)
class Recipe:
    """What buildah is told. folder: the definitions, its context; arguments: of the Containerfile;
    secrets: `id=…,src=…`, given through."""

    folder: Path
    containerfile: str
    arguments: Mapping[str, str]
    secrets: tuple[str, ...] = ()


def write_context(
    context: Path, lock: Lock, repos: tuple[RepoConfig, ...], workspace: Workspace
) -> None:
    """What the Containerfile's step needs beside the definitions: the packages and the tool.

    Raises RepositoryError, DigestError, NoSpaceError.
    """
    packages = context / "packages"
    packages.mkdir(parents=True)
    with in_use(workspace.packages):
        for path in PackageCache(workspace.packages).fetch(lock, repos).values():
            shutil.copyfile(path, packages / path.name)
    build_apply(context / "strata-apply.pyz")


def context_digest(folder: Path, store: Path) -> str:
    """`sha256:…` of all that a Containerfile's steps can read of the definitions: names, modes,
    targets of links, bytes. Not of .git, nor of a store that is inside."""
    total = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name != ".git" and Path(parent, name).resolve() != store.resolve()
        )
        for name in sorted(names):
            path = Path(parent, name)
            mode = stat.S_IMODE(path.lstat().st_mode)
            what = f"-> {os.readlink(path)}" if path.is_symlink() else sha256_file(path)
            total.update(f"{path.relative_to(folder)}\0{mode:o}\0{what}\n".encode())
    return f"sha256:{total.hexdigest()}"


def build_containerfile(
    workspace: Workspace,
    base: ImageReference,
    recipe: Recipe,
    context: Path,
    tree: Tree,
    *,
    source_date_epoch: int,
    reporter: Reporter,
) -> NodeLayers:
    """Run a Containerfile on a base image of the store; the layers it adds are written into it.

    context: a folder made by `write_context`; tree: the base's, as a container sees it.
    Raises ToolFailedError, ImageError, DefinitionError (a step failed).
    """
    with workspace.scratch("buildah") as scratch, _storage(scratch / "storage") as storage:
        with reporter.step("bring the base to buildah"):
            name = f"{_PREFIX}-base"
            target = f"containers-storage:[overlay@{storage}/graph+{storage}/run]{name}"
            # skopeo takes no layout's image by digest: a layout of one tag, with the store's blobs.
            named = Layout.create(scratch / "base")
            named.tag("base", workspace.layout.resolve(digest=base.digest))
            blobs = f"--src-shared-blob-dir={workspace.store}/blobs"
            run(["skopeo", "copy", "-q", blobs, f"oci:{named.path}:base", target])
        with reporter.step(f"run {recipe.containerfile}"):
            _build(storage, name, recipe, context, source_date_epoch, reporter)
        with reporter.step("write the layers buildah made") as step:
            raw = scratch / "result"
            result = f"containers-storage:[overlay@{storage}/graph+{storage}/run]{_PREFIX}-node"
            accept = ("--dest-oci-accept-uncompressed-layers", "--dest-compress=false")
            run(["skopeo", "copy", "-q", *accept, result, f"oci:{raw}:node"])
            made = _take_over(workspace.layout, Layout.open(raw), base, tree)
            size = sum(layer.descriptor.size_bytes for layer in made.layers)
            step.progress(size, size)
            step.detail(f"{len(made.layers)} layers, {size / 1e6:.1f} MB")
        return made


def _build(
    storage: Path,
    base: str,
    recipe: Recipe,
    context: Path,
    source_date_epoch: int,
    reporter: Reporter,
) -> None:
    arguments = {
        **recipe.arguments,
        "IMAGE_FROM": base,
        "SOURCE_DATE_EPOCH": str(source_date_epoch),
    }
    # Isolated by chroot, as it runs inside of containers too; so all of it is without a network,
    # and sees no process but its own.
    alone = ("--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    argv = ["unshare", *alone, "buildah", "--storage-driver=overlay", f"--root={storage}/graph"]
    argv += [f"--runroot={storage}/run", "build", "--isolation=chroot"]
    argv += ["--layers", "--pull-never", f"--timestamp={source_date_epoch}"]
    argv += ["--no-hosts", "--dns=none", f"--build-context=strata={context}"]
    argv += ["-t", f"{_PREFIX}-node"]
    argv += ["-f", str(recipe.folder / recipe.containerfile)]
    for key, value in sorted(arguments.items()):
        argv += ["--build-arg", f"{key}={value}"]
    for secret in recipe.secrets:
        argv += ["--secret", secret]

    argv.append(str(recipe.folder))
    run(argv, error=lambda output: read_error(output) or step_error(recipe.containerfile, output))


def step_error(file: str, output: str) -> DefinitionError:
    """The error of a Containerfile's step that failed without saying why in our words.

    output: buildah's. Its own lines are left out of what is shown.
    """
    steps = [match for line in output.splitlines() if (match := _STEP.match(line))]
    said = [line for line in output.splitlines() if not _OWN_LINE.match(line)]
    if steps:
        number, text = steps[-1].groups()
        what = f"step {number} failed: {text[:_STEP_SHOWN]}{'…' if len(text) > _STEP_SHOWN else ''}"
    else:
        what = said[-1].removeprefix("Error: ") if said else "buildah cannot read it"
    return DefinitionError(
        f"{file}: {what}",
        hint="to run it by hand: strata build TARGET --context DIR writes what it needs",
        context={"file": file, "output": "\n".join(said)},
    )


@contextmanager
def _storage(folder: Path) -> Iterator[Path]:
    """A container store of this build's own; its mounts go with it, however the block ends."""
    folder.mkdir()
    try:
        yield folder
    finally:
        for mount in mounts_under(folder):
            run(["umount", mount])
        remove_tree(folder)


def _take_over(layout: Layout, result: Layout, base: ImageReference, tree: Tree) -> NodeLayers:
    """The layers on top of the base (tree: as a container sees it), in our store.

    Raises ImageError when the base is not below, or the last layer is not the package list.
    """
    made = Manifest.parse(result.read(result.resolve("node")))
    config = ImageConfig.parse(result.read(made.config))
    below = Manifest.parse(layout.read(layout.resolve(digest=base.digest)))
    known = ImageConfig.parse(layout.read(below.config)).diff_ids
    if config.diff_ids[: len(known)] != known or len(config.diff_ids) == len(known):
        raise ImageError(
            "the Containerfile's last stage does not stand on the base image, or adds nothing",
            hint="start it FROM ${IMAGE_FROM}, and do not squash",
        )
    layers = []
    for number, layer in enumerate(made.layers[len(known) :], 1):
        title = f"containerfile {number}"
        with result.open_blob(layer.digest) as stream:
            fill = partial(_copy_entries, TarReader(stream), tree)
            layers.append(write_layer(layout, title, fill))
    with result.open_blob(made.layers[-1].digest) as stream:
        packages = _package_list(stream)
    labels = {key: value for key, value in config.labels.items() if key != _BUILDAH_LABEL}
    return NodeLayers(layers, packages, config={**config.config, "Labels": labels})


def _copy_entries(source: TarReader, base: Tree, tar: TarWriter) -> None:
    """A layer's entries but the empty files that buildah made to mount its own over."""
    for entry in source:
        path = entry.path.decode("utf-8", "replace").rstrip("/")
        made = path in _MOUNT_POINTS and entry.type == FILE and not entry.size_bytes
        if made and base.lookup(path) is None:
            continue
        tar.entry(entry)
        while data := source.read(_CHUNK):
            tar.body(data)
        tar.pad(entry.size_bytes)


def _package_list(stream: Readable) -> tuple[NEVRA, ...]:
    tar = TarReader(stream)
    for entry in tar:
        if entry.path.decode("utf-8", "replace").rstrip("/") == PKGLIST_PATH:
            return parse_pkglist(tar.read_all(MAX_PKGLIST_BYTES))
    raise ImageError(
        f"the Containerfile's last layer does not hold /{PKGLIST_PATH}",
        hint="end it with the step that writes the package list; LABEL and COPY go before it",
    )
