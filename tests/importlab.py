"""Images to import, made in a folder: a small system's commit, its image, layers above it.

Derived layers are written by the standard library's tarfile, so that no code of ours is on both
sides; what came out is read by the real `ostree`.
"""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.container.encapsulate import ComponentMap, Options, encapsulate
from strata.container.importer import import_image
from strata.container.importplan import ImportResult
from strata.container.layers import write_image
from strata.container.packing import Component, pack
from strata.core.errors import TransportError
from strata.core.events import Reporter, silent
from strata.core.process import run
from strata.core.streams import Readable
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import LAYER_GZIP, Descriptor, ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource, open_source
from strata.ostree.gvariant import Variant
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.writer import writing

TIME = 1_700_000_000
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

# --- making images -----------------------------------------------------------------------------


def make_tree(root: Path) -> None:
    """A small system: /usr/etc, links, an attribute, owners, empty files."""
    for folder in (
        "usr/etc/ssh",
        "usr/bin",
        "usr/lib/pkg/inner",
        "usr/share/doc",
        "var",
        "sysroot",
    ):
        (root / folder).mkdir(parents=True)
    for name in ("boot", "dev", "proc", "run", "sys", "tmp"):
        (root / name).mkdir()
    (root / "usr/etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "usr/etc/ssh/sshd_config").write_text("Port 22\n")
    (root / "usr/bin/tool").write_bytes(b"\x7fELF" + bytes(range(256)) * 40)
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "usr/bin/ping").write_text("ping")
    os.setxattr(root / "usr/bin/ping", "security.capability", CAPABILITY)
    (root / "usr/bin/sh").symlink_to("tool")
    (root / "usr/lib/pkg/a").write_text("a")
    (root / "usr/lib/pkg/b").write_text("b")
    (root / "usr/lib/pkg/inner/c").write_text("c")
    (root / "usr/lib/alias").symlink_to("pkg")
    (root / "usr/share/doc/empty").write_bytes(b"")
    (root / "usr/share/doc/ünï").write_text("ü" * 3000)
    os.chown(root / "usr/share/doc/ünï", 7, 8)
    (root / "tmp").chmod(0o1777)
    (root / "etc").symlink_to("usr/etc")
    (root / "etc").unlink()


def owner_of(path: str, checksum: Checksum) -> str:
    """One component per second-level folder."""
    return path.split("/")[2]


_NONE = Descriptor("", Digest("0" * 64), 0)


@dataclass
class Lab:
    """A folder with a base image in a layout, and derived images added to it."""

    root: Path
    layout: Layout
    origin: Repo
    commit: Checksum
    base: Descriptor

    def repo(self, name: str = "node") -> Repo:
        return Repo.init(self.root / name)

    def image(self, descriptor: Descriptor) -> tuple[Manifest, ImageConfig]:
        manifest = Manifest.parse(self.layout.read(descriptor))
        return manifest, ImageConfig.parse(self.layout.read(manifest.config))

    def derive(
        self,
        *tars: bytes,
        media_type: str = LAYER_GZIP,
        pack: Callable[[bytes], bytes] = gzip.compress,
        created: str = "2024-01-02T03:04:05Z",
        tag: str = "image",
    ) -> Descriptor:
        """An image of the base and these layers, tagged."""
        manifest, config = self.image(self.base)
        added = [self.layout.add(pack(tar), media_type) for tar in tars]
        diff_ids = [Digest.of(tar) for tar in tars]
        return self.write(
            (*manifest.layers, *added), (*config.diff_ids, *diff_ids), created=created, tag=tag
        )

    def write(
        self,
        layers: Sequence[Descriptor],
        diff_ids: Sequence[Digest],
        *,
        labels: Mapping[str, str] | None = None,
        created: str = "2024-01-02T03:04:05Z",
        tag: str = "image",
    ) -> Descriptor:
        _, config = self.image(self.base)
        inner = {"Labels": config.labels if labels is None else dict(labels)}
        new = ImageConfig(config.architecture, "linux", created, inner, tuple(diff_ids))
        descriptor = write_image(self.layout, new, layers, {})
        self.layout.tag(tag, descriptor)
        return descriptor

    def encapsulate(self, commit: Checksum) -> Descriptor:
        """The image of a commit of the origin, one component per second-level folder."""
        names = ("etc", "bin", "lib", "share")
        components = ComponentMap({n: Component(n, n, n, 1, 0) for n in names}, owner_of)
        with silent().step("encapsulate") as step:
            return encapsulate(
                self.origin,
                commit,
                self.layout,
                components,
                Options("x86_64"),
                packing=pack,
                step=step,
            )

    def reference(self, tag: str = "image") -> ImageReference:
        return ImageReference("oci", str(self.layout.path), tag)

    def pull(
        self,
        repo: Repo,
        tag: str = "image",
        *,
        reference: ImageReference | None = None,
        wrap: Callable[[ImageSource], ImageSource] | None = None,
        signed_by: str = "",
        reporter: Reporter | None = None,
    ) -> ImportResult:
        with open_source(self.reference(tag), architecture="x86_64") as source:
            return import_image(
                wrap(source) if wrap else source,
                repo,
                reference=reference or self.reference(tag),
                signed_by=signed_by,
                reporter=reporter or silent(),
            )


