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
    CHUNK,
    COMMIT,
    DERIVED,
    IMAGE_CONFIG,
    MANIFEST,
    MANIFEST_DIGEST,
    ReadLayers,
    base_layer_count,
    find_stored,
    forget_unneeded,
    layer_kinds,
)
from strata.core.clock import parse_rfc3339
from strata.core.errors import DigestError, ImageError, ObjectError, SignatureError
from strata.core.events import Reporter, Step
from strata.core.files import canonical_json
from strata.core.streams import Readable
from strata.oci.compression import decompress
from strata.oci.digest import Digest
from strata.oci.model import Descriptor, ImageConfig, Manifest
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
    without: str = "",
    reporter: Reporter,
) -> ImportResult:
    """Import an open image under a reference; layers no image needs any more are let go.

    keep_var: see `derived.Rules`. signed_by: the repository's remote whose keys have to have signed
    the base commit; layers above it are not signed so. without: a folder whose files are not
    stored: the commits name them all the same, and the base's stays marked partial. Raises
    ImageError, DigestError, SignatureError, TransportError, ObjectError, NoSpaceError,
    ToolMissingError.
    """
    if signed_by and not base_layer_count(source.manifest, source.config):
        raise SignatureError(
            f"the image has no commit that the remote {signed_by} could have signed",
            hint="only images that encapsulate a commit can be held against a remote's keys",
        )
    there = _stored_result(source, repo, reference)
    if there is not None:
        if signed_by:
            _verify_stored(repo, signed_by, there.base_commit)
        forget_unneeded(repo)
        return there
    with writing(repo) as writer:
        result = _Import(
            source, repo, writer, reference, threads, keep_var, signed_by, without, reporter
        ).run()
    forget_unneeded(repo)
    return result


def _there(
    repo: Repo, manifest: Manifest, config: ImageConfig, base: str
) -> tuple[LayerImport, ...]:
    """An image's layers as far as they are there: the others have no commit, and are to be fetched.

    base: the commit it encapsulates, whose chunks need no reading once it is complete.
    """
    read = ReadLayers(repo)
    complete = bool(base) and repo.is_complete(base)
    layers = []
    rows = zip(layer_kinds(manifest, config), manifest.layers, config.diff_ids)
    for kind, layer, diff_id in rows:
        found = [
            commit for commit in read.of(kind, layer.digest, diff_id) if repo.is_complete(commit)
        ]
        commit = found[0] if found else base if kind == CHUNK and complete else ""
        layers.append(LayerImport(layer.digest, kind, commit, 0 if commit else layer.size_bytes))
    return tuple(layers)


def _label(config: ImageConfig) -> str:
    """The checksum an image says it encapsulates; empty when it names none. Raises ObjectError."""
    label = config.labels.get(labels.COMMIT, "")
    return parse_checksum(label) if label else ""


def _stored_result(
    source: ImageSource, repo: Repo, reference: ImageReference
) -> ImportResult | None:
    """What importing an image again gives, when all of it is there; nothing is fetched."""
    stored = find_stored(repo, reference)
    if stored is None or stored.manifest_digest != str(source.manifest_digest):
        return None
    if stored.config is None:
        return None  # another tool's, which says less than ours
    layers = _there(repo, source.manifest, source.config, _label(source.config))
    if any(not layer.commit for layer in layers):
        return None
    encapsulates = bool(layers) and layers[0].kind == COMMIT
    base = Checksum(layers[0].commit if encapsulates else "")
    return ImportResult(base, stored.commit, source.manifest_digest, layers)


