"""Making the locks that definitions keep: for every architecture, without building anything.

A layer is solved on top of the locks of the layers below it, so a whole stream and its node layers
can be locked on one machine, for machines it does not have, from repository metadata alone. Only
where no lock says what is below, the base image itself does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.amend import Amendment, overrides_of, weigh
from strata.compose.baseimage import image_variables, import_base, resolve_base
from strata.compose.context import BuildContext
from strata.compose.definitions import Definition, amended, load_definition
from strata.compose.graph import build_order
from strata.compose.locks import kept_lock, load_kept, write_kept
from strata.compose.variant import variant_of
from strata.core.errors import PackageError, UsageError
from strata.core.events import Reporter
from strata.core.text import shortened
from strata.inspect.layers import check_no_node_packages
from strata.oci.reference import ImageReference
from strata.rpm.inventory import read_inventory
from strata.rpm.lock import Lock
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig
from strata.rpm.solve import Below
from strata.treefile.conditions import Variable
from strata.treefile.project import STREAM_BASE, Project
from strata.treefile.target import Target

Locks = dict[tuple[str, str], Lock]


@dataclass(frozen=True)
class LockChange:
    """A target's lock for one architecture, before (None for none) and now."""

    target: Target
    old: Lock | None
    new: Lock


def locked_targets(context: BuildContext, targets: Sequence[Target]) -> list[Target]:
    """The targets asked for, or all that name a lock file, in build order.

    Raises UsageError when one names none.
    """
    project = context.project
    wanted = [project.canonical(target) for target in targets]
    for target in wanted:
        if not project.lock_of(target):
            raise UsageError(
                f"strata.toml names no lock file for {target}",
                hint='add lock = "locks/NAME.lock" to its table',
            )
    every = [target for target in project.targets() if project.lock_of(target)]
    if not every:
        raise UsageError(
            "strata.toml names no lock file", hint='add lock = "locks/NAME.lock" to a table'
        )
    order = build_order(project, every, base_given=False)
    return [target for target in order if target in (wanted or every)]


def arches_of(context: BuildContext, target: Target, wanted: Sequence[str]) -> list[str]:
    """The architectures to lock a target for. Raises UsageError on one its stream does not have."""
    stream = context.project.stream(target.stream or target.name)
    for arch in wanted:
        if arch not in stream.arches:
            raise UsageError(
                f"stream {stream.name} is not for {arch}", hint=f"it is: {', '.join(stream.arches)}"
            )
    return [arch for arch in stream.arches if not wanted or arch in wanted]


def kept_locks(context: BuildContext) -> Locks:
    """All locks that the definitions keep. Raises DefinitionError."""
    files = {context.project.lock_of(target) for target in context.project.targets()}
    found: Locks = {}
    for file in sorted(files - {""}):
        found.update(load_kept(context.project, file).locks)
    return found


def update_locks(
    context: BuildContext,
    targets: Sequence[Target],
    arches: Sequence[str],
    *,
    only: Sequence[str] = (),
    pins: Mapping[str, Sequence[NEVRA]] | None = None,
    reporter: Reporter,
) -> list[LockChange]:
    """Solve targets anew, lowest layer first. Nothing is written.

    only: packages that may move, all others stay as they are locked. pins: by architecture, the
    only builds there are, and nothing else may come in.
    Raises UsageError, DefinitionError, PackageError, RepositoryError.
    """
    known = kept_locks(context)
    _check_names(known, targets, only)
    changes = []
    for target in targets:
        for arch in arches_of(context, target, arches):
            if pins is not None and arch not in pins:
                continue
            of_arch = replace(context, arch=arch)
            with reporter.step(f"lock {target} for {arch}") as step:
                old = known.get((str(target), arch))
                fixed = list(pins[arch]) if pins else _others(old, only)
                with context.workspace.scratch("lock") as scratch:
                    on = foundation_of(of_arch, target, known, scratch / "root", reporter)
                    definition = with_overrides(
                        context, target, definition_of(of_arch, target, on.variables, reporter), on
                    )
                    new = definition.lock(
                        arch=arch,
                        workspace=context.workspace,
                        below=on.below,
                        pins=fixed,
                    )
                if pins:
                    _check_pinned(new, fixed, target)
                if target.kind != "node":
                    check_no_node_packages(
                        [package.nevra for package in new.packages],
                        context.project.node_only,
                        layer=str(target),
                        origin=new.explain,
                    )
                known[str(target), arch] = new
                changes.append(LockChange(target, old, new))
                step.detail(f"{len(new.packages)} packages")
    return changes


def keep(context: BuildContext, changes: Sequence[LockChange]) -> list[str]:
    """Write changed locks to their files; returns the files' names."""
    files: dict[str, list[LockChange]] = {}
    for change in changes:
        files.setdefault(context.project.lock_of(change.target), []).append(change)
    for file, of_file in files.items():
        locks = load_kept(context.project, file)
        for change in of_file:
            locks = locks.with_lock(str(change.target), change.new)
        write_kept(context.project, file, locks)
    return sorted(files)