def make_lab(tmp_path: Path) -> Lab:
    """The base in a layout, and the repository it came from."""
    source = tmp_path / "source"
    make_tree(source)
    origin = Repo.init(tmp_path / "origin")
    with writing(origin, sync=False) as writer:
        metadata = {"version": Variant.text("12.9"), "ostree.bootable": Variant.flag(True)}
        commit = commit_directory(
            origin, writer, str(source), timestamp=TIME, subject="base", metadata=metadata
        )
        writer.set_ref("base", commit)
    layout = Layout.create(tmp_path / "layout")
    base = Lab(tmp_path, layout, origin, commit, _NONE).encapsulate(commit)
    layout.tag("base", base)
    return Lab(tmp_path, layout, origin, commit, base)


# --- looking at results ------------------------------------------------------------------------


def fsck(repo: Repo) -> None:
    run(["ostree", "fsck", "-q", f"--repo={repo.path}"])


def listing(repo: Repo, commit: str) -> dict[str, str]:
    """What `ostree ls` says: path → mode, owner, size and, for links, the target."""
    lines = run(["ostree", "ls", "-R", f"--repo={repo.path}", commit]).stdout.splitlines()
    found = {}
    for line in lines:
        mode, uid, gid, size, rest = line.split(None, 4)
        path, _, target = rest.partition(" -> ")
        size = "" if mode[0] == "d" else size
        found[path] = " ".join(part for part in (mode, f"{uid}:{gid}", size, target) if part)
    return found


def cat(repo: Repo, commit: str, path: str) -> str:
    return run(["ostree", "cat", f"--repo={repo.path}", commit, path]).stdout


def leftovers(repo: Repo) -> list[str]:
    return [p.name for p in (repo.path / "tmp").iterdir() if p.name != "cache"]


class Watched:
    """A source that notes which layers are opened, and may break off or go slowly."""

    def __init__(self, source: ImageSource, break_at: Digest | None = None) -> None:
        self._source, self._break_at = source, break_at
        self.manifest, self.manifest_bytes = source.manifest, source.manifest_bytes
        self.manifest_digest, self.config = source.manifest_digest, source.config
        self.config_bytes = source.config_bytes
        self.opened: list[Digest] = []

    @contextmanager
    def open_layer(self, layer: Descriptor) -> Iterator[Readable]:
        self.opened.append(layer.digest)
        with self._source.open_layer(layer) as stream:
            yield _Breaks(stream) if layer.digest == self._break_at else stream


class _Breaks:
    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._once = False

    def read(self, size: int = -1, /) -> bytes:
        if self._once:
            raise TransportError("the registry went away")
        self._once = True
        return self._stream.read(64)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout
