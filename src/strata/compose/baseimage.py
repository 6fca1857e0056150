"""The image a layer is built on: resolved to a digest, copied to the store, imported as the commit
it was made from; and what its os-release answers to a treefile's conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

from strata.compose.context import BuildContext
from strata.compose.fetch import fetch_to_store
from strata.compose.variant import node_variables
from strata.container.importer import import_image
from strata.container.labels import VERSION
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.rooted import MAX_TEXT_BYTES
from strata.inspect.osrelease import PATH
from strata.oci.digest import Digest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.tree import Tree
from strata.treefile.conditions import Variable
from strata.treefile.project import STREAM_BASE, NodeStream


@dataclass(frozen=True)
class Base:
    """An image to build on, in the store and in its repository.

    manifest: the digest of its manifest for this architecture; commit: the tree to build on.
    """

    manifest: Digest
    commit: str
    version: str


def resolve_base(
    context: BuildContext, node: NodeStream, given: ImageReference | None, reporter: Reporter
) -> Base:
    """A node layer's base, as something to build on. given: as `base_reference` has it.

    Raises ImageError, TransportError, ArchitectureError.
    """
    return import_base(context, base_reference(context, node, given), reporter)


def base_reference(
    context: BuildContext, node: NodeStream, given: ImageReference | None
) -> ImageReference:
    """What a node layer is built on. given: an image in place of the definitions' own."""
    if given is not None:
        return given
    if node.base == STREAM_BASE:
        return ImageReference("oci", str(context.workspace.store), f"coreos/{node.stream}")
    return ImageReference.parse(node.base)


def import_base(context: BuildContext, reference: ImageReference, reporter: Reporter) -> Base:
    """An image as something to build on. Raises ImageError, TransportError, ArchitectureError."""
    pinned = fetch_to_store(context.workspace, reference, arch=context.arch, reporter=reporter)
    repo = context.workspace.repo()
    with open_source(pinned, architecture=context.arch) as source:
        stored = import_image(
            source, repo, reference=pinned, threads=context.jobs, reporter=reporter
        )
        derived = any(layer.kind == "derived" for layer in stored.layers)
        commit = stored.merge_commit if derived else stored.base_commit
        return Base(source.manifest_digest, commit, source.config.labels.get(VERSION, ""))


def image_variables(context: BuildContext, commit: str, stream: str) -> dict[str, Variable]:
    """What conditions may ask, from the base's os-release: a node needs no base definitions."""
    repo = context.workspace.repo()
    checksum = Tree.load(repo, commit).lookup(PATH)
    if not isinstance(checksum, str):
        raise DefinitionError(f"the base image has no /{PATH}")
    with repo.open_content(checksum) as content:
        data = content.read(MAX_TEXT_BYTES)
    try:
        return node_variables(data.decode("utf-8"), stream)
    except UnicodeDecodeError as error:
        raise DefinitionError(f"the base image's /{PATH} is not UTF-8: {error}") from error