@dataclass(frozen=True)
class Foundation:
    """What a layer is solved on: the packages below it, and what its conditions may ask."""

    below: Below
    variables: Mapping[str, Variable]

    @property
    def nevras(self) -> tuple[NEVRA, ...]:
        """The packages of the layers below."""
        if self.below.root is not None:
            return read_inventory(self.below.root).nevras()
        return self.below.locked


def stream_variables_of(project: Project, target: Target) -> Mapping[str, Variable]:
    """What a target's conditions may ask, as its stream is defined: no image is read."""
    if target.kind != "node":
        return variant_of(project, target).variables
    variables = variant_of(project, Target("coreos", project.node(target).stream)).variables
    return {**variables, "deriving": True}


def definition_of(
    context: BuildContext, target: Target, variables: Mapping[str, Variable], reporter: Reporter
) -> Definition:
    """A target's definition. variables: of its foundation."""
    project = context.project
    if target.kind == "node":
        treefile = project.node(target).treefile
    else:
        treefile = variant_of(project, target).treefile
    return load_definition(
        project,
        treefile,
        variables=variables,
        arch=context.arch,
        store=context.workspace.files,
        reporter=reporter,
    )


def with_overrides(
    context: BuildContext, target: Target, definition: Definition, on: Foundation
) -> Definition:
    """A definition with strata.toml's overrides that are not redundant on its foundation."""
    ahead, _ = weigh(overrides_of(context.project, target), on.nevras)
    return amended(definition, Amendment(ahead=ahead), context.workspace)


def foundation_of(
    context: BuildContext, target: Target, known: Locks, scratch: Path, reporter: Reporter
) -> Foundation:
    """What a target stands on: locks where the layers below have them, else the base image."""
    project = context.project
    variables = stream_variables_of(project, target)
    if target.kind != "node":
        bootc = project.stream(target.name).bootc
        if target.kind == "bootc" or bootc is None:
            return Foundation(Below(), variables)
        if bootc.image:
            base = import_base(context, ImageReference.parse(bootc.image), reporter)
            return Foundation(Below(context.packages_of(base.commit, scratch)), variables)
        below = _locked_below(context, [Target("bootc", target.name)], known, reporter)
        return Foundation(below, variables)
    node = project.node(target)
    layers = ("bootc", "coreos")
    stream = [one for one in project.targets() if one.kind in layers and one.name == node.stream]
    foreign = project.stream(node.stream).bootc
    of_locks = all(project.lock_of(one) for one in stream) and not (foreign and foreign.image)
    if node.base == STREAM_BASE and of_locks:
        return Foundation(_locked_below(context, stream, known, reporter), variables)
    base = resolve_base(context, node, None, reporter)
    root = context.packages_of(base.commit, scratch)
    return Foundation(Below(root), image_variables(context, base.commit, node.stream))


def _locked_below(
    context: BuildContext, layers: Sequence[Target], known: Locks, reporter: Reporter
) -> Below:
    nevras: list[NEVRA] = []
    repos: dict[tuple[str, str], RepoConfig] = {}
    for layer in layers:
        lock = known.get((str(layer), context.arch)) or kept_lock(
            context.project, layer, context.arch
        )
        nevras += [package.nevra for package in lock.packages]
        variables = stream_variables_of(context.project, layer)
        definition = definition_of(context, layer, variables, reporter)
        repos.update(((repo.id, repo.baseurl), repo) for repo in definition.repos)
    return Below(None, tuple(nevras), tuple(repos.values()))


def _others(old: Lock | None, only: Sequence[str]) -> list[NEVRA]:
    """What stays as it is locked while some packages move."""
    if old is None or not only:
        return []
    return [package.nevra for package in old.packages if package.nevra.name not in only]


def _check_names(known: Locks, targets: Sequence[Target], only: Sequence[str]) -> None:
    wanted = {str(target) for target in targets}
    names = {
        package.nevra.name
        for (target, _), lock in known.items()
        if target in wanted
        for package in lock.packages
    }
    for name in only:
        if name not in names:
            raise UsageError(
                f"no package called {name} is locked in {', '.join(sorted(wanted))}",
                hint="a package that a treefile asks for anew comes in with a whole update",
            )


def _check_pinned(lock: Lock, pins: Sequence[NEVRA], target: Target) -> None:
    known = set(pins)
    extra = [str(one.nevra) for one in lock.packages if one.nevra not in known]
    if extra:
        raise PackageError(
            f"{target} needs packages that the imported lock does not have: {shortened(extra)}",
            hint="add them to the lock, or to an override file beside it",
        )