def plan_import(
    source: ImageSource, repo: Repo, *, reference: ImageReference
) -> tuple[LayerImport, ...]:
    """What an import would fetch; nothing is written. Commits are those that are there, or empty.

    Raises ImageError, ObjectError.
    """
    there = _stored_result(source, repo, reference)
    if there is not None:
        return there.layers
    return _there(repo, source.manifest, source.config, _label(source.config))


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
        without: str,
        reporter: Reporter,
    ) -> None:
        self.source, self.repo, self.writer, self.reference = source, repo, writer, reference
        self.threads, self.keep_var, self.reporter = threads, keep_var, reporter
        self.signed_by = signed_by
        self.without = derived.Rules(without=without)
        self._skip: frozenset[str] = frozenset()
        self.known = ReadLayers(repo)
        self._refs: dict[str, Checksum] = {}
        self._unpublished = 0
        self._published = time.monotonic()
        self._lock = threading.Lock()

    def run(self) -> ImportResult:
        manifest, config = self.source.manifest, self.source.config
        count = base_layer_count(manifest, config)
        layers = list(zip(manifest.layers, config.diff_ids))
        base, tree = Checksum(""), Tree()
        base_layers: list[LayerImport] = []
        if count:
            base_layers, tree = self._import_base(layers[:count])
            base = Checksum(base_layers[0].commit)
        rest = layers[count:]
        rules = derived.Rules(
            not count or _keeps_other_tops(self.repo, tree), self.keep_var, self.without.without
        )
        with self._step("import derived layers", rest) as step:
            done = self._parallel(lambda item: self._import_derived(item, tree, rules, step), rest)
        with self.reporter.step("lay the layers over the base") as merging:
            merged = self._merge(base, tree, done)
            merging.detail(merged[:12])
        return ImportResult(base, merged, self.source.manifest_digest, (*base_layers, *done))

    # --- fetching --------------------------------------------------------------------------

    def _step(self, title: str, layers: Sequence[_Layer]) -> _Counting:
        return _Counting(self.reporter, title, sum(layer.size_bytes for layer, _ in layers))

    def _parallel(
        self, call: Callable[[_Layer], LayerImport], items: Sequence[_Layer]
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

    def _read(self, item: _Layer, step: _Counting, use: Callable[[TarReader], None]) -> None:
        """Read a layer's tar to its end. Raises DigestError when it has another diff-id."""
        layer, diff_id = item
        with self.source.open_layer(layer) as stream:
            tar = _Hashed(decompress(step.count(stream), layer.media_type))
            use(TarReader(tar))
        if diff_id not in (tar.digest, tar.padded_digest):
            raise DigestError(
                f"layer {layer.digest} does not have its diff-id",
                hint="the image contradicts itself; build it again",
                context={"expected": diff_id, "actual": tar.digest},
            )

    def _known(
        self, kind: str, item: _Layer, usable: Callable[[Checksum], bool], step: _Counting
    ) -> LayerImport | None:
        """A layer that was read before and need not be again."""
        layer, diff_id = item
        for commit in self.known.of(kind, layer.digest, diff_id):
            if usable(commit):
                if self.known.exact(kind, layer.digest, diff_id):
                    self._hold(kind, item, commit)
                step.skip(layer.size_bytes)
                return LayerImport(layer.digest, kind, commit, 0)
        return None

    def _hold(self, kind: str, item: _Layer, commit: Checksum) -> dict[str, Checksum]:
        """A layer's refs, which are set (again) with the image's, should another import take them
        for unneeded before the image is there."""
        layer, diff_id = item
        refs = {blob_ref(layer.digest): commit, read_ref(kind, layer.digest, diff_id): commit}
        with self._lock:
            self._refs.update(refs)
        return refs

    def _finish(self, kind: str, item: _Layer, commit: Checksum) -> LayerImport:
        """A layer is whole: give it its refs, and publish when enough has come together."""
        layer, _ = item
        for name, target in self._hold(kind, item, commit).items():
            self.writer.set_ref(name, target)
        with self._lock:
            self._unpublished += layer.size_bytes
            now = time.monotonic()
            due = self._unpublished >= PUBLISH_BYTES or now - self._published >= PUBLISH_S
            if due:
                self._unpublished, self._published = 0, now
        if due:
            self.writer.publish()
        return LayerImport(layer.digest, kind, commit, layer.size_bytes)

    # --- the base --------------------------------------------------------------------------

    def _import_base(self, layers: Sequence[_Layer]) -> tuple[list[LayerImport], Tree]:
        """The base's layers, and the tree of the commit they are."""
        chunks = layers[1:]
        base = _label(self.source.config)
        complete = bool(base) and self.repo.is_complete(base)
        with self._step("import the base", layers) as step:
            # First what says whether the rest is wanted.
            first = self._import_commit_layer(layers[0], base, complete, step)
            if complete:
                step.skip(sum(layer.size_bytes for layer, _ in chunks))
                there = (LayerImport(layer.digest, CHUNK, base, 0) for layer, _ in chunks)
                return [first, *there], Tree.load(self.repo, Checksum(first.commit))
            order = sorted(chunks, key=lambda item: -item[0].size_bytes)
            self.writer.publish()  # the tree is read from the repository
            tree = Tree.load(self.repo, Checksum(first.commit))
            self._skip = self._unwanted(tree)
            done = self._parallel(lambda item: self._import_chunk(item, step), order)
            missing = self._missing(tree)
            if missing and any(not layer.fetched_bytes for layer in done):
                # What an earlier import left of a chunk is less than the chunk.
                done = self._parallel(lambda item: self._read_chunk(item, step), order)
                missing = self._missing(tree)
        if missing:
            raise ObjectError(
                f"the image lacks the object of {missing}", hint="the image is incomplete"
            )
        if not self._skip:
            self.repo.clear_partial(first.commit)
        by_digest = {layer.digest: layer for layer in done}
        return [first, *(by_digest[layer.digest] for layer, _ in chunks)], tree

    def _import_chunk(self, item: _Layer, step: _Counting) -> LayerImport:
        known = self._known(CHUNK, item, lambda commit: True, step)
        return known or self._read_chunk(item, step)

    def _read_chunk(self, item: _Layer, step: _Counting) -> LayerImport:
        objects: list[Checksum] = []

        def use(tar: TarReader) -> None:
            objects.extend(import_layer(self.writer, tar, with_metadata=False, skip=self._skip)[0])

        self._read(item, step, use)
        # A synthetic commit keeps the chunk's objects, and says later what was in it.
        holder = Tree(DirMeta(0, 0, S_IFDIR | 0o755), {name: name for name in objects})
        return self._finish(CHUNK, item, commit_tree(self.writer, holder, timestamp=0))

    def _import_commit_layer(
        self, item: _Layer, base: str, complete: bool, step: _Counting
    ) -> LayerImport:
        """The commit the image encapsulates. complete: whether all of it is there already."""
        known = self._known(COMMIT, item, lambda it: it == base and self._is_trusted(it), step)
        if known is not None:
            if not complete:
                self.repo.mark_partial(known.commit)
            return known
        found: list[CommitObject | None] = []
        remote = self.signed_by

        def verify(commit: CommitObject) -> None:
            verify_commit(self.repo.path, remote, commit.data, commit.detached)

        def use(tar: TarReader) -> None:
            check = verify if remote else None
            found.append(import_layer(self.writer, tar, with_metadata=True, verify=check)[1])

        self._read(item, step, use)
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
        done = self._finish(COMMIT, item, commit.checksum)
        self.writer.publish()
        return done

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

    def _unwanted(self, tree: Tree) -> frozenset[str]:
        """The objects that only files below `without` have."""
        wanted: set[Checksum] = set()
        unwanted: set[Checksum] = set()
        for path, checksum in tree.walk_files():
            (wanted if self.without.stores(path.strip("/")) else unwanted).add(checksum)
        return frozenset(unwanted - wanted)

    def _missing(self, tree: Tree) -> str:
        """The path of a file whose object is not there; empty when all are."""
        for path, checksum in tree.walk_files():
            if self.without.stores(path.strip("/")) and not self.repo.has(checksum, "file"):
                return path
        return ""

    # --- derived layers --------------------------------------------------------------------

    def _import_derived(
        self, item: _Layer, base: Tree, rules: derived.Rules, step: _Counting
    ) -> LayerImport:
        known = self._known(DERIVED, item, lambda commit: self._may_reuse(commit, rules), step)
        if known is not None:
            return known
        found: list[derived.LayerTree] = []

        def use(tar: TarReader) -> None:
            found.append(derived.read_layer(self.writer, tar, base, rules))

        self._read(item, step, use)
        metadata = {
            _IMPLIED: Variant.text(json.dumps(sorted(found[0].implied))),
            _RULES: Variant.text(_rules_text(rules)),
        }
        commit = commit_tree(self.writer, found[0].tree, timestamp=0, metadata=metadata)
        done = self._finish(DERIVED, item, commit)
        for name, count in sorted(found[0].dropped.items()):
            self.reporter.warn(
                f"the image has {count} entries under {name} that a machine keeps for itself; "
                "they were left out"
            )
        return done

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
                    selinux.relabel(self.repo, self.writer, tree, policy, rules=self.without)
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
    text = f"other-tops={int(rules.other_tops)} keep-var={int(rules.keep_var)}"
    return f"{text} without={rules.without}" if rules.without else text


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
