"""Composes as packings see them: the components of an image, or of a file that lists them."""

from __future__ import annotations

import json
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from strata.compose.components import commit_components
from strata.container.encapsulate import assign
from strata.container.importer import import_image
from strata.container.labels import COMPONENTS
from strata.container.packing import Component
from strata.container.packing_replay import RPMDB
from strata.core.errors import DefinitionError, ImageError
from strata.core.events import Reporter
from strata.oci.model import Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

_MAX_LIST_BYTES = 64 << 20


@dataclass(frozen=True)
class Compose:
    """An image's manifest and components, the latter with their sizes and content."""

    manifest: Manifest
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Fetched:
    """What a client that has one image fetches to have the next, compressed.

    layers: chunks of the image; fetched: those to fetch, fetched_bytes without the package
    database (rpmdb_bytes) and the commit layer (commit_bytes).
    """

    layers: int
    fetched: int
    fetched_bytes: int
    rpmdb_bytes: int
    commit_bytes: int


def read_compose(
    reference: ImageReference, *, architecture: str, threads: int, reporter: Reporter
) -> Compose:
    """The components of an image that encapsulates a commit.

    They are read from the package database in it, so the image is imported into a repository that
    is removed afterwards. Raises ImageError, TransportError, PackageError.
    """
    with tempfile.TemporaryDirectory(prefix="strata-simulate.") as folder:
        repo = Repo.init(Path(folder) / "repo")
        with open_source(reference, architecture=architecture) as source:
            done = import_image(
                source, repo, reference=reference, threads=threads, reporter=reporter
            )
            manifest = source.manifest
        if not done.base_commit:
            raise ImageError(
                f"{reference} encapsulates no commit", hint="name an image of a base layer"
            )
        tree = Tree.load(repo, done.base_commit)
        found = assign(repo, tree, commit_components(repo, tree)).components
    return Compose(manifest, found)


def fetched_between(old: Manifest, new: Manifest) -> Fetched:
    """What a client that has one image fetches to have the next, by their layers' digests."""
    there = {layer.digest for layer in old.layers}
    missing = [layer for layer in new.layers if layer.digest not in there]
    commit = sum(layer.size_bytes for layer in missing if layer == new.layers[0])
    database = sum(
        layer.size_bytes for layer in missing if layer.annotations.get(COMPONENTS) == RPMDB
    )
    chunks = [layer for layer in missing if layer != new.layers[0]]
    total = sum(layer.size_bytes for layer in chunks)
    return Fetched(len(new.layers) - 1, len(chunks), total - database, database, commit)


def parse_components(data: bytes, source: str) -> tuple[Component, ...]:
    """A list of components as JSON, plain or gzip: `identifier`, `name`, `srcid`,
    `change_frequency` and `size` of each, as rpm-ostree knows them.

    source: the file's name, for errors. Raises DefinitionError.
    """
    try:
        if data[:2] == b"\x1f\x8b":
            unpack = zlib.decompressobj(wbits=31)
            data = unpack.decompress(data, _MAX_LIST_BYTES + 1)
        if len(data) > _MAX_LIST_BYTES:
            raise DefinitionError(f"{source} is larger than {_MAX_LIST_BYTES} bytes")
        return tuple(_component(row) for row in json.loads(data))
    except (ValueError, TypeError, KeyError, zlib.error, RecursionError) as error:
        raise DefinitionError(
            f"{source} is not a list of components: {error!r}",
            hint="each has identifier, name, srcid, change_frequency and size",
            context={"file": source},
        ) from error


def _component(row: dict[str, object]) -> Component:
    texts = [row[key] for key in ("identifier", "name", "srcid")]
    numbers = [row["change_frequency"], row["size"]]
    if not all(isinstance(value, str) for value in texts):
        raise ValueError(f"{texts} are not texts")
    if not all(isinstance(value, int) and value >= 0 for value in numbers):
        raise ValueError(f"{numbers} are not numbers")
    identifier, name, origin = map(str, texts)
    frequency, size = (int(str(value)) for value in numbers)
    return Component(identifier, name, origin, frequency, size)
