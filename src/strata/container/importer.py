"""Import: a container image becomes OSTree commits in a repository.

The layers up to `ostree.final-diffid` are the base: its commit layer and chunks give back, bit by
bit, the commit that was encapsulated. What comes after are derived layers; laid over the base they
make the *merge commit*. Layers are read and written at once, in threads, streaming: none is stored
first. A layer that is there is not fetched: its ref says so, or its diff-id under another digest,
or, for the base's layers, the complete base commit itself (as on a machine deployed from it).

Interrupted at any point, the next run goes on: each whole layer has its ref, a commit whose objects
are still coming is marked partial. Source: ostree-ext's container/store.rs.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strata.container import derived, labels
from strata.container.layout_v1 import import_layer
from strata.container.refs import BLOB, IMAGE, blob_ref, image_ref
from strata.core.clock import parse_rfc3339
from strata.core.errors import DigestError, ImageError, ObjectError, StrataError
from strata.core.events import Reporter, Step
from strata.core.files import canonical_json
from strata.oci.compression import Readable, decompress
from strata.oci.digest import Digest
from strata.oci.model import Descriptor, ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource
from strata.oci.tar import TarReader
from strata.ostree.gvariant import Variant
from strata.ostree.objects import S_IFDIR, Checksum, Commit, DirMeta
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

MANIFEST_DIGEST = "ostree.manifest-digest"
MANIFEST = "ostree.manifest"
IMAGE_CONFIG = "ostree.container.image-config"
_IMPLIED = "strata.implied-folders"
_DEPLOYED = ("ostree/0/", "ostree/1/", "rpmostree/base/", "ostree/container/baseimage/")


@dataclass(frozen=True)
class LayerImport:
    """One layer of an import. kind: commit, chunk or derived; fetched_bytes: 0 when reused."""

    digest: Digest
    kind: str
    commit: str
    fetched_bytes: int

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "digest": str(self.digest),
            "kind": self.kind,
            "commit": self.commit,
            "fetched_bytes": self.fetched_bytes,
        }


@dataclass(frozen=True)
class ImportResult:
    """What an import left: the base's commit, the merge commit, and what each layer cost."""

    base_commit: Checksum
    merge_commit: Checksum
    manifest_digest: Digest
    layers: tuple[LayerImport, ...]

    @property
    def fetched_bytes(self) -> int:
        """Bytes of layers that were fetched."""
        return sum(layer.fetched_bytes for layer in self.layers)


def import_image(
    source: ImageSource,
    repo: Repo,
    *,
    reference: ImageReference,
    threads: int = 2,
    reporter: Reporter,
) -> ImportResult:
    """Import an open image under a reference; layers no image needs any more are let go.

    Raises ImageError, DigestError, TransportError, ObjectError, NoSpaceError.
    """
    return _Import(source, repo, reference, threads, reporter).run()


def base_layer_count(manifest: Manifest, config: ImageConfig) -> int:
    """How many layers are the base's, the commit layer included. Raises ImageError."""
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(
            f"the image has {len(manifest.layers)} layers and {len(config.diff_ids)} diff-ids"
        )
    final = config.labels.get(labels.FINAL_DIFFID)
    if final is None:
        raise ImageError(
            f"the image has no label {labels.FINAL_DIFFID}: it does not encapsulate a commit",
            hint="import an image that was built on a bootable base",
        )
    digest = Digest.parse(final)
    if digest not in config.diff_ids:
        raise ImageError(f"the image's {labels.FINAL_DIFFID} is not one of its layers")
    return config.diff_ids.index(digest) + 1


