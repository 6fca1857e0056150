"""Reading an image's layers into a repository: at once, in threads, each once.

Whole layers are published with their refs every PUBLISH_BYTES, or on a slow network every
PUBLISH_S, so that an interrupted import goes on from there.
"""

from __future__ import annotations

import hashlib
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from strata.container.importplan import LayerImport
from strata.container.refs import blob_ref, read_ref
from strata.container.stored import ReadLayers
from strata.core.errors import DigestError
from strata.core.events import Reporter, Step
from strata.core.streams import Readable
from strata.oci.compression import decompress
from strata.oci.digest import Digest
from strata.oci.model import Descriptor
from strata.oci.source import ImageSource
from strata.oci.tar import TarReader
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.writer import Writer

PUBLISH_BYTES = 128 << 20
PUBLISH_S = 10.0
ImageLayer = tuple[Descriptor, Digest]


class LayerReads:
    """The layers of one import. refs: those of the layers that it has, or takes over."""

    def __init__(
        self, source: ImageSource, repo: Repo, writer: Writer, threads: int, reporter: Reporter
    ) -> None:
        self.source, self.repo, self.writer, self.reporter = source, repo, writer, reporter
        self.refs: dict[str, Checksum] = {}
        self._threads = threads
        self._before = ReadLayers(repo)
        self._unpublished = 0
        self._published = time.monotonic()
        self._lock = threading.Lock()

    def step(self, title: str, layers: Sequence[ImageLayer]) -> Counting:
        return Counting(self.reporter, title, sum(layer.size_bytes for layer, _ in layers))

    def parallel(
        self, call: Callable[[ImageLayer], LayerImport], items: Sequence[ImageLayer]
    ) -> list[LayerImport]:
        """Results in the items' order; the first failure ends the others after their layer. Layers
        that are whole by then are published, so that the next import need not fetch them."""
        try:
            with ThreadPoolExecutor(self._threads) as pool:
                futures = [pool.submit(call, item) for item in items]
                try:
                    return [future.result() for future in futures]
                except BaseException:
                    for future in futures:
                        future.cancel()
                    raise
        finally:
            self.writer.publish()

    def read(self, item: ImageLayer, step: Counting, use: Callable[[TarReader], None]) -> None:
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

    def known(
        self, kind: str, item: ImageLayer, usable: Callable[[Checksum], bool], step: Counting
    ) -> LayerImport | None:
        """A layer that was read before and need not be again."""
        layer, diff_id = item
        for commit in self._before.of(kind, layer.digest, diff_id):
            if usable(commit):
                if self._before.exact(kind, layer.digest, diff_id):
                    self._hold(kind, item, commit)
                step.skip(layer.size_bytes)
                return LayerImport(layer.digest, kind, commit, 0)
        return None

    def _hold(self, kind: str, item: ImageLayer, commit: Checksum) -> dict[str, Checksum]:
        """A layer's refs, which are set (again) with the image's, should another import take them
        for unneeded before the image is there."""
        layer, diff_id = item
        refs = {blob_ref(layer.digest): commit, read_ref(kind, layer.digest, diff_id): commit}
        with self._lock:
            self.refs.update(refs)
        return refs

    def finish(self, kind: str, item: ImageLayer, commit: Checksum) -> LayerImport:
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


class Counting:
    """A step that counts the bytes of several layers read at once."""

    def __init__(self, reporter: Reporter, title: str, total: int) -> None:
        self._context = reporter.step(title)
        self._total = total
        self._done = self._skipped = 0
        self._lock = threading.Lock()
        self._step: Step | None = None

    def __enter__(self) -> Counting:
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
    def __init__(self, stream: Readable, step: Counting) -> None:
        self._stream, self._step = stream, step

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._step.add(len(data))
        return data
