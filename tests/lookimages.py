"""Small images made by hand, for looking at: layers by the standard library's tarfile, a package
database of a few headers, and a layout around them."""

from __future__ import annotations

import gzip
import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from layertar import Tar
from strata.container.layers import write_image
from strata.inspect.files import ImageFiles, read_files
from strata.inspect.view import ImageView, view_of
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource, open_source

RPMDB = "usr/lib/sysimage/rpm/rpmdb.sqlite"
META = "usr/share/openshift/base/meta.json"
# What every system has, so that a rule is broken by one thing alone.
ROOTS = ("dev", "proc", "run", "sys", "tmp", "var", "sysroot", "etc", "usr")


def system() -> Tar:
    """A layer that breaks no rule."""
    tar = Tar().folder(*ROOTS).symlink("ostree", "sysroot/ostree")
    tar.folder("usr/lib", "usr/lib/ostree")
    return tar.add("usr/lib/ostree/prepare-root.conf", b"[composefs]\nenabled = yes\n")


def write(
    path: Path,
    *layers: bytes,
    labels: Mapping[str, str] | None = None,
    titles: Sequence[str] = (),
    architecture: str = "amd64",
    history: Sequence[Mapping[str, object]] = (),
    tag: str = "image",
) -> str:
    """An image of these layer tars in a layout; returns its reference."""
    layout = Layout.create(path)
    annotations = [{"org.opencontainers.image.title": title} for title in titles]
    annotations += [{} for _ in range(len(layers) - len(titles))]
    descriptors = []
    for layer, extra in zip(layers, annotations, strict=True):
        blob = layout.add(gzip.compress(layer, mtime=0), LAYER_GZIP)
        descriptors.append(Descriptor(LAYER_GZIP, blob.digest, blob.size_bytes, extra))
    diff_ids = tuple(Digest.of(layer) for layer in layers)
    config = ImageConfig(architecture, "linux", "", {"Labels": dict(labels or {})}, diff_ids)
    if history:
        document = {**json.loads(config.to_bytes()), "history": list(history)}
        raw = json.dumps(document).encode()
        described = layout.add(raw, CONFIG)
        manifest = Manifest(described, tuple(descriptors)).to_bytes()
        layout.tag(tag, layout.add(manifest, MANIFEST))
    else:
        layout.tag(tag, write_image(layout, config, descriptors, {}))
    return f"oci:{path}:{tag}"


@contextmanager
def looking(reference: str) -> Iterator[tuple[ImageSource, ImageView]]:
    """An image, open."""
    with open_source(ImageReference.parse(reference), architecture="x86_64") as source:
        yield source, view_of(source, reference)


def files_of(reference: str) -> ImageFiles:
    """Its files."""
    with looking(reference) as image:
        return read_files(*image)


def header(name: str, version: str, files: Sequence[str] = (), arch: str = "x86_64") -> bytes:
    """An installed package's header: as rpm's docs/manual/format_header.md has it."""
    version, _, release = version.partition("-")
    folders = [f"{path.rpartition('/')[0]}/" for path in files]
    values: list[tuple[int, int, int, bytes]] = [
        (1000, 6, 1, name.encode() + b"\0"),
        (1001, 6, 1, version.encode() + b"\0"),
        (1002, 6, 1, (release or "1").encode() + b"\0"),
        (1022, 6, 1, arch.encode() + b"\0"),
    ]
    if files:
        names = b"".join(path.rpartition("/")[2].encode() + b"\0" for path in files)
        values += [
            (1116, 4, len(files), struct.pack(f">{len(files)}I", *range(len(files)))),
            (1117, 8, len(files), names),
            (1118, 8, len(files), b"".join(folder.encode() + b"\0" for folder in folders)),
        ]
    index, store = b"", b""
    for tag, kind, count, data in values:
        store += bytes(-len(store) % 4)
        index += struct.pack(">IIII", tag, kind, len(store), count)
        store += data
    return struct.pack(">II", len(values), len(store)) + index + store


def database(path: Path, *headers: bytes) -> bytes:
    """The bytes of an rpmdb.sqlite."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(of,) for of in headers])
    return path.read_bytes()


def pkglist(*rows: Sequence[str]) -> bytes:
    """A meta.json."""
    return json.dumps({"rpmdb.pkglist": [list(row) for row in rows]}).encode()
