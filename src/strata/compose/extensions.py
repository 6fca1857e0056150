"""Extensions: an image with a repository of packages that go on top of one node image.

Each extension is solved by itself with the node image's packages installed, which stay as they are,
and is tested by itself on the node's tree: a machine installs one without the others. What they
bring together is one repository and one image (requirements R4.1 to R4.7). The image has nothing
below the repository: it is not run, its files are copied out or served.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.baseimage import Base, image_variables, import_base
from strata.compose.context import BuildContext
from strata.compose.definitions import content_time, load_definition, tool_inputs
from strata.compose.extensionsolve import Solved, Solver, together
from strata.compose.nodenative import base_root
from strata.compose.overlaymount import overlay_mount
from strata.compose.steps import IMAGE, Step
from strata.compose.store import publish
from strata.container import derive
from strata.container.labels import LAYER_TITLE, VERSION
from strata.container.layers import Layer, write_image
from strata.core.clock import rfc3339
from strata.core.errors import DefinitionError, PackageError
from strata.core.events import Reporter
from strata.core.record import BuildRecord, Input
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import Descriptor, History, ImageConfig, goarch
from strata.oci.reference import ImageReference
from strata.ostree.objects import DirMeta
from strata.ostree.tree import Tree
from strata.rpm.cache import PackageCache
from strata.rpm.createrepo import index_packages
from strata.rpm.evict import in_use
from strata.rpm.extensionlist import write_extension_list
from strata.rpm.install import check_installable
from strata.rpm.lock import Lock
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig
from strata.rpm.repostate import read_states
from strata.treefile.extensions import OS_EXTENSION, Extension, Extensions, load_extensions
from strata.treefile.target import Target

REPOSITORY = "usr/share/rpm-ostree/extensions"
LIST = "usr/share/rpm-ostree/extensions.json"
REPOSITORY_TITLE, LIST_TITLE = "repository", "package list"
EXTENSIONS_LABEL = "io.openshift.os.extensions"
# What may change the image's bytes, beside the definitions and the packages.
TOOLS = ("createrepo_c", "dnf", "rpm")
# Packages are compressed already; and so `strata serve` reads files where they lie.
COMPRESSION = "none"
# There is nothing to run, but container tools make no container of an image that names no command,
# not even to copy files out of it.
ENTRYPOINT = ("/noentry",)
_EMPTY = Tree(DirMeta())


@dataclass(frozen=True)
class ExtensionsJob:
    """The extensions of a node image, ready to be built. lock: of all together."""

    target: Target
    solved: tuple[Solved, ...]
    lock: Lock
    repos: tuple[RepoConfig, ...]
    node: Base
    inputs: tuple[Input, ...]
    epoch: int

    @property
    def steps(self) -> Step:
        """The one step."""
        return Step(IMAGE, self.inputs)

    def build(
        self,
        context: BuildContext,
        earlier: BuildRecord | None,
        current: bool,
        reporter: Reporter,
    ) -> Mapping[str, object]:
        """Build it."""
        return build_extensions(context, self, reporter)


def prepare_extensions(context: BuildContext, target: Target, reporter: Reporter) -> ExtensionsJob:
    """Read, solve and lock the extensions of the node image that was built last.

    Raises DefinitionError, ImageError, RepositoryError, PackageError.
    """
    node_target = Target("node", target.name, target.stream)
    node = context.project.node(node_target)
    file = load_extensions(context.project.path, node.extensions)
    wanted = _of_arch(file, context.arch, reporter)
    found = import_base(context, _node_image(context, node_target), reporter)
    definition = load_definition(
        context.project,
        node.treefile,
        variables=image_variables(context, found.commit, node.stream),
        arch=context.arch,
        store=context.workspace.files,
        reporter=reporter,
        more_repos=file.repos_on(context.arch),
    )
    states = read_states(definition.repos, context.workspace.metadata)
    with reporter.step(f"solve {target}") as step, context.workspace.scratch("solve") as scratch:
        solver = Solver(
            definition.repos, states, context, context.packages_of(found.commit, scratch / "root")
        )
        solved = tuple(Solved(item, solver.solve(item)) for item in wanted)
        lock = together(solved)
        step.detail(f"{len(solved)} extensions, {len(lock.packages)} packages")
    inputs = [
        Input("definition", str(target), context.project.definition_digest(target)),
        Input("treefile", file.file, file.digest),
        Input("lock", str(target), lock.identity()),
        Input("base", str(node_target), str(found.manifest)),
        *tool_inputs(TOOLS),
    ]
    epoch, clock = content_time(context.workspace.repo().commit(found.commit).timestamp, lock)
    return ExtensionsJob(
        target, solved, lock, definition.repos, found, tuple(sorted([*inputs, *clock])), epoch
    )


def _node_image(context: BuildContext, node: Target) -> ImageReference:
    """The node image by digest, as its last build left it in the store (requirement R4.7)."""
    record = context.record(node)
    if record is None:
        raise DefinitionError(f"{node} is not in the store", hint=f"strata build {node}")
    digest = Digest.parse(str(record.outputs["manifest"]))
    return ImageReference("oci", str(context.workspace.store), "", digest)


def _of_arch(file: Extensions, arch: str, reporter: Reporter) -> tuple[Extension, ...]:
    """The extensions of an architecture; what is left out is told."""
    wanted = file.on(arch)
    if not wanted:
        raise DefinitionError(
            f"{file.file} has no extension for {arch}", context={"file": file.file}
        )
    others = [item.name for item in file.extensions if not item.is_for(arch)]
    if others:
        reporter.note(f"not for {arch}: {', '.join(others)}")
    if file.modules:
        reporter.warn(f"{file.modules[0]}: modules has no effect")
    return wanted


def build_extensions(
    context: BuildContext, job: ExtensionsJob, reporter: Reporter
) -> Mapping[str, object]:
    """Build prepared extensions into the store; returns the record's outputs."""
    workspace = context.workspace
    layout = workspace.layout
    with in_use(workspace.packages):
        with reporter.step("fetch packages") as step:
            paths = PackageCache(workspace.packages).fetch(job.lock, job.repos)
            step.detail(f"{len(paths)} packages")
        _check_each(context, job, paths, reporter)
        with (
            workspace.scratch("extensions") as scratch,
            reporter.step("write the repository") as step,
        ):
            _lay_out(scratch / REPOSITORY, paths, job.epoch, context.jobs)
            found = derive.tree_changes(str(scratch), _EMPTY)
            repository = derive.write_changes(
                layout, REPOSITORY_TITLE, found, _EMPTY, str(scratch), compression=COMPRESSION
            )
            size = repository.descriptor.size_bytes
            step.progress(size, size)
            step.detail(f"{len(paths)} packages, {size / 1e6:.1f} MB")
    listed = write_extension_list(package.nevra for package in job.lock.packages)
    last = derive.file_layer(layout, LIST_TITLE, {LIST: listed}, _EMPTY, COMPRESSION)
    manifest = _write(layout, job, [repository, last], context.arch)
    return {
        **publish(layout, str(job.target), manifest, context.arch),
        "base": str(job.node.manifest),
        "version": job.node.version,
        "packages": len(job.lock.packages),
        "extensions": {
            item.extension.name: [str(package.nevra) for package in item.lock.packages]
            for item in job.solved
        },
    }


def _check_each(
    context: BuildContext, job: ExtensionsJob, paths: Mapping[NEVRA, Path], reporter: Reporter
) -> None:
    """Prove that each extension can be installed on the node, whatever others are."""
    workspace = context.workspace
    tree = Tree.load(workspace.repo(), job.node.commit)
    installed = [item for item in job.solved if item.extension.kind == OS_EXTENSION]
    with (
        reporter.step("test the extensions on the node") as step,
        base_root(context, tree) as lower,
        workspace.scratch("test") as scratch,
        overlay_mount(lower, scratch) as mount,
    ):
        for done, item in enumerate(installed, 1):
            files = [paths[package.nevra] for package in item.lock.packages]
            try:
                check_installable(mount.merged, files, arch=context.arch, scratch=workspace.work)
            except PackageError as error:
                extension = item.extension
                raise PackageError(
                    f"extension {extension.name}, {extension.place}, cannot be installed on the "
                    f"node: {error.message}",
                    hint=error.hint,
                    context=error.context,
                ) from error
            step.progress(done, len(installed), "extensions")
        step.detail(f"{len(installed)} of {len(job.solved)} are installed on a node")


def _lay_out(folder: Path, paths: Mapping[NEVRA, Path], epoch: int, jobs: int) -> None:
    """Packages and their index in a folder; names, times and modes come from the packages and the
    epoch alone."""
    folder.mkdir(parents=True)
    for nevra, path in paths.items():
        target = folder / f"{nevra.name}-{nevra.version}-{nevra.release}.{nevra.arch}.rpm"
        shutil.copyfile(path, target)
        os.utime(target, (epoch, epoch))
    index_packages(folder, revision=epoch, threads=jobs)
    for parent in (*list(folder.parents)[: REPOSITORY.count("/")], folder, folder / "repodata"):
        parent.chmod(0o755)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def _write(layout: Layout, job: ExtensionsJob, layers: Sequence[Layer], arch: str) -> Descriptor:
    created = rfc3339(job.epoch)
    labels = {
        EXTENSIONS_LABEL: "true",
        VERSION: job.node.version,
        LAYER_TITLE: str(job.target),
    }
    config = ImageConfig(
        goarch(arch),
        "linux",
        created,
        {"Labels": labels, "Entrypoint": list(ENTRYPOINT)},
        tuple(layer.diff_id for layer in layers),
        tuple(History(created, layer.title) for layer in layers),
    )
    described = [
        replace(layer.descriptor, annotations={LAYER_TITLE: layer.title}) for layer in layers
    ]
    return write_image(layout, config, described, labels)