class _Import:
    def __init__(
        self,
        source: ImageSource,
        repo: Repo,
        reference: ImageReference,
        threads: int,
        reporter: Reporter,
    ) -> None:
        self.source, self.repo, self.reference = source, repo, reference
        self.threads, self.reporter = threads, reporter
        self._fetched = 0
        self._lock = threading.Lock()

    def run(self) -> ImportResult:
        manifest, config = self.source.manifest, self.source.config
        count = base_layer_count(manifest, config)
        base = config.labels.get(labels.COMMIT, "")
        base_layers = self._import_base(manifest.layers[:count], base)
        base_commit = Checksum(base_layers[0].commit)
        tree = Tree.load(self.repo, base_commit)
        rest = manifest.layers[count:]
        by_diff_id = self._stored_diff_ids()
        diff_ids = config.diff_ids[count:]
        with self._step("import derived layers", rest) as step:
            done = self._parallel(
                lambda item: self._import_derived(
                    item[0], item[1], by_diff_id.get(item[1]), tree, step
                ),
                list(zip(rest, diff_ids)),
            )
        with self.reporter.step("lay the layers over the base") as step:
            merged = self._merge(base_commit, tree, done)
            step.detail(merged[:12])
        self._forget_unneeded()
        layers = (*base_layers, *done)
        return ImportResult(base_commit, merged, self.source.manifest_digest, layers)

    # --- fetching --------------------------------------------------------------------------

    def _step(self, title: str, layers: Sequence[Descriptor]) -> _Counting:
        return _Counting(self.reporter, title, sum(layer.size_bytes for layer in layers))

    def _parallel(
        self, call: Callable[..., LayerImport], items: Sequence[object]
    ) -> list[LayerImport]:
        """Results in the items' order; the first failure ends the others after their layer."""
        with ThreadPoolExecutor(self.threads) as pool:
            futures = [pool.submit(call, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise

    def _read(
        self,
        layer: Descriptor,
        step: _Counting,
        use: Callable[[TarReader], None],
        diff_id: Digest | None = None,
    ) -> None:
        """Read a layer's tar to its end. diff_id: what its bytes must be, where it is relied on."""
        with self.source.open_layer(layer) as stream:
            tar = _Hashed(decompress(step.count(stream), layer.media_type))
            use(TarReader(tar if diff_id else tar.stream))
        if diff_id and tar.digest != diff_id:
            raise DigestError(
                f"layer {layer.digest} does not have its diff-id",
                hint="the image contradicts itself; build it again",
                context={"expected": diff_id, "actual": tar.digest},
            )

    # --- the base --------------------------------------------------------------------------

    def _import_base(self, layers: Sequence[Descriptor], base: str) -> list[LayerImport]:
        commit_layer, chunks = layers[0], layers[1:]
        if base and self.repo.is_complete(base):
            with writing(self.repo, sync=False) as writer:
                writer.set_ref(blob_ref(commit_layer.digest), Checksum(base))
            kinds = ["commit", *("chunk" for _ in chunks)]
            return [LayerImport(of.digest, kind, base, 0) for of, kind in zip(layers, kinds)]
        if base:
            self.repo.mark_partial(base)
        with self._step("import the base", layers) as step:
            done = self._parallel(lambda layer: self._import_chunk(layer, step), chunks)
            first = self._import_commit_layer(commit_layer, base, step)
        self._check_complete(Checksum(first.commit))
        self.repo.clear_partial(first.commit)
        return [first, *done]

    def _import_chunk(self, layer: Descriptor, step: _Counting) -> LayerImport:
        ref = blob_ref(layer.digest)
        known = self.repo.resolve(ref)
        if known is not None:
            step.skip(layer.size_bytes)
            return LayerImport(layer.digest, "chunk", known, 0)
        objects: list[Checksum] = []
        with writing(self.repo) as writer:

            def use(tar: TarReader) -> None:
                objects.extend(import_layer(writer, tar, with_metadata=False)[0])

            self._read(layer, step, use)
            # A synthetic commit keeps the chunk's objects, and says later what was in it.
            holder = Tree(DirMeta(0, 0, S_IFDIR | 0o755), {name: name for name in objects})
            commit = commit_tree(writer, holder, timestamp=0)
            writer.set_ref(ref, commit)
        return LayerImport(layer.digest, "chunk", commit, layer.size_bytes)

    def _import_commit_layer(self, layer: Descriptor, base: str, step: _Counting) -> LayerImport:
        commits: list[Checksum] = []
        with writing(self.repo) as writer:

            def use(tar: TarReader) -> None:
                commits.extend(import_layer(writer, tar, with_metadata=True)[1])

            self._read(layer, step, use)
            if len(commits) != 1 or (base and commits[0] != base):
                raise ImageError(
                    "the image's commit layer does not hold the commit its label names",
                    context={"label": base, "found": ", ".join(commits)},
                )
            writer.set_ref(blob_ref(layer.digest), commits[0])
        return LayerImport(layer.digest, "commit", commits[0], layer.size_bytes)

    def _check_complete(self, commit: Checksum) -> None:
        for path, checksum in Tree.load(self.repo, commit).walk_files():
            if not self.repo.has(checksum, "file"):
                raise ObjectError(
                    f"the image lacks the object of {path}", hint="the image is incomplete"
                )

    # --- derived layers --------------------------------------------------------------------

    def _import_derived(
        self,
        layer: Descriptor,
        diff_id: Digest,
        same: Checksum | None,
        base: Tree,
        step: _Counting,
    ) -> LayerImport:
        ref = blob_ref(layer.digest)
        known = self.repo.resolve(ref) or same
        if known is not None and self.repo.is_complete(known):
            step.skip(layer.size_bytes)
            with writing(self.repo, sync=False) as writer:
                writer.set_ref(ref, known)
            return LayerImport(layer.digest, "derived", known, 0)
        found: list[derived.LayerTree] = []
        with writing(self.repo) as writer:

            def use(tar: TarReader) -> None:
                found.append(derived.read_layer(writer, tar, base))

            # Another image may reuse this layer's commit by its diff-id: it must be true.
            self._read(layer, step, use, diff_id)
            implied = json.dumps(sorted(found[0].implied))
            commit = commit_tree(
                writer, found[0].tree, timestamp=0, metadata={_IMPLIED: Variant.text(implied)}
            )
            writer.set_ref(ref, commit)
        for name, count in sorted(found[0].dropped.items()):
            self.reporter.warn(
                f"the image has {count} entries under {name} that a machine keeps for itself; "
                "they were left out"
            )
        return LayerImport(layer.digest, "derived", commit, layer.size_bytes)

    def _stored_diff_ids(self) -> dict[Digest, Checksum]:
        """From the diff-id of each derived layer stored under any image to its commit."""
        known = {}
        for stored in self._stored_images(IMAGE).values():
            try:
                config = ImageConfig.parse(stored.metadata[IMAGE_CONFIG].as_text().encode())
                manifest = Manifest.parse(stored.metadata[MANIFEST].as_text().encode())
                count = base_layer_count(manifest, config)
            except (KeyError, StrataError):
                continue  # other tools store images without a configuration, or with `null`
            for layer, diff_id in zip(manifest.layers[count:], config.diff_ids[count:]):
                commit = self.repo.resolve(blob_ref(layer.digest))
                if commit is not None:
                    known[diff_id] = commit
        return known

    def _stored_images(self, *prefixes: str) -> dict[str, Commit]:
        found = {}
        for prefix in prefixes:
            for ref, checksum in self.repo.refs(prefix).items():
                if self.repo.has(checksum, "commit"):
                    found[ref] = self.repo.commit(checksum)
        return found

    # --- the merge -------------------------------------------------------------------------

    def _merge(self, base: Checksum, tree: Tree, layers: Sequence[LayerImport]) -> Checksum:
        for layer in layers:
            commit = self.repo.commit(layer.commit)
            names = commit.metadata.get(_IMPLIED)
            implied = set(json.loads(names.as_text())) if names else set()
            tree = derived.overlay(tree, Tree.load(self.repo, layer.commit), implied)
        if layers:
            self._remove_empty_network_files(tree)
        config = self.source.config
        metadata = {
            MANIFEST_DIGEST: Variant.text(str(self.source.manifest_digest)),
            MANIFEST: Variant.text(_canonical(self.source.manifest_bytes)),
            IMAGE_CONFIG: Variant.text(_canonical(self.source.config_bytes)),
        }
        version = config.labels.get(labels.VERSION)
        if version:
            metadata["version"] = Variant.text(version)
        created = self.source.manifest.annotations.get("org.opencontainers.image.created")
        timestamp = _time(created or config.created)
        with writing(self.repo) as writer:
            merged = commit_tree(writer, tree, timestamp=timestamp, parent=base, metadata=metadata)
            writer.set_ref(image_ref(self.reference), merged)
        return merged

    def _remove_empty_network_files(self, tree: Tree) -> None:
        """Empty hostname and resolv.conf are what container tools mount over, not content."""
        etc = tree.folder("usr/etc")
        for name in ("hostname", "resolv.conf"):
            checksum = etc.files.get(name) if etc else None
            if etc is None or checksum is None or self.repo.size(checksum):
                continue
            if not self.repo.header(checksum).is_symlink:
                del etc.files[name]

    def _forget_unneeded(self) -> None:
        """Remove the refs of layers that no stored or deployed image has."""
        needed = set()
        for commit in self._stored_images(IMAGE, *_DEPLOYED).values():
            if MANIFEST not in commit.metadata:
                continue
            try:
                manifest = Manifest.parse(commit.metadata[MANIFEST].as_text().encode())
            except StrataError:
                return  # an image of which nothing is known: its layers could be any
            needed |= {blob_ref(layer.digest) for layer in manifest.layers}
        for ref in self.repo.refs(BLOB):
            if ref not in needed:
                self.repo.delete_ref(ref)


class _Counting:
    """A step that counts the bytes of several layers read at once."""

    def __init__(self, reporter: Reporter, title: str, total: int) -> None:
        self._context = reporter.step(title)
        self._total = total
        self._done = self._skipped = 0
        self._lock = threading.Lock()
        self._step: Step | None = None

    def __enter__(self) -> _Counting:
        self._step = self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._step:
            fetched = (self._done - self._skipped) / 1e6
            self._step.detail(f"{fetched:.1f} MB fetched of {self._total / 1e6:.1f} MB")
        self._context.__exit__(*error)  # type: ignore[arg-type]

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            if self._step:
                self._step.progress(self._done, self._total)

    def skip(self, size: int) -> None:
        with self._lock:
            self._skipped += size
        self.add(size)

    def count(self, stream: Readable) -> Readable:
        return _Counted(stream, self)


class _Hashed:
    def __init__(self, stream: Readable) -> None:
        self.stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest())


class _Counted:
    def __init__(self, stream: Readable, step: _Counting) -> None:
        self._stream, self._step = stream, step

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._step.add(len(data))
        return data


def _canonical(data: bytes) -> str:
    return canonical_json(json.loads(data)).decode()


def _time(text: str) -> int:
    """Seconds since 1970; 0 when there is no time, as with the year 1 that Go writes for none."""
    try:
        return max(0, parse_rfc3339(text)) if text else 0
    except (ValueError, OverflowError):
        return 0
