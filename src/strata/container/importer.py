"""Import: a container image becomes OSTree commits in a repository.

The layers up to `ostree.final-diffid` are the base: its commit layer and chunks give back, bit by
bit, the commit that was encapsulated. What comes after are derived layers; laid over the base they
make the *merge commit*. An image without that label has derived layers only. Layers are read and
written at once, in threads, streaming: none is stored first. A layer that was read before is not
fetched: by its digest, or by its diff-id under another digest; of a base whose commit is complete
(as on a machine deployed from it) only the commit layer is, which says that the image has it. What
an image claims of its layers is never enough (see `refs`).

Interrupted at any point, the next run goes on: whole layers are published with their refs every
PUBLISH_BYTES, or on a slow network every PUBLISH_S; a commit whose objects are still coming is
marked partial.
Source: ostree-ext's container/store.rs.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strata.container import derived, labels, selinux
from strata.container.layout_v1 import CommitObject, import_layer
from strata.container.refs import blob_ref, image_ref, read_ref
from strata.container.stored import (
    IMAGE_CONFIG,
    MANIFEST,
    MANIFEST_DIGEST,
    ReadLayers,
    StoredImage,
    base_layer_count,
    find_stored,
    forget_unneeded,
)
from strata.core.clock import parse_rfc3339
from strata.core.errors import DigestError, ImageError, ObjectError, SignatureError
from strata.core.events import Reporter, Step
from strata.core.files import canonical_json
from strata.oci.compression import Readable, decompress
from strata.oci.digest import Digest
from strata.oci.model import Descriptor
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource
from strata.oci.tar import TarReader
from strata.ostree.gvariant import Variant
from strata.ostree.libostree import verify_commit
from strata.ostree.objects import S_IFDIR, Checksum, DirMeta, DirTree, parse_checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree
from strata.ostree.tree import Tree
from strata.ostree.writer import Writer, writing

COMMIT, CHUNK, DERIVED = "commit", "chunk", "derived"
PUBLISH_BYTES = 128 << 20
PUBLISH_S = 10.0
_IMPLIED = "strata.implied-folders"
_RULES = "strata.rules"
_Layer = tuple[Descriptor, Digest]
_PREPARE_ROOT = ("usr/etc/ostree/prepare-root.conf", "usr/lib/ostree/prepare-root.conf")


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
    """What an import left: the base's commit (empty when the image encapsulates none), the merge
    commit, and what each layer cost."""

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
    keep_var: bool = False,
    signed_by: str = "",
    reporter: Reporter,
) -> ImportResult:
    """Import an open image under a reference; layers no image needs any more are let go.

    keep_var: see `derived.Rules`. signed_by: the repository's remote whose keys have to have signed
    the base commit; layers above it are not signed so. Raises ImageError, DigestError,
    SignatureError, TransportError, ObjectError, NoSpaceError, ToolMissingError.
    """
    if signed_by and not base_layer_count(source.manifest, source.config):
        raise SignatureError(
            f"the image has no commit that the remote {signed_by} could have signed",
            hint="only images that encapsulate a commit can be held against a remote's keys",
        )
    stored = find_stored(repo, reference)
    if stored is not None and stored.manifest_digest == str(source.manifest_digest):
        there = as_stored(repo, stored)
        if there is not None:
            if signed_by:
                _verify_stored(repo, signed_by, there.base_commit)
            forget_unneeded(repo)
            return there
    with writing(repo) as writer:
        result = _Import(
            source, repo, writer, reference, threads, keep_var, signed_by, reporter
        ).run()
    forget_unneeded(repo)
    return result


def as_stored(repo: Repo, stored: StoredImage) -> ImportResult | None:
    """What importing a stored image again gives, when all of it is there; nothing is fetched."""
    if stored.config is None:
        return None
    count = base_layer_count(stored.manifest, stored.config)
    read = ReadLayers(repo)
    layers: list[LayerImport] = []
    for number, (layer, diff_id) in enumerate(zip(stored.manifest.layers, stored.config.diff_ids)):
        kind = DERIVED if number >= count else CHUNK if number else COMMIT
        commit = read.exact(kind, layer.digest, diff_id)
        if commit is None and kind == CHUNK:
            commit = Checksum(layers[0].commit)  # on a machine deployed from the base
        if commit is None and kind == DERIVED:
            commit = next(iter(read.same(kind, diff_id)), None)
        if commit is None or not repo.is_complete(commit):
            return None
        layers.append(LayerImport(layer.digest, kind, commit, 0))
    base = Checksum(layers[0].commit) if count else Checksum("")
    digest = Digest.parse(stored.manifest_digest)
    return ImportResult(base, stored.commit, digest, tuple(layers))


def plan_import(
    source: ImageSource, repo: Repo, *, reference: ImageReference
) -> tuple[LayerImport, ...]:
    """What an import would fetch; nothing is written. Commits are those that are there, or empty.

    Raises ImageError.
    """
    stored = find_stored(repo, reference)
    if stored is not None and stored.manifest_digest == str(source.manifest_digest):
        there = as_stored(repo, stored)
        if there is not None:
            return there.layers
    count = base_layer_count(source.manifest, source.config)
    read = ReadLayers(repo)
    base = source.config.labels.get(labels.COMMIT, "")
    complete = bool(base) and repo.is_complete(parse_checksum(base))
    layers: list[LayerImport] = []
    for number, (layer, diff_id) in enumerate(zip(source.manifest.layers, source.config.diff_ids)):
        kind = DERIVED if number >= count else CHUNK if number else COMMIT
        known = read.exact(kind, layer.digest, diff_id)
        if known is None and kind != COMMIT:
            known = next(iter(read.same(kind, diff_id)), None)
        if known is None and kind == CHUNK and complete:
            known = Checksum(base)
        fetched = 0 if known else layer.size_bytes
        layers.append(LayerImport(layer.digest, kind, known or "", fetched))
    return tuple(layers)


class _Import:
    def __init__(
        self,
        source: ImageSource,
        repo: Repo,
        writer: Writer,
        reference: ImageReference,
        threads: int,
        keep_var: bool,
        signed_by: str,
        reporter: Reporter,
    ) -> None:
        self.source, self.repo, self.writer, self.reference = source, repo, writer, reference
        self.threads, self.keep_var, self.reporter = threads, keep_var, reporter
        self.signed_by = signed_by
        self.known = ReadLayers(repo)
        self._refs: dict[str, Checksum] = {}
        self._unpublished = 0
        self._published = time.monotonic()
        self._lock = threading.Lock()

    def run(self) -> ImportResult:
        manifest, config = self.source.manifest, self.source.config
        count = base_layer_count(manifest, config)
        base, tree, base_layers = Checksum(""), Tree(), []
        if count:
            base_layers = self._import_base(list(zip(manifest.layers, config.diff_ids))[:count])
            base = Checksum(base_layers[0].commit)
            tree = Tree.load(self.repo, base)
        rest = manifest.layers[count:]
        rules = derived.Rules(not count or _keeps_other_tops(self.repo, tree), self.keep_var)
        with self._step("import derived layers", rest) as step:

            def call(item: tuple[Descriptor, Digest]) -> LayerImport:
                return self._import_derived(*item, tree, rules, step)

            done = self._parallel(call, list(zip(rest, config.diff_ids[count:])))
        with self.reporter.step("lay the layers over the base") as merging:
            merged = self._merge(base, tree, done)
            merging.detail(merged[:12])
        layers = (*base_layers, *done)
        return ImportResult(base, merged, self.source.manifest_digest, layers)

    # --- fetching --------------------------------------------------------------------------

    def _step(self, title: str, layers: Sequence[Descriptor]) -> _Counting:
        return _Counting(self.reporter, title, sum(layer.size_bytes for layer in layers))

    def _parallel(
        self, call: Callable[..., LayerImport], items: Sequence[object]
    ) -> list[LayerImport]:
        """Results in the items' order; the first failure ends the others after their layer. Layers
        that are whole by then are published, so that the next import need not fetch them."""
        try:
            with ThreadPoolExecutor(self.threads) as pool:
                futures = [pool.submit(call, item) for item in items]
                try:
                    return [future.result() for future in futures]
                except BaseException:
                    for future in futures:
                        future.cancel()
                    raise
        finally:
            self.writer.publish()

    def _read(
        self,
        layer: Descriptor,
        step: _Counting,
        diff_id: Digest,
        use: Callable[[TarReader], None],
    ) -> None:
        """Read a layer's tar to its end. Raises DigestError when it has another diff-id."""
        with self.source.open_layer(layer) as stream:
            tar = _Hashed(decompress(step.count(stream), layer.media_type))
            use(TarReader(tar))
            while tar.read(1 << 18):
                pass  # what pads a tar is part of its diff-id
        if diff_id not in (tar.digest, tar.padded_digest):
            raise DigestError(
                f"layer {layer.digest} does not have its diff-id",
                hint="the image contradicts itself; build it again",
                context={"expected": diff_id, "actual": tar.digest},
            )

    def _reuse(self, kind: str, layer: Descriptor, diff_id: Digest, commit: Checksum) -> None:
        """A layer was read before: its refs are set again with the image's, should another import
        take them for unneeded before the image is there."""
        with self._lock:
            self._refs[blob_ref(layer.digest)] = commit
            self._refs[read_ref(kind, layer.digest, diff_id)] = commit

    def _finish(self, kind: str, layer: Descriptor, diff_id: Digest, commit: Checksum) -> None:
        """A layer is whole: give it its refs, and publish when enough has come together."""
        self._reuse(kind, layer, diff_id, commit)
        self.writer.set_ref(blob_ref(layer.digest), commit)
        self.writer.set_ref(read_ref(kind, layer.digest, diff_id), commit)
        with self._lock:
            self._unpublished += layer.size_bytes
            now = time.monotonic()
            due = self._unpublished >= PUBLISH_BYTES or now - self._published >= PUBLISH_S
            if due:
                self._unpublished, self._published = 0, now
        if due:
            self.writer.publish()

    # --- the base --------------------------------------------------------------------------

    def _import_base(self, layers: Sequence[_Layer]) -> list[LayerImport]:
        (commit_layer, of_commit), chunks = layers[0], layers[1:]
        label = self.source.config.labels.get(labels.COMMIT, "")
        base = parse_checksum(label) if label else ""
        complete = bool(base) and self.repo.is_complete(base)
        with self._step("import the base", [layer for layer, _ in layers]) as step:
            # First what says whether the rest is wanted.
            first = self._import_commit_layer(commit_layer, of_commit, base, complete, step)
            if complete:
                step.skip(sum(layer.size_bytes for layer, _ in chunks))
                return [first, *(LayerImport(of.digest, CHUNK, base, 0) for of, _ in chunks)]
            order = sorted(chunks, key=lambda item: -item[0].size_bytes)
            done = self._parallel(lambda item: self._import_chunk(item, step), order)
            missing = self._missing(Checksum(first.commit))
            if missing and any(not layer.fetched_bytes for layer in done):
                # What an earlier import left of a chunk is less than the chunk.
                done = self._parallel(lambda item: self._import_chunk(item, step, anew=True), order)
                missing = self._missing(Checksum(first.commit))
        if missing:
            raise ObjectError(
                f"the image lacks the object of {missing}", hint="the image is incomplete"
            )
        self.repo.clear_partial(first.commit)
        by_digest = {layer.digest: layer for layer in done}
        return [first, *(by_digest[layer.digest] for layer, _ in chunks)]

    def _import_chunk(self, item: _Layer, step: _Counting, *, anew: bool = False) -> LayerImport:
        layer, diff_id = item
        known = self.known.exact(CHUNK, layer.digest, diff_id)
        if known is not None:
            self._reuse(CHUNK, layer, diff_id, known)
        else:
            known = next(iter(self.known.same(CHUNK, diff_id)), None)
        if known is not None and not anew:
            step.skip(layer.size_bytes)
            return LayerImport(layer.digest, CHUNK, known, 0)
        objects: list[Checksum] = []

        def use(tar: TarReader) -> None:
            objects.extend(import_layer(self.writer, tar, with_metadata=False)[0])

        self._read(layer, step, diff_id, use)
        # A synthetic commit keeps the chunk's objects, and says later what was in it.
        holder = Tree(DirMeta(0, 0, S_IFDIR | 0o755), {name: name for name in objects})
        commit = commit_tree(self.writer, holder, timestamp=0)
        self._finish(CHUNK, layer, diff_id, commit)
        return LayerImport(layer.digest, CHUNK, commit, layer.size_bytes)

    def _import_commit_layer(
        self, layer: Descriptor, diff_id: Digest, base: str, complete: bool, step: _Counting
    ) -> LayerImport:
        """The commit the image encapsulates. complete: whether all of it is there already."""
        known = self.known.exact(COMMIT, layer.digest, diff_id)
        if known is not None and known == base and self._is_trusted(known):
            if not complete:
                self.repo.mark_partial(known)
            self._reuse(COMMIT, layer, diff_id, known)
            step.skip(layer.size_bytes)
            return LayerImport(layer.digest, COMMIT, known, 0)
        found: list[CommitObject | None] = []
        remote = self.signed_by

        def verify(commit: CommitObject) -> None:
            verify_commit(self.repo.path, remote, commit.data, commit.detached)

        def use(tar: TarReader) -> None:
            check = verify if remote else None
            found.append(import_layer(self.writer, tar, with_metadata=True, verify=check)[1])

        self._read(layer, step, diff_id, use)
        commit = found[0]
        if commit is None or (base and commit.checksum != base):
            raise ImageError(
                "the image's commit layer does not hold the commit its label names",
                context={"label": base, "found": commit.checksum if commit else ""},
            )
        if not complete:
            self.repo.mark_partial(commit.checksum)
        commit.write(self.writer)
        # Of /sysroot an image has the folder and not its (empty) dirtree.
        self.writer.metadata("dirtree", DirTree((), ()).encode())
        self._finish(COMMIT, layer, diff_id, commit.checksum)
        self.writer.publish()
        return LayerImport(layer.digest, COMMIT, commit.checksum, layer.size_bytes)

    def _is_trusted(self, commit: Checksum) -> bool:
        """Whether a commit that is there is signed as is asked for; the layer's own may be."""
        if not self.repo.has(commit, "commit"):
            return False
        try:
            if self.signed_by:
                _verify_stored(self.repo, self.signed_by, commit)
        except SignatureError:
            return False
        return True

    def _missing(self, commit: Checksum) -> str:
        """The path of a file whose object is not there; empty when all are."""
        for path, checksum in Tree.load(self.repo, commit).walk_files():
            if not self.repo.has(checksum, "file"):
                return path
        return ""

    # --- derived layers --------------------------------------------------------------------

    def _import_derived(
        self,
        layer: Descriptor,
        diff_id: Digest,
        base: Tree,
        rules: derived.Rules,
        step: _Counting,
    ) -> LayerImport:
        exact = self.known.exact(DERIVED, layer.digest, diff_id)
        for known in [exact] if exact else self.known.same(DERIVED, diff_id):
            if self._may_reuse(known, rules):
                step.skip(layer.size_bytes)
                if known == exact:
                    self._reuse(DERIVED, layer, diff_id, known)
                return LayerImport(layer.digest, DERIVED, known, 0)
        found: list[derived.LayerTree] = []

        def use(tar: TarReader) -> None:
            found.append(derived.read_layer(self.writer, tar, base, rules))

        self._read(layer, step, diff_id, use)
        metadata = {
            _IMPLIED: Variant.text(json.dumps(sorted(found[0].implied))),
            _RULES: Variant.text(_rules_text(rules)),
        }
        commit = commit_tree(self.writer, found[0].tree, timestamp=0, metadata=metadata)
        self._finish(DERIVED, layer, diff_id, commit)
        for name, count in sorted(found[0].dropped.items()):
            self.reporter.warn(
                f"the image has {count} entries under {name} that a machine keeps for itself; "
                "they were left out"
            )
        return LayerImport(layer.digest, DERIVED, commit, layer.size_bytes)

    def _may_reuse(self, commit: Checksum, rules: derived.Rules) -> bool:
        """Whether a layer was read by the same rules: they decide what is kept of it."""
        if not self.repo.is_complete(commit):
            return False
        metadata = self.repo.commit(commit).metadata
        return _RULES in metadata and metadata[_RULES].as_text() == _rules_text(rules)

    # --- the merge -------------------------------------------------------------------------

    def _merge(self, base: Checksum, tree: Tree, layers: Sequence[LayerImport]) -> Checksum:
        for layer in layers:
            names = self.repo.commit(layer.commit).metadata[_IMPLIED]
            implied = set(json.loads(names.as_text()))
            tree = derived.overlay(tree, Tree.load(self.repo, layer.commit), implied)
        if layers:
            self._remove_empty_network_files(tree)
            with selinux.policy_of(self.repo, tree) as policy:
                if policy is not None:
                    selinux.relabel(self.repo, self.writer, tree, policy)
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
        merged = commit_tree(self.writer, tree, timestamp=timestamp, parent=base, metadata=metadata)
        for name, commit in self._refs.items():
            self.writer.set_ref(name, commit)
        self.writer.set_ref(image_ref(self.reference), merged)
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


