"""Images of the store under their tags in a registry, by the tag policy of strata.toml.

Each image gets a unique tag, which is never moved, and after it the moving tag that its table
names. A node's moving tag says that the node is ready, so its extensions are pushed before
(requirement R4.7). A hotfix has tags of its own and never one that is official (R3.13).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strata.compose.amend import swapped_of
from strata.compose.context import BuildContext
from strata.compose.hotfix import check_not_expired
from strata.core.clock import today
from strata.core.errors import DefinitionError, NoSuchImageError, UsageError
from strata.core.events import Reporter
from strata.core.record import BuildRecord
from strata.core.text import shortened
from strata.oci.digest import Digest
from strata.oci.model import ImageConfig, Index, Manifest
from strata.oci.reference import ImageReference, SignaturePolicy
from strata.oci.skopeo import inspect_raw
from strata.oci.transfer import copy_image
from strata.treefile.project import FILE, Project
from strata.treefile.target import Target

_SHORT = 12


@dataclass(frozen=True)
class Tags:
    """What an image is called in the registry. unique: never moved; moving: the newest has it."""

    unique: str
    moving: str


@dataclass(frozen=True)
class Published:
    """An image that is in the registry now. new: its unique tag was not there before."""

    target: Target
    digest: Digest
    tags: Tags
    new: bool

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "target": str(self.target),
            "digest": str(self.digest),
            "unique": self.tags.unique,
            "moving": self.tags.moving,
            "new": self.new,
        }


def tags_of(project: Project, target: Target, version: str, digest: Digest) -> Tags:
    """The tags of an image of a version (`12.9.20260711-0`, of its base).

    A node image's version is its base's, so its unique tag ends in its digest. Raises
    DefinitionError when strata.toml names no tag for the target.
    """
    if target.kind == "hotfix":
        name = f"hotfix-{project.hotfix(target.name).name}"
        return Tags(f"{name}-{digest.hex[:_SHORT]}", name)
    moving = _template(project, target)
    if not moving:
        raise DefinitionError(
            f"{FILE} names no tag for {target}", hint='add tag = "NAME-{version}" to its table'
        )
    minor = _minor(project, target)
    values = {"version": minor, "stream-version": minor}
    full = {"version": version, "stream-version": version}
    unique = _fill(moving, full, target)
    if target.kind != "coreos" or unique == _fill(moving, values, target):
        unique += f"-{digest.hex[:_SHORT]}"
    return Tags(unique, _fill(moving, values, target))


def _template(project: Project, target: Target) -> str:
    if target.kind == "coreos":
        return project.stream(target.name).tag
    if target.kind in ("node", "extensions"):
        tag = project.node(target).tag
        return f"{tag}-extensions" if tag and target.kind == "extensions" else tag
    return ""


def _minor(project: Project, target: Target) -> str:
    return project.stream(target.stream or target.name).version


def _fill(template: str, values: dict[str, str], target: Target) -> str:
    try:
        return template.format_map(values)
    except (KeyError, ValueError, IndexError) as error:
        raise DefinitionError(
            f"{FILE}: the tag {template!r} of {target} has a part that means nothing: {error}",
            hint="known are {version} and {stream-version}",
        ) from error


def check_policy(project: Project, target: Target, tags: Tags) -> None:
    """A target's tags are nobody else's. Raises DefinitionError."""
    every = [one for one in project.targets() if one.kind != "bootc"]
    every += [Target("hotfix", hotfix.name) for hotfix in project.hotfixes]
    for other in every:
        if other == target or (other.kind != "hotfix" and not _template(project, other)):
            continue
        theirs = tags_of(project, other, "", Digest("0" * 64)).moving
        if theirs in (tags.moving, tags.unique):
            raise DefinitionError(
                f"{target} and {other} would both be {theirs} in the registry",
                hint="an official tag is of one target; rename the other",
                context={"file": FILE},
            )


def publish_targets(
    context: BuildContext, targets: Sequence[Target], *, dry_run: bool, reporter: Reporter
) -> list[Published]:
    """Push the images of the store, each under its unique tag and then under its moving one.

    A node target brings its extensions, and before its own moving tag. dry_run: only look.
    Raises UsageError, DefinitionError (policy), TransportError.
    """
    project = context.project
    if not project.registry:
        raise UsageError(f"{FILE} names no registry", hint='add registry = "docker://HOST/NAME"')
    wanted: list[Target] = []
    for target in (project.canonical(target) for target in targets):
        if target.kind == "node" and project.node(target).extensions:
            wanted.append(Target("extensions", target.name, target.stream))
        wanted.append(target)
    found = []
    with context.workspace.locked():
        images = [_look(context, target) for target in dict.fromkeys(wanted)]
        _check_extensions(context, images)
        for image in images:
            with reporter.step(f"publish {image.target}") as step:
                found.append(_push(context, image, dry_run))
                step.detail(f"{image.tags.unique}, {image.tags.moving}")
    return found


@dataclass(frozen=True)
class _Image:
    target: Target
    record: BuildRecord
    digest: Digest
    tags: Tags


def _look(context: BuildContext, target: Target) -> _Image:
    """An image of the store that may be published. Raises UsageError, DefinitionError."""
    project, layout = context.project, context.workspace.layout
    record = context.record(target)
    index = layout.tags().get(str(target))
    if record is None or index is None:
        raise UsageError(f"{target} is not in the store", hint=f"strata build {target}")
    if target.kind == "hotfix":
        check_not_expired(project.hotfix(target.name), today())
    version = str(record.outputs["version"])
    if version.endswith(".dev"):
        raise UsageError(f"{target} is a developer's build: {version}", hint="build without --dev")
    for item in Index.parse(layout.read(index)).manifests:
        manifest = Manifest.parse(layout.read(item))
        labels = ImageConfig.parse(layout.read(manifest.config)).labels
        swapped = _swapped_by_hand(labels, target)
        if swapped:
            raise UsageError(
                f"{target} has components swapped by hand: {shortened(swapped)}",
                hint=f"build the official one: strata build {target}; or make it a hotfix",
            )
    tags = tags_of(project, target, version, index.digest)
    check_policy(project, target, tags)
    return _Image(target, record, index.digest, tags)


def _swapped_by_hand(labels: Mapping[str, str], target: Target) -> list[str]:
    """What is swapped in an image that its definitions do not say, in words; a hotfix's own changes
    are said."""
    own = f"hotfix {target.name}" if target.kind == "hotfix" else None
    return [
        f"{row.get('path') or row.get('package') or row.get('file')} ({row.get('of')})"
        for row in swapped_of(labels)
        if row.get("of") != own
    ]


def _check_extensions(context: BuildContext, images: Sequence[_Image]) -> None:
    """Extensions are of the node image they are published with. Raises UsageError."""
    nodes = {
        (image.target.name, image.target.stream): str(image.record.outputs["manifest"])
        for image in images
        if image.target.kind == "node"
    }
    for image in images:
        node = nodes.get((image.target.name, image.target.stream))
        if image.target.kind == "extensions" and node not in (None, image.record.outputs["base"]):
            raise UsageError(
                f"{image.target} was built on another node image than the one in the store",
                hint=f"strata build {image.target}",
            )


def _push(context: BuildContext, image: _Image, dry_run: bool) -> Published:
    registry = ImageReference.parse(context.project.registry)
    source = ImageReference("oci", str(context.workspace.store), str(image.target))
    unique = ImageReference(registry.transport, registry.name, image.tags.unique)
    moving = ImageReference(registry.transport, registry.name, image.tags.moving)
    there = _digest_of(unique)
    if there is not None and there != image.digest:
        raise DefinitionError(
            f"{unique} is there already, and is {there}: a unique tag is never moved",
            hint="another store has published this version; build a new one",
        )
    if not dry_run:
        for place in (unique, moving):
            copy_image(
                source, place, architecture=context.arch, every=True, signature=SignaturePolicy()
            )
    return Published(image.target, image.digest, image.tags, there is None)


def _digest_of(reference: ImageReference) -> Digest | None:
    """What a tag in a registry is; None when it is not there. Raises TransportError."""
    try:
        return Digest.of(inspect_raw(str(reference)))
    except NoSuchImageError:
        return None
