"""The base of an image: its commit layer and chunks give back, bit by bit, the commit that was
encapsulated. A commit whose objects are still coming is marked partial.
"""

from __future__ import annotations

from collections.abc import Sequence

from strata.container.derived import Rules
from strata.container.importplan import LayerImport, encapsulated
from strata.container.layerreads import Counting, ImageLayer, LayerReads
from strata.container.layout_v1 import CommitObject, import_layer
from strata.container.stored import CHUNK, COMMIT
from strata.core.errors import ImageError, ObjectError, SignatureError
from strata.oci.tar import TarReader
from strata.ostree.libostree import verify_commit
from strata.ostree.objects import S_IFDIR, Checksum, DirMeta, DirTree
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree
from strata.ostree.tree import Tree


class BaseImport:
    """Reads a base. rules: which of its files are stored. signed_by: see `import_image`."""

    def __init__(self, reads: LayerReads, rules: Rules, signed_by: str) -> None:
        self._reads, self._repo, self._writer = reads, reads.repo, reads.writer
        self._rules, self._signed_by = rules, signed_by
        self._skip: frozenset[str] = frozenset()

    def run(self, layers: Sequence[ImageLayer]) -> tuple[list[LayerImport], Tree]:
        """The base's layers, and the tree of the commit they are."""
        chunks = layers[1:]
        base = encapsulated(self._reads.source.config)
        complete = bool(base) and self._repo.is_complete(base)
        with self._reads.step("import the base", layers) as step:
            # First what says whether the rest is wanted.
            first = self._import_commit_layer(layers[0], base, complete, step)
            if complete:
                step.skip(sum(layer.size_bytes for layer, _ in chunks))
                there = (LayerImport(layer.digest, CHUNK, base, 0) for layer, _ in chunks)
                return [first, *there], Tree.load(self._repo, Checksum(first.commit))
            order = sorted(chunks, key=lambda item: -item[0].size_bytes)
            self._writer.publish()  # the tree is read from the repository
            tree = Tree.load(self._repo, Checksum(first.commit))
            self._skip = self._unwanted(tree)
            done = self._reads.parallel(lambda item: self._import_chunk(item, step), order)
            missing = self._missing(tree)
            if missing and any(not layer.fetched_bytes for layer in done):
                # What an earlier import left of a chunk is less than the chunk.
                done = self._reads.parallel(lambda item: self._read_chunk(item, step), order)
                missing = self._missing(tree)
        if missing:
            raise ObjectError(
                f"the image lacks the object of {missing}", hint="the image is incomplete"
            )
        if not self._skip:
            self._repo.clear_partial(first.commit)
        by_digest = {layer.digest: layer for layer in done}
        return [first, *(by_digest[layer.digest] for layer, _ in chunks)], tree

    def _import_chunk(self, item: ImageLayer, step: Counting) -> LayerImport:
        known = self._reads.known(CHUNK, item, lambda commit: True, step)
        return known or self._read_chunk(item, step)

    def _read_chunk(self, item: ImageLayer, step: Counting) -> LayerImport:
        objects: list[Checksum] = []

        def use(tar: TarReader) -> None:
            objects.extend(import_layer(self._writer, tar, with_metadata=False, skip=self._skip)[0])

        self._reads.read(item, step, use)
        # A synthetic commit keeps the chunk's objects, and says later what was in it.
        holder = Tree(DirMeta(0, 0, S_IFDIR | 0o755), {name: name for name in objects})
        return self._reads.finish(CHUNK, item, commit_tree(self._writer, holder, timestamp=0))

    def _import_commit_layer(
        self, item: ImageLayer, base: str, complete: bool, step: Counting
    ) -> LayerImport:
        """The commit the image encapsulates. complete: whether all of it is there already."""
        known = self._reads.known(
            COMMIT, item, lambda it: it == base and self._is_trusted(it), step
        )
        if known is not None:
            if not complete:
                self._repo.mark_partial(known.commit)
            return known
        found: list[CommitObject | None] = []
        remote = self._signed_by

        def verify(commit: CommitObject) -> None:
            verify_commit(self._repo.path, remote, commit.data, commit.detached)

        def use(tar: TarReader) -> None:
            check = verify if remote else None
            found.append(import_layer(self._writer, tar, with_metadata=True, verify=check)[1])

        self._reads.read(item, step, use)
        commit = found[0]
        if commit is None or (base and commit.checksum != base):
            raise ImageError(
                "the image's commit layer does not hold the commit its label names",
                context={"label": base, "found": commit.checksum if commit else ""},
            )
        if not complete:
            self._repo.mark_partial(commit.checksum)
        commit.write(self._writer)
        # Of /sysroot an image has the folder and not its (empty) dirtree.
        self._writer.metadata("dirtree", DirTree((), ()).encode())
        done = self._reads.finish(COMMIT, item, commit.checksum)
        self._writer.publish()
        return done

    def _is_trusted(self, commit: Checksum) -> bool:
        """Whether a commit that is there is signed as is asked for; the layer's own may be."""
        if not self._repo.has(commit, "commit"):
            return False
        try:
            if self._signed_by:
                verify_stored(self._repo, self._signed_by, commit)
        except SignatureError:
            return False
        return True

    def _unwanted(self, tree: Tree) -> frozenset[str]:
        """The objects that only files below `without` have."""
        wanted: set[Checksum] = set()
        unwanted: set[Checksum] = set()
        for path, checksum in tree.walk_files():
            (wanted if self._rules.stores(path.strip("/")) else unwanted).add(checksum)
        return frozenset(unwanted - wanted)

    def _missing(self, tree: Tree) -> str:
        """The path of a file whose object is not there; empty when all are."""
        for path, checksum in tree.walk_files():
            if self._rules.stores(path.strip("/")) and not self._repo.has(checksum, "file"):
                return path
        return ""


def verify_stored(repo: Repo, remote: str, commit: Checksum) -> None:
    """Hold a commit that is there already against a remote's keys. Raises SignatureError."""
    detached = repo.read_metadata(commit, "commitmeta") if repo.has(commit, "commitmeta") else b""
    verify_commit(repo.path, remote, repo.read_metadata(commit, "commit"), detached)