def _verify_stored(repo: Repo, remote: str, commit: Checksum) -> None:
    """Hold a commit that is there already against a remote's keys. Raises SignatureError."""
    detached = repo.read_metadata(commit, "commitmeta") if repo.has(commit, "commitmeta") else b""
    verify_commit(repo.path, remote, repo.read_metadata(commit, "commit"), detached)


def _keeps_other_tops(repo: Repo, base: Tree) -> bool:
    """Whether the system's root is transient or composefs, so that any top-level folder may be."""
    for path in _PREPARE_ROOT:
        checksum = base.lookup(path)
        if not isinstance(checksum, str):
            continue
        text = selinux.read_config(repo, checksum)
        config = configparser.RawConfigParser(strict=False, interpolation=None)
        try:
            config.read_string(text)
        except configparser.Error:
            return False
        transient = config.get("root", "transient", fallback="")
        composefs = config.get("composefs", "enabled", fallback="")
        return transient in ("true", "yes", "1") or composefs in (
            "yes",
            "true",
            "1",
            "maybe",
            "signed",
            "verity",
        )
    return False


def _rules_text(rules: derived.Rules) -> str:
    return f"other-tops={int(rules.other_tops)} keep-var={int(rules.keep_var)}"


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
        self._size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(size)
        self._hash.update(data)
        self._size += len(data)
        return data

    @property
    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest())

    @property
    def padded_digest(self) -> Digest:
        """With the zeros to a whole record, that skopeo 1.9 drops as it writes zstd:chunked."""
        padded = self._hash.copy()
        padded.update(bytes(-self._size % tarfile.RECORDSIZE))
        return Digest(padded.hexdigest())


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
