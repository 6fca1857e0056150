"""Well-formed inputs to begin with: coverage grows from what is nearly right."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping

from strata.oci.digest import Digest
from strata.oci.layout import REF_NAME, VERSION
from strata.oci.model import (
    CONFIG,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)
from strata.oci.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarWriter
from strata.ostree.gvariant import Variant
from strata.ostree.objects import Checksum, Commit, DirMeta, DirTree, FileHeader

_SUM = Checksum("ab" * 32)
_XATTRS = ((b"user.a", b"1"), (b"user.b", b""))


def _tar(*entries: tuple[TarEntry, bytes]) -> bytes:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    for entry, body in entries:
        writer.entry(entry, body)
    writer.finish()
    return sink.getvalue()


def _file(path: bytes, body: bytes) -> tuple[TarEntry, bytes]:
    return TarEntry(path, FILE, 0o644, size_bytes=len(body)), body


_TAR = _tar(
    (TarEntry(b"usr/", DIRECTORY), b""),
    _file(b"usr/" + b"long/" * 30, b"hello"),
    (TarEntry(b"usr/link", SYMLINK, target=b"x" * 120), b""),
    (TarEntry(b"usr/hard", HARDLINK, target=b"usr/a", xattrs=_XATTRS), b""),
    _file(b"usr/.wh.gone", b""),
)
_DIGEST = Digest.of(b"x")
_MANIFEST = Manifest(
    Descriptor(CONFIG, _DIGEST, 3), (Descriptor(LAYER_GZIP, _DIGEST, 7, {"a": "b"}),), {"k": "v"}
).to_bytes()
_INDEX = Index(
    (
        Descriptor(
            MANIFEST,
            Digest.of(_MANIFEST),
            len(_MANIFEST),
            {REF_NAME: "x"},
            Platform("linux", "arm", "v7"),
        ),
        Descriptor(INDEX, _DIGEST, 1),
    ),
    {"k": "v"},
).to_bytes()
_CONFIG = ImageConfig(
    "arm",
    "linux",
    "2024-01-02T03:04:05Z",
    {"Labels": {"a": "b"}},
    (_DIGEST,),
    (History("", "by"),),
    "v7",
)
_STREAM = (
    b'{"kind":"ImageStream","apiVersion":"image.openshift.io/v1","metadata":{"name":"4.19"},'
    b'"spec":{"tags":[{"name":"rhel-coreos-10","from":{"kind":"DockerImage","name":"q.io/a/b@%s"}}]}}'
) % str(_DIGEST).encode()
_COMMIT = Commit(_SUM, _SUM, 7, "subject", "body", _SUM, {"version": Variant.text("1")})

SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "tar": (_TAR,),
    "compressed": (gzip.compress(_TAR, mtime=0), bytes.fromhex("28b52ffd04000100003a91db3d")),
    "objects": (
        FileHeader(1, 2, 0o100644, xattrs=_XATTRS).encode(),
        FileHeader(0, 0, 0o120777, "target").encode(),
        DirMeta(0, 0, 0o40755, _XATTRS).encode(),
        DirTree((("a", _SUM),), (("b", _SUM, _SUM),)).encode(),
        _COMMIT.encode(),
    ),
    "documents": (
        _MANIFEST,
        _INDEX,
        _CONFIG.to_bytes(),
        _STREAM,
        b'{"default":[{"type":"insecureAcceptAnything"}]}',
    ),
    "references": (
        f"ostree-remote-registry:r:registry.example:5000/a/b:t@{_DIGEST}".encode(),
        b"ostree-image-signed:oci-archive:/x:y",
        b"containers-storage:[overlay@/g+/r]localhost/x",
    ),
    "archive": (
        _tar(
            _file(b"oci-layout", VERSION),
            _file(b"index.json", _INDEX),
            _file(f"blobs/sha256/{Digest.of(_MANIFEST).hex}".encode(), _MANIFEST),
        ),
    ),
}
