"""What definitions need that is not public: repositories, images and secrets, each with the line
that asks for it (requirement R3.16).

Only definitions are read: no repository, registry or store is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.compose.definitions import known_repos
from strata.compose.variant import stream_variables, variant_of
from strata.core.errors import UsageError
from strata.rpm.repofile import RepoConfig
from strata.treefile.buildargs import parse_lines
from strata.treefile.conditions import Variable, show
from strata.treefile.containerfile import parse_containerfile
from strata.treefile.project import FILE, STREAM_BASE, LayerSource, Project
from strata.treefile.public import Public, without_credentials
from strata.treefile.sources import Sources
from strata.treefile.target import Target
from strata.treefile.toml import TomlDocument
from strata.treefile.treefile import Flattened, Sourced, flatten
from strata.treefile.yaml import Value, parse_yaml

REPOSITORY, IMAGE, SECRET, SYSTEM = "repository", "image", "secret", "system"
CONTAINERFILE = "Containerfile"  # its name upstream, beside build-args and extensions files
CONTEXT = "strata"  # not an image: what `strata build --context` writes
BUILDER = "BUILDER_IMG"

Arguments = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, order=True)
class Need:
    """Something that not anyone can have. place: `file:line` that asks for it; kind: one of the
    above, SYSTEM when a treefile refuses the OS altogether."""

    kind: str
    name: str
    place: str
    why: str

    def to_json(self) -> dict[str, str]:
        """As JSON-ready values."""
        return dict(self.__dict__)


def needs(project: Project, targets: Sequence[Target], store: Path) -> tuple[Need, ...]:
    """All that targets need and is not public, sorted; of what several architectures need by one
    line, the first one's.

    store: what `$store` means in .repo files. Raises UsageError, DefinitionError.
    """
    reader = _Reader(project, store)
    found: dict[tuple[str, str, str], Need] = {}
    for target in targets:
        for need in reader.needs(target):
            found.setdefault((need.kind, need.name, need.place), need)
    return tuple(sorted(found.values()))


class _Reader:
    def __init__(self, project: Project, store: Path) -> None:
        self.project, self.store = project, store
        self.public = Public(project.public)
        self.sources = Sources(project.path)
        self.toml = TomlDocument(self.sources.text(FILE), FILE)

    def needs(self, target: Target) -> Iterator[Need]:
        target = self.project.canonical(target)
        if target.kind in ("bootc", "coreos"):
            yield from self._base(target)
        elif target.kind == "node":
            yield from self._node(target)
        elif target.kind == "extensions":
            yield from self._extensions(target)
        else:
            raise UsageError(
                f"{target} has no definition to look at",
                hint="name a bootc/, coreos/, node/ or extensions/ target",
            )

    def _base(self, target: Target) -> Iterator[Need]:
        stream = self.project.stream(target.name)
        source = stream.bootc if target.kind == "bootc" else stream.coreos
        if target.kind == "coreos" and stream.bootc and stream.bootc.image:
            yield from self._image(stream.bootc.image, self._toml("stream", stream.name, "bootc"))
        if source is None:
            return
        if source.image:
            yield from self._image(source.image, self._toml("stream", stream.name, target.kind))
            return
        if source.build_args:
            yield from self._builder(source.build_args)
        variant = variant_of(self.project, target)
        yield from self._treefile(target, variant.treefile, variant.variables)

    def _builder(self, build_args: str) -> Iterator[Need]:
        """The image that composes a base, and what its Containerfile asks for."""
        arguments = self._arguments(build_args)
        if BUILDER in arguments:
            image, line = arguments[BUILDER]
            yield from self._image(image, f"{build_args}:{line}")
        yield from self._containerfile_beside(build_args, build_args)

    def _node(self, target: Target) -> Iterator[Need]:
        node = self.project.node(target)
        if node.base != STREAM_BASE:
            path = ("release", node.release, "node", node.stream, "base")
            yield from self._image(node.base, self._toml(*path))
        if node.containerfile:
            yield from self._containerfile(node.containerfile, node.build_args)
        yield from self._treefile(target, node.treefile, self._below(node.stream))

    def _extensions(self, target: Target) -> Iterator[Need]:
        node = self.project.node(target)
        if not node.extensions:
            raise UsageError(f"{target} has no extensions file in strata.toml")
        document = parse_yaml(self.sources.text(node.extensions), node.extensions)
        yield from self._containerfile_beside(node.extensions, "")
        yield from self._treefile(
            target, node.treefile, self._below(node.stream), tuple(_repos_of(document))
        )

    def _below(self, stream: str) -> Mapping[str, Variable]:
        """What a node layer's conditions may ask."""
        project = self.project
        source: LayerSource = project.stream(stream).coreos
        if source.image:
            variables = stream_variables(project.stream(stream))
        else:
            variables = dict(variant_of(project, Target("coreos", stream)).variables)
        return {**variables, "deriving": True}

    def _treefile(
        self,
        target: Target,
        treefile: str,
        variables: Mapping[str, Variable],
        only: tuple[Sourced, ...] | None = None,
    ) -> Iterator[Need]:
        """The repositories of a treefile. only: of the node's treefile, those named elsewhere."""
        project = self.project
        for arch in project.stream(target.stream or target.name).arches:
            flat = flatten(
                project.path / treefile, variables=variables, arch=arch, root=project.path
            )
            named = tuple(_wanted(flat)) if only is None else only
            ids = {item.text for item in named}
            known = known_repos(project, treefile, flat, ids, arch=arch, store=self.store)
            for wanted in named:
                yield from self._repository(wanted, known.get(wanted.text), flat)

    def _repository(
        self, wanted: Sourced, repo: RepoConfig | None, flat: Flattened
    ) -> Iterator[Need]:
        place = str(wanted.source)
        if repo is None and _is_guard(wanted):
            system = flat.variables.get("osversion", "")
            why = f"the treefile knows no osversion {show(system)}; {wanted.text} is there to fail"
            yield Need(SYSTEM, str(system), place, why)
        elif repo is None:
            yield Need(REPOSITORY, wanted.text, place, "no .repo file defines it")
        elif not self.public.has_address(repo.baseurl):
            shown = without_credentials(repo.baseurl)
            yield Need(
                REPOSITORY, repo.id, place, f"{shown} ({repo.source}) is not declared public"
            )
        if repo is not None and repo.credentials:
            options = ", ".join(repo.credentials)
            yield Need(SECRET, options, place, f"repository {repo.id} in {repo.source} has them")

    def _image(self, image: str, place: str) -> Iterator[Need]:
        if not self.public.has_image(image):
            yield Need(IMAGE, image, place, "it is not declared public")

    def _containerfile_beside(self, file: str, build_args: str) -> Iterator[Need]:
        """A Containerfile that upstream has beside a file, when it is there and no node layer's."""
        beside = str(Path(file).parent / CONTAINERFILE)
        taken = beside in (node.containerfile for node in self.project.nodes)
        if not taken and (self.project.path / beside).is_file():
            yield from self._containerfile(beside, build_args)

    def _containerfile(self, file: str, build_args: str) -> Iterator[Need]:
        arguments = self._arguments(build_args) if build_args else {}
        name = self.sources.name(self.project.path / file)
        values = {key: value for key, (value, _) in arguments.items()}
        parsed = parse_containerfile(self.sources.text(name), file, values)
        for image in parsed.images:
            if image.text == CONTEXT:
                continue
            place = str(image.place)
            if image.argument in arguments:
                place = f"{build_args}:{arguments[image.argument][1]}"
            yield from self._image(image.text, place)
        for secret in parsed.secrets:
            yield Need(SECRET, secret.text, str(secret.place), "a build mounts it")

    def _arguments(self, file: str) -> Arguments:
        return parse_lines(self.sources.text(self.sources.name(self.project.path / file)), file)

    def _toml(self, *path: str) -> str:
        return f"{FILE}:{self.toml.line_of(path)}"


def _wanted(flat: Flattened) -> Iterator[Sourced]:
    yield from flat.repos
    place = flat.places.get("lockfile-repos")
    names = flat.fields.get("lockfile-repos")
    if place is not None and isinstance(names, list):
        yield from (Sourced(str(name), place) for name in names)


def _is_guard(wanted: Sourced) -> bool:
    """A repository that is nowhere on purpose: it stands where the OS is none of those known
    (requirement R1.3)."""
    conditions = [text for step in wanted.chain for text in step.conditions]
    return bool(conditions) and all("!=" in text for text in conditions)


def _repos_of(document: Value) -> Iterator[Sourced]:
    """The repositories that an extensions file names, for all extensions or for one."""
    members = document.data if isinstance(document.data, dict) else {}
    own = members.get("extensions")
    each = own.data.values() if own is not None and isinstance(own.data, dict) else ()
    for value in (document, *each):
        repos = value.data.get("repos") if isinstance(value.data, dict) else None
        for item in repos.data if repos is not None and isinstance(repos.data, list) else ():
            yield Sourced(str(item.data), item.place)
