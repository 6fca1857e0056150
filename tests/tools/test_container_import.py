"""Import: what was encapsulated comes back bit by bit, layers above it are laid over it.

Derived layers are written by the standard library's tarfile, so that no code of ours is on both
sides; what came out is read by the real `ostree`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from strata.container.encapsulate import ComponentMap, Options, encapsulate
from strata.container.importer import ImportResult, import_image
from strata.container.layers import write_image
from strata.container.packing import Component, pack
from strata.container.selinux import policy_of, relabel
from strata.core.errors import (
    DigestError,
    ImageError,
    ObjectError,
    StrataError,
    TransportError,
)
from strata.core.events import Event, Reporter, Warned, silent
from strata.core.process import run
from strata.oci.compression import Readable
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import (
    LAYER,
    LAYER_GZIP,
    LAYER_ZSTD,
    Descriptor,
    ImageConfig,
    Manifest,
)
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource, open_source
from strata.ostree.checkout import checkout
from strata.ostree.gvariant import Variant
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory, commit_tree, scan
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

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
        reporter: Reporter | None = None,
    ) -> ImportResult:
        with open_source(self.reference(tag), architecture="x86_64") as source:
            return import_image(
                wrap(source) if wrap else source,
                repo,
                reference=reference or self.reference(tag),
                reporter=reporter or silent(),
            )


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
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


@dataclass
class Tar:
    """A layer written by tarfile."""

    buffer: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self.tar = tarfile.TarFile(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(
        self,
        name: str,
        data: bytes | None = None,
        *,
        kind: bytes = tarfile.REGTYPE,
        target: str = "",
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        pax: Mapping[str, str] | None = None,
    ) -> Tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, target, mode
        info.uid, info.gid, info.mtime = uid, gid, mtime
        info.pax_headers = dict(pax or {})
        info.size = len(data or b"")
        self.tar.addfile(info, io.BytesIO(data or b""))
        return self

    def folder(self, name: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Tar:
        return self.add(name, kind=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)

    def symlink(self, name: str, target: str) -> Tar:
        return self.add(name, kind=tarfile.SYMTYPE, target=target, mode=0o777)

    def link(self, name: str, target: str, mtime: int = 0) -> Tar:
        return self.add(name, kind=tarfile.LNKTYPE, target=target, mtime=mtime)

    def bytes(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()


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


# --- the base ----------------------------------------------------------------------------------


def test_the_base_comes_back_bit_by_bit(lab: Lab) -> None:
    repo = lab.repo()
    result = lab.pull(repo, "base")
    manifest, _ = lab.image(lab.base)
    assert result.base_commit == lab.commit
    assert repo.read_metadata(lab.commit, "commit") == lab.origin.read_metadata(
        lab.commit, "commit"
    )
    assert repo.is_complete(lab.commit)
    assert [layer.kind for layer in result.layers] == ["commit", *["chunk"] * 5]
    assert [layer.fetched_bytes for layer in result.layers] == [
        layer.size_bytes for layer in manifest.layers
    ]
    assert result.manifest_digest == lab.base.digest
    fsck(repo)
    assert listing(repo, result.base_commit) == listing(lab.origin, lab.commit)
    checkout(repo, Tree.load(repo, result.base_commit), str(lab.root / "out"), link=True)
    with writing(lab.origin, sync=False) as writer:
        assert scan(writer, str(lab.root / "out")) == Tree.load(lab.origin, lab.commit)


def test_the_merge_commit_says_what_it_is(lab: Lab) -> None:
    repo = lab.repo()
    result = lab.pull(repo, "base")
    manifest, _ = lab.image(lab.base)

    def value(key: str) -> str:
        shown = run(
            [
                "ostree",
                "show",
                f"--print-metadata-key={key}",
                f"--repo={repo.path}",
                result.merge_commit,
            ]
        ).stdout.strip()
        return shown[1:-1]

    assert value("ostree.manifest-digest") == str(lab.base.digest)
    assert json.loads(value("ostree.manifest").replace('\\"', '"')) == json.loads(
        lab.layout.read(lab.base)
    )
    stored = repo.commit(result.merge_commit).metadata
    assert stored["ostree.container.image-config"].as_text().encode() == lab.layout.read(
        manifest.config
    )
    assert stored["version"].as_text() == "12.9"
    merged, base = repo.commit(result.merge_commit), repo.commit(result.base_commit)
    assert merged.parent == result.base_commit
    assert (merged.root_contents, merged.root_meta) == (base.root_contents, base.root_meta)
    assert merged.timestamp == TIME
    assert merged.subject == merged.body == ""


def test_refs_name_the_image_and_its_layers(lab: Lab) -> None:
    repo = lab.repo()
    reference = ImageReference.parse("docker://example.com/coreos/a_b:latest")
    result = lab.pull(repo, "base", reference=reference)
    refs = repo.refs()
    image = "ostree/container/image/docker_3A__2F__2F_example_2E_com/coreos/a__b_3A_latest"
    assert refs.pop(image) == result.merge_commit
    blobs = {f"ostree/container/blob/sha256_3A_{of.digest.hex}": of.commit for of in result.layers}
    assert refs == blobs
    assert set(run(["ostree", "refs", f"--repo={repo.path}"]).stdout.split()) == {image, *blobs}


def test_a_second_import_fetches_nothing(lab: Lab) -> None:
    repo = lab.repo()
    lab.derive(Tar().add("usr/bin/new", b"new").bytes())
    first = lab.pull(repo)
    before = repo.refs()
    started = time.monotonic()
    watched: list[Watched] = []

    def wrap(source: ImageSource) -> ImageSource:
        watched.append(Watched(source))
        return watched[0]

    second = lab.pull(repo, wrap=wrap)
    assert time.monotonic() - started < 1
    assert watched[0].opened == []
    assert second.fetched_bytes == 0
    assert (second.base_commit, second.merge_commit) == (first.base_commit, first.merge_commit)
    assert repo.refs() == before


def test_two_machines_get_the_same_merge_commit(lab: Lab) -> None:
    lab.derive(Tar().add("usr/bin/new", b"new", mtime=77).bytes())
    assert lab.pull(lab.repo("one")).merge_commit == lab.pull(lab.repo("two")).merge_commit


def test_a_machine_deployed_from_the_base_fetches_only_what_is_above_it(lab: Lab) -> None:
    repo = lab.repo()
    run(["ostree", "pull-local", f"--repo={repo.path}", str(lab.origin.path), lab.commit])
    run(["ostree", "refs", f"--repo={repo.path}", "--create=ostree/0/1/0", lab.commit])
    image = lab.derive(Tar().add("usr/bin/new", b"new").bytes())
    result = lab.pull(repo)
    manifest, _ = lab.image(image)
    assert [layer.fetched_bytes for layer in result.layers[:-1]] == [0] * 6
    assert result.fetched_bytes == manifest.layers[-1].size_bytes
    assert cat(repo, result.merge_commit, "/usr/bin/new") == "new"
    assert repo.resolve("ostree/0/1/0") == lab.commit
    fsck(repo)


def test_of_a_commit_that_is_partial_only_what_lacks_is_fetched(lab: Lab) -> None:
    repo = lab.repo()
    manifest, _ = lab.image(lab.base)
    broken = manifest.layers[3].digest
    with pytest.raises(TransportError, match="the registry went away"):
        lab.pull(repo, "base", wrap=lambda source: Watched(source, broken))
    assert not repo.is_complete(lab.commit)
    assert leftovers(repo) == []
    fsck(repo)
    there = {
        layer.digest
        for layer in manifest.layers
        if f"ostree/container/blob/sha256_3A_{layer.digest.hex}" in repo.refs()
    }
    assert there
    assert broken not in there
    result = lab.pull(repo, "base")
    assert result.base_commit == lab.commit
    assert {layer.digest for layer in result.layers if not layer.fetched_bytes} == there
    assert repo.is_complete(lab.commit)
    fsck(repo)


def test_an_image_that_encapsulates_no_commit_is_its_layers(lab: Lab) -> None:
    """Plain images, and encapsulated ones whose labels a tool took away, import too."""
    manifest, config = lab.image(lab.base)
    lab.write(manifest.layers, config.diff_ids, labels={}, tag="plain")
    repo = lab.repo()
    result = lab.pull(repo, "plain")
    fsck(repo)
    assert result.base_commit == ""
    assert {layer.kind for layer in result.layers} == {"derived"}
    assert repo.commit(result.merge_commit).parent == ""
    before, after = Tree.load(lab.origin, lab.commit), Tree.load(repo, result.merge_commit)
    share = after.folder("usr/share")
    assert share is not None
    del share.dirs["factory"]  # /var/tmp, which every commit layer brings
    assert after.dirs["usr"] == before.dirs["usr"]
    again = lab.pull(repo, "plain")
    assert (again.merge_commit, again.fetched_bytes) == (result.merge_commit, 0)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("[composefs]\nenabled = maybe\n", True),
        ("[root]\ntransient = true\n", True),
        ("[composefs]\nenabled = no\n", False),
        ("nonsense", False),
    ],
)
def test_top_level_folders_stay_where_the_root_takes_them(lab: Lab, text: str, kept: bool) -> None:
    """With composefs or a transient root, /opt of a layer is kept; /var where it is wanted."""
    source = lab.root / "other"
    make_tree(source)
    conf = source / "usr/lib/ostree/prepare-root.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(text)
    with writing(lab.origin, sync=False) as writer:
        commit = commit_directory(lab.origin, writer, str(source), timestamp=TIME)
    lab.base = lab.encapsulate(commit)
    lab.derive(Tar().add("opt/tool/bin", b"tool").add("var/lib/state", b"state").bytes())
    repo = lab.repo()
    with open_source(lab.reference(), architecture="x86_64") as opened:
        result = import_image(
            opened, repo, reference=lab.reference(), keep_var=kept, reporter=silent()
        )
    tree = Tree.load(repo, result.merge_commit)
    assert isinstance(tree.lookup("opt/tool/bin"), str) == kept
    assert isinstance(tree.lookup("var/lib/state"), str) == kept
    assert isinstance(tree.lookup("usr/share/factory/var/lib/state"), str) != kept
    fsck(repo)


CONTEXTS = """\
/.*\tsystem_u:object_r:default_t:s0
/\t-d\tsystem_u:object_r:root_t:s0
/usr(/.*)?\tsystem_u:object_r:usr_t:s0
/usr/bin(/.*)?\tsystem_u:object_r:bin_t:s0
/usr/bin/.*\t-l\tsystem_u:object_r:bin_link_t:s0
/usr/bin/ping\t--\tsystem_u:object_r:ping_exec_t:s0
/etc(/.*)?\tsystem_u:object_r:etc_t:s0
/etc/ssh(/.*)?\tsystem_u:object_r:sshd_etc_t:s0
/mnt(/[^/]*)?\t-d\tsystem_u:object_r:mnt_t:s0
/proc\t-d\tsystem_u:object_r:never_t:s0
/usr/share/doc/.*\t--\t<<none>>
"""


def with_policy(lab: Lab, config: str) -> Path:
    """A base that carries a policy; returns its source tree."""
    source = lab.root / "labelled"
    make_tree(source)
    policy = source / "usr/etc/selinux/sample"
    (policy / "contexts/files").mkdir(parents=True)
    (policy / "contexts/files/file_contexts").write_text(CONTEXTS)
    (policy / "contexts/files/file_contexts.subs_dist").write_text("/usr/etc /etc\n")
    (policy / "policy").mkdir()
    (policy / "policy/policy.33").write_bytes(b"not read by who only labels")
    (source / "usr/etc/selinux/config").write_text(config)
    with writing(lab.origin, sync=False) as writer:
        commit = commit_directory(lab.origin, writer, str(source), timestamp=TIME)
    lab.base = lab.encapsulate(commit)
    return source


def test_a_merged_tree_is_labelled_as_ostree_would(lab: Lab, tmp_path: Path) -> None:
    source = with_policy(lab, "# comment\nSELINUX=enforcing\nSELINUXTYPE=sample\n")
    tar = Tar().add("usr/bin/ping", b"new ping").add("etc/ssh/ssh_config", b"x")
    lab.derive(tar.symlink("usr/bin/link", "ping").bytes())
    repo = lab.repo()
    result = lab.pull(repo)
    fsck(repo)
    (source / "usr/bin/ping").unlink()
    (source / "usr/bin/ping").write_bytes(b"new ping")
    (source / "usr/etc/ssh/ssh_config").write_bytes(b"x")
    (source / "usr/bin/link").symlink_to("ping")
    theirs = f"--repo={tmp_path / 'theirs'}"
    run(["ostree", "init", theirs, "--mode=bare"])
    policy = tmp_path / "policy"
    shutil.copytree(source / "usr/etc", policy / "etc")
    commit = ["ostree", "commit", theirs, "-b", "x", f"--selinux-policy={policy}"]
    run([*commit, f"--tree=dir={source}"])
    expected = run(["ostree", "ls", theirs, "-R", "-C", "-X", "x"]).stdout
    assert "bin_link_t" in expected
    assert "sshd_etc_t" in expected
    ours = f"--repo={repo.path}"
    assert run(["ostree", "ls", ours, "-R", "-C", "-X", result.merge_commit]).stdout == expected
    # What has its label keeps its object: the same again writes nothing.
    with writing(repo, sync=False) as writer:
        tree = Tree.load(repo, result.merge_commit)
        with policy_of(repo, tree) as labels:
            assert labels is not None
            assert relabel(repo, writer, tree, labels) == 0


def test_a_disabled_policy_labels_nothing(lab: Lab) -> None:
    with_policy(lab, "SELINUX=disabled\nSELINUXTYPE=sample\n")
    lab.derive(Tar().add("usr/bin/new", b"new").bytes())
    repo = lab.repo()
    shown = run(["ostree", "ls", f"--repo={repo.path}", "-R", "-X", lab.pull(repo).merge_commit])
    assert "security.selinux" not in shown.stdout


# --- derived layers ----------------------------------------------------------------------------


def derived(lab: Lab, *tars: Tar) -> tuple[Repo, dict[str, str], dict[str, str], ImportResult]:
    """Import the base with these layers: repository, listing before, listing after, result."""
    repo = lab.repo()
    lab.derive(*(tar.bytes() for tar in tars))
    result = lab.pull(repo)
    fsck(repo)
    assert leftovers(repo) == []
    return repo, listing(lab.origin, lab.commit), listing(repo, result.merge_commit), result


def test_files_are_added_replaced_and_removed(lab: Lab) -> None:
    tar = (
        Tar()
        .folder("usr")
        .folder("usr/bin", 0o711, uid=5)
        .add("usr/bin/new", b"new", mode=0o6755, uid=3, gid=4, mtime=5)
        .add("./usr/bin//tool", b"smaller")
        .add("usr/bin/.wh.ping")
        .add("usr/share/.wh.doc")
        .add("usr/share/.wh.never-there")
    )
    repo, before, after, result = derived(lab, tar)
    expected = {
        p: v for p, v in before.items() if not p.startswith(("/usr/share/doc", "/usr/bin/ping"))
    }
    expected["/usr/bin"] = "d00711 5:0"
    expected["/usr/bin/new"] = "-06755 3:4 3"
    expected["/usr/bin/tool"] = "-00644 0:0 7"
    assert after == expected
    assert cat(repo, result.merge_commit, "/usr/bin/tool") == "smaller"
    assert [layer.kind for layer in result.layers] == ["commit", *["chunk"] * 5, "derived"]
    assert result.base_commit == lab.commit


def test_folders_no_entry_describes_keep_the_bases_metadata(lab: Lab) -> None:
    (lab.root / "unused").mkdir()
    _, before, after, _ = derived(lab, Tar().add("tmp/x", b"").add("usr/lib/pkg/inner/n/e/w", b"x"))
    assert after["/tmp"] == before["/tmp"] == "d01777 0:0"
    assert after["/usr/lib/pkg/inner/n/e"] == "d00755 0:0"


def test_an_opaque_folder_hides_what_is_below_but_not_its_own(lab: Lab) -> None:
    for order in (1, -1):
        steps = ["usr/lib/pkg/.wh..wh..opq", "usr/lib/pkg/own"][::order]
        tar = Tar().folder("usr/lib/pkg")
        for step in steps:
            tar.add(step, b"")
        tag = f"order{order}"
        lab.derive(tar.bytes(), tag=tag)
        repo = lab.repo(tag)
        result = lab.pull(repo, tag)
        after = listing(repo, result.merge_commit)
        assert [p for p in after if p.startswith("/usr/lib/pkg/")] == ["/usr/lib/pkg/own"]


def test_an_entry_replaces_what_has_its_name_whatever_it_is(lab: Lab) -> None:
    tar = (
        Tar()
        .folder("usr/lib/alias")  # was a link to a folder
        .add("usr/lib/alias/inside", b"1")
        .add("usr/lib/pkg", b"was a folder")
        .folder("usr/bin/ping")  # was a file
        .add("usr/bin/ping/inside", b"2")
        .symlink("usr/bin/tool", "elsewhere")  # was a file
        .add("usr/bin/sh", b"was a link")
        .symlink("usr/share/doc", "nowhere")  # was a folder
    )
    _, before, after, _ = derived(lab, tar)
    kept = {p: v for p, v in before.items() if not p.startswith(("/usr/lib/pkg", "/usr/share/doc"))}
    assert after == {
        **kept,
        "/usr/lib/alias": "d00755 0:0",
        "/usr/lib/alias/inside": "-00644 0:0 1",
        "/usr/lib/pkg": "-00644 0:0 12",
        "/usr/bin/ping": "d00755 0:0",
        "/usr/bin/ping/inside": "-00644 0:0 1",
        "/usr/bin/tool": "l00777 0:0 0 elsewhere",
        "/usr/bin/sh": "-00644 0:0 10",
        "/usr/share/doc": "l00777 0:0 0 nowhere",
    }


def test_upper_layers_win_and_whiteouts_reach_lower_layers(lab: Lab) -> None:
    one = Tar().add("usr/bin/a", b"1").add("usr/bin/b", b"1").add("etc/c", b"1")
    two = Tar().add("usr/bin/a", b"22").add("usr/bin/.wh.b").add("etc/.wh.c").add("etc/.wh.hosts")
    three = Tar().add("etc/c", b"333")
    _, _, after, _ = derived(lab, one, two, three)
    assert after["/usr/bin/a"].endswith(" 2")
    assert "/usr/bin/b" not in after
    assert after["/usr/etc/c"].endswith(" 3")
    assert "/usr/etc/hosts" not in after


def test_paths_go_where_a_machine_has_them(lab: Lab) -> None:
    events: list[Event] = []
    tar = (
        Tar()
        .folder("etc", 0o750)
        .add("/etc/absolute", b"1")
        .add("etc/ünï-" + "x" * 150, b"2")
        .add("var/lib/state", b"3")
        .folder("run", 0o700)
        .add("run/secrets/key", b"no")
        .add("run/other", b"no")
        .add("tmp/.wh.x")
        .add("opt/app/bin", b"no")
        .add("root/.bashrc", b"no")
        .add("usr/etcetera", b"4")
    )
    repo = lab.repo()
    lab.derive(tar.bytes())
    result = lab.pull(repo, reporter=Reporter(events.append))
    before, after = listing(lab.origin, lab.commit), listing(repo, result.merge_commit)
    assert {p: v for p, v in after.items() if before.get(p) != v} == {
        "/run": "d00700 0:0",
        "/usr/etc": "d00750 0:0",
        "/usr/etc/absolute": "-00644 0:0 1",
        "/usr/etc/ünï-" + "x" * 150: "-00644 0:0 1",
        "/usr/etcetera": "-00644 0:0 1",
        "/usr/share/factory": "d00755 0:0",
        "/usr/share/factory/var": "d00755 0:0",
        "/usr/share/factory/var/lib": "d00755 0:0",
        "/usr/share/factory/var/lib/state": "-00644 0:0 1",
    }
    warnings = [event.message for event in events if isinstance(event, Warned)]
    for name in ("secrets", "other", "opt", "root"):
        assert any(f"1 entries under {name} " in text for text in warnings)
    fsck(repo)


def test_hard_links_are_the_same_object(lab: Lab) -> None:
    tar = (
        Tar()
        .add("usr/bin/one", b"hello", mode=0o755, uid=3)
        .link("usr/bin/two", "usr/bin/one")
        .link("usr/bin/three", "./usr/bin/two")  # a chain, which libostree refuses
        .link("usr/bin/four", "/usr/bin/three")
        .add("etc/new", b"etc")
        .link("etc/relative", "etc/new")
        .link("etc/absolute", "/etc/new")
        .link("usr/lib/from-base", "usr/lib/pkg/a")
        .link("usr/lib/etc-from-base", "etc/hosts")
        .symlink("usr/lib/sym", "pkg")
        .link("usr/lib/sym-again", "usr/lib/sym")
    )
    repo, _, after, result = derived(lab, tar)
    tree = Tree.load(repo, result.merge_commit)
    for paths in (
        ("usr/bin/one", "usr/bin/two", "usr/bin/three", "usr/bin/four"),
        ("usr/etc/new", "usr/etc/relative", "usr/etc/absolute"),
        ("usr/lib/pkg/a", "usr/lib/from-base"),
        ("usr/etc/hosts", "usr/lib/etc-from-base"),
        ("usr/lib/sym", "usr/lib/sym-again"),
    ):
        assert len({tree.lookup(path) for path in paths}) == 1
        assert tree.lookup(paths[0])
    assert after["/usr/bin/four"] == "-00755 3:0 5"


def test_links_into_the_images_own_store_become_files(lab: Lab) -> None:
    """What container tools write when a file changes that the base holds as a link to an object."""
    store = "sysroot/ostree/repo/objects/ab/" + "c" * 62 + ".file"
    tar = (
        Tar()
        .add(store, b"hello", mtime=5, mode=0o755)
        .link("usr/bin/one", store, mtime=5)
        .link("usr/bin/two", store, mtime=5)
    )
    repo, before, after, result = derived(lab, tar)
    assert {p for p in after if p not in before} == {"/usr/bin/one", "/usr/bin/two"}
    assert cat(repo, result.merge_commit, "/usr/bin/two") == "hello"


def test_extended_attributes_are_kept_in_order(lab: Lab) -> None:
    pax = {
        "SCHILY.xattr.user.z": "last",
        "SCHILY.xattr.user.empty": "",
        "SCHILY.xattr.security.b": "cap",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    tar = Tar().add("usr/bin/x", b"x", pax=pax)
    tar.add("usr/lib/pkg", kind=tarfile.DIRTYPE, mode=0o755, pax=pax)
    repo, _, _, result = derived(lab, tar)
    tree = Tree.load(repo, result.merge_commit)
    kept = ((b"security.b", b"cap"), (b"user.z", b"last"))
    checksum = tree.lookup("usr/bin/x")
    assert isinstance(checksum, str)
    assert repo.header(checksum).xattrs == kept
    folder = tree.folder("usr/lib/pkg")
    assert folder is not None
    assert folder.meta.xattrs == kept


def test_empty_files_container_tools_mount_over_are_left_out(lab: Lab) -> None:
    tar = Tar().add("etc/hostname", b"").add("etc/resolv.conf", b"").add("etc/hosts", b"")
    _, _, after, _ = derived(lab, tar)
    assert "/usr/etc/hostname" not in after
    assert "/usr/etc/resolv.conf" not in after
    assert after["/usr/etc/hosts"].endswith(" 0")


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("media_type", "pack"),
    [
        (LAYER, bytes),
        (LAYER_GZIP, gzip.compress),
        (LAYER_GZIP, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:])),
        (LAYER_ZSTD, _zstd),
        (LAYER_ZSTD, lambda data: _zstd(data) + b"\x50\x2a\x4d\x18\x04\0\0\0skip"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress),
        ("application/vnd.docker.image.rootfs.diff.tar", bytes),
    ],
    ids=["tar", "gzip", "gzip members", "zstd", "zstd skippable", "docker gzip", "docker tar"],
)
def test_every_compression_of_a_layer_is_read(
    lab: Lab, media_type: str, pack: Callable[[bytes], bytes]
) -> None:
    body = random.Random(1).randbytes(700_000)  # noqa: S311
    tar = Tar().add("usr/bin/new", body).bytes()
    lab.derive(tar, media_type=media_type, pack=pack)
    repo = lab.repo()
    result = lab.pull(repo)
    checksum = Tree.load(repo, result.merge_commit).lookup("usr/bin/new")
    assert isinstance(checksum, str)
    with repo.open_content(checksum) as stream:
        assert stream.read() == body


@pytest.mark.parametrize(
    ("created", "timestamp"),
    [
        ("2024-01-02T03:04:05Z", 1_704_164_645),
        ("2024-01-02T03:04:05.123456789Z", 1_704_164_645),
        ("2024-01-02T05:04:05.5+02:00", 1_704_164_645),
        ("0001-01-01T00:00:00Z", 0),  # what Go writes for no time
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_the_merge_commits_time_is_the_images(lab: Lab, created: str, timestamp: int) -> None:
    lab.derive(created=created)
    repo = lab.repo()
    result = lab.pull(repo)
    assert repo.commit(result.merge_commit).timestamp == timestamp
    fsck(repo)


# --- what is there already ---------------------------------------------------------------------


def test_a_layer_that_was_compressed_anew_is_not_fetched_again(lab: Lab) -> None:
    repo = lab.repo()
    tar = Tar().add("usr/bin/new", b"new").bytes()
    lab.derive(tar)
    first = lab.pull(repo)
    lab.derive(tar, pack=lambda data: gzip.compress(data, 1, mtime=9), tag="again")
    second = lab.pull(repo, "again")
    assert second.layers[-1].digest != first.layers[-1].digest
    assert second.fetched_bytes == 0
    assert second.layers[-1].commit == first.layers[-1].commit


def test_layers_no_image_has_any_more_are_let_go(lab: Lab) -> None:
    repo = lab.repo()
    name = ImageReference.parse("docker://example.com/os:latest")
    lab.derive(Tar().add("usr/bin/new", b"1").bytes(), tag="one")
    lab.derive(Tar().add("usr/bin/new", b"2").bytes(), tag="two")
    first = lab.pull(repo, "one", reference=name)
    kept = lab.pull(repo, "one", reference=ImageReference.parse("docker://example.com/kept:1"))
    second = lab.pull(repo, "two", reference=name)
    blobs = {ref.rpartition("_")[2] for ref in repo.refs("ostree/container/blob/")}
    assert first.layers == tuple(kept.layers) or kept.fetched_bytes == 0
    assert {kept.layers[-1].digest.hex, second.layers[-1].digest.hex} <= blobs
    repo.delete_ref("ostree/container/image/docker_3A__2F__2F_example_2E_com/kept_3A_1")
    lab.pull(repo, "two", reference=name)
    blobs = {ref.rpartition("_")[2] for ref in repo.refs("ostree/container/blob/")}
    assert blobs == {layer.digest.hex for layer in second.layers}
    run(["ostree", "prune", "--refs-only", f"--repo={repo.path}"])
    fsck(repo)
    assert cat(repo, second.merge_commit, "/usr/bin/new") == "2"


def test_layers_of_what_is_deployed_are_kept(lab: Lab) -> None:
    repo = lab.repo()
    lab.derive(Tar().add("usr/bin/new", b"1").bytes(), tag="one")
    lab.derive(Tar().add("usr/bin/new", b"2").bytes(), tag="two")
    name = ImageReference.parse("docker://example.com/os:latest")
    first = lab.pull(repo, "one", reference=name)
    with writing(repo, sync=False) as writer:
        writer.set_ref("ostree/0/1/0", first.merge_commit)
    lab.pull(repo, "two", reference=name)
    blobs = {ref.rpartition("_")[2] for ref in repo.refs("ostree/container/blob/")}
    assert first.layers[-1].digest.hex in blobs


@pytest.mark.parametrize("text", ["null", "{}", "not JSON", None])
def test_images_stored_by_other_tools_do_not_stand_in_the_way(lab: Lab, text: str | None) -> None:
    """Readers must take a configuration that is absent, or `null`."""
    repo = lab.repo()
    metadata = {"ostree.manifest-digest": Variant.text("sha256:" + "0" * 64)}
    manifest, _ = lab.image(lab.base)
    metadata["ostree.manifest"] = Variant.text(manifest.to_bytes().decode())
    if text is not None:
        metadata["ostree.container.image-config"] = Variant.text(text)
    with writing(repo, sync=False) as writer:
        commit = commit_tree(writer, Tree(), timestamp=0, metadata=metadata)
        writer.set_ref("ostree/container/image/other", commit)
    lab.derive(Tar().add("usr/bin/new", b"1").bytes())
    result = lab.pull(repo)
    assert cat(repo, result.merge_commit, "/usr/bin/new") == "1"
    assert repo.resolve("ostree/container/image/other") == commit


# --- hostile and broken ------------------------------------------------------------------------


def refused(lab: Lab, error: type[StrataError], message: str, tag: str = "image") -> StrataError:
    """Import fails with this error; the repository stays valid, and the base imports after."""
    repo = lab.repo(f"node-{tag}")
    with pytest.raises(error, match=message) as raised:
        lab.pull(repo, tag)
    assert "ostree/container/image" not in " ".join(repo.refs())
    assert leftovers(repo) == []
    fsck(repo)
    assert lab.pull(repo, "base").base_commit == lab.commit
    fsck(repo)
    return raised.value


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (Tar().add("usr/../../x", b""), "leaves its root"),
        (Tar().add("../usr/x", b""), "leaves its root"),
        (Tar().add("usr/" + "d/" * 300 + "x", b""), "too deep"),
        (Tar().add("usr/bin/dev", kind=tarfile.CHRTYPE), "/usr/bin/dev in a layer is a device"),
        (Tar().add("usr/bin/pipe", kind=tarfile.FIFOTYPE), "/usr/bin/pipe in a layer is a device"),
        (Tar().link("usr/bin/x", "usr/bin/missing"), "points to /usr/bin/missing"),
        (Tar().link("usr/bin/x", "usr/bin/x"), "points to /usr/bin/x"),
        (Tar().link("usr/bin/x", "usr/bin"), "points to /usr/bin"),
        (Tar().link("usr/bin/x", "../../etc/passwd"), "leaves its root"),
        (Tar().link("usr/bin/x", "sysroot/ostree/repo/config"), "points to /sysroot"),
        (Tar().add("usr/bin/x", b"", uid=1 << 40), "cannot be the owner"),
        (Tar().add("usr/bin/x", b"", uid=(1 << 32) - 1), "cannot be the owner"),
        (Tar().folder("usr/bin", gid=1 << 40), "cannot be the owner"),
        (Tar().add("usr/bin/x", b"", pax={"SCHILY.xattr.": "v"}), "extended attribute"),
        (Tar().add("usr/bin/x", b"", pax={"SCHILY.xattr.a\0b": "v"}), "extended attribute"),
        (Tar().add("usr/bin/x", b"", pax={"SCHILY.xattr.user.a": "v" * 60_000}), "does not take"),
        (
            Tar().add("usr/x", b"", pax={f"SCHILY.xattr.user.{n}": "v" * 99 for n in range(900)}),
            "does not take",
        ),
        (Tar().add("usr/bin/x", b"", pax={"comment": "v" * (3 << 20)}), "larger than"),
        (Tar().symlink("usr/bin/x", "t" * 5000), "File name too long"),
        (Tar().add("", b"x"), "no name|not a folder"),
    ],
)
def test_layers_that_are_wrong_are_refused(lab: Lab, tar: Tar, message: str) -> None:
    lab.derive(tar.bytes())
    refused(lab, StrataError, message)


def test_names_and_links_that_are_not_utf8_are_refused(lab: Lab) -> None:
    for number, entry in enumerate((b"usr/bin/\xff", b"usr/bin/x")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            info = tarfile.TarInfo(os.fsdecode(entry))
            info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(b"t\xff")
            tar.addfile(info)
        lab.derive(buffer.getvalue(), tag=str(number))
        refused(lab, StrataError, "not UTF-8", str(number))


def test_a_layer_that_is_damaged_is_a_digest_error(lab: Lab) -> None:
    image = lab.derive(Tar().add("usr/bin/new", b"new").bytes(), pack=bytes, media_type=LAYER)
    manifest, _ = lab.image(image)
    path = lab.layout.blob_path(manifest.layers[-1].digest)
    path.write_bytes(path.read_bytes().replace(b"new\0", b"old\0"))
    refused(lab, DigestError, f"layer {manifest.layers[-1].digest} is damaged")


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_base_layer_that_is_damaged_is_a_digest_error(lab: Lab, number: int) -> None:
    manifest, config = lab.image(lab.base)
    digest = manifest.layers[number].digest
    path = lab.layout.blob_path(digest)
    right = path.read_bytes()
    data = bytearray(right)
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    lab.write(manifest.layers, config.diff_ids)
    repo = lab.repo("damaged")
    with pytest.raises(DigestError, match=f"layer {digest} is damaged"):
        lab.pull(repo)
    assert leftovers(repo) == []
    fsck(repo)
    path.write_bytes(right)
    assert lab.pull(repo).base_commit == lab.commit
    fsck(repo)


def test_a_body_that_is_damaged_is_a_digest_error_and_leaves_no_ref(lab: Lab) -> None:
    body = random.Random(3).randbytes(5000)  # noqa: S311
    image = lab.derive(Tar().add("usr/bin/new", body).bytes(), pack=bytes, media_type=LAYER)
    manifest, _ = lab.image(image)
    path = lab.layout.blob_path(manifest.layers[-1].digest)
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    refused(lab, DigestError, f"layer {manifest.layers[-1].digest} is damaged")


@pytest.mark.parametrize("keep", [0, 20, 3000, -1, -600])
@pytest.mark.parametrize("media_type", [LAYER, LAYER_GZIP, LAYER_ZSTD])
def test_a_layer_that_is_cut_off_is_refused(lab: Lab, media_type: str, keep: int) -> None:
    """Cut off before it was given its digest: the digest is right, the tar is not."""
    body = random.Random(3).randbytes(100_000)  # noqa: S311
    packs: dict[str, Callable[[bytes], bytes]]
    packs = {LAYER: bytes, LAYER_GZIP: gzip.compress, LAYER_ZSTD: _zstd}
    pack = packs[media_type]
    whole = Tar().add("usr/bin/new", body).bytes()
    # tarfile pads to records of 10 KiB, which may be missing; the end mark may not.
    end = whole.rstrip(b"\0")
    cut = pack(whole)[:keep] if media_type != LAYER else (whole[:keep] if keep > 0 else end[:keep])
    lab.derive(whole, media_type=media_type, pack=lambda _: cut)
    refused(lab, ImageError, "cut off|damaged")


@pytest.mark.parametrize("media_type", [LAYER_GZIP, LAYER_ZSTD])
def test_a_compression_bomb_is_refused(lab: Lab, media_type: str) -> None:
    """Behind the end of the tar, where nothing else would look at it."""
    tar = Tar().add("usr/bin/new", b"new").bytes()
    zeros = bytes(1 << 20)
    if media_type == LAYER_GZIP:
        deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
        parts = [deflate.compress(tar), *(deflate.compress(zeros) for _ in range(700))]
        blob = b"".join([*parts, deflate.flush()])
    else:
        script = "(cat; head -c 700M /dev/zero) | zstd -q -1 --stdout"
        done = subprocess.run(["bash", "-c", script], input=tar, capture_output=True, check=True)
        blob = done.stdout
    assert len(blob) < 1 << 20
    lab.derive(tar, media_type=media_type, pack=lambda _: blob)
    refused(lab, ImageError, "expands to more than 200 times its size")


def test_a_layer_of_endless_headers_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.oci.tar.MAX_HEADERS", 3000)
    tar = Tar()
    for number in range(3001):
        tar.folder(f"usr/{number}")
    lab.derive(tar.bytes())
    repo = lab.repo("endless")
    with pytest.raises(ImageError, match="more than 3000 headers"):
        lab.pull(repo)
    assert leftovers(repo) == []
    fsck(repo)


def test_of_entries_that_stand_twice_the_last_one_counts(lab: Lab) -> None:
    tar = Tar().add("usr/bin/x", b"first").folder("usr/y").add("usr/y/z", b"z")
    lab.derive(tar.add("usr/bin/x", b"second").symlink("usr/y", "bin").bytes())
    repo = lab.repo()
    commit = lab.pull(repo).merge_commit
    fsck(repo)
    assert cat(repo, commit, "/usr/bin/x") == "second"
    tree = Tree.load(repo, commit)
    assert isinstance(tree.lookup("usr/y"), str)


def test_a_layer_with_another_diff_id_is_refused(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    tar = Tar().add("usr/bin/new", b"evil").bytes()
    claimed = Digest.of(Tar().add("usr/bin/new", b"good").bytes())
    layer = lab.layout.add(gzip.compress(tar), LAYER_GZIP)
    lab.write((*manifest.layers, layer), (*config.diff_ids, claimed))
    refused(lab, DigestError, "diff-id")


def test_labels_that_do_not_hold_are_refused(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    right = config.labels
    other = "0" * 64
    cases: list[tuple[dict[str, str], type[StrataError], str]] = [
        ({**right, "ostree.final-diffid": f"sha256:{other}"}, ImageError, "not one of its layers"),
        ({**right, "ostree.final-diffid": "sha256:zz"}, ImageError, "is not a sha256 digest"),
        ({**right, "ostree.commit": other}, ImageError, "does not hold the commit"),
        ({**right, "ostree.commit": "../../x"}, StrataError, "is not a checksum"),
        (
            {**right, "ostree.final-diffid": str(config.diff_ids[2])},
            StrataError,
            "lacks the object|not there|out of place",
        ),
    ]
    for number, (labels, error, message) in enumerate(cases):
        lab.write(manifest.layers, config.diff_ids, labels=labels, tag=str(number))
        refused(lab, error, message, str(number))


def test_an_object_with_other_bytes_than_its_name_says_is_refused(lab: Lab) -> None:
    """The blob's digest is right: the image was made this way."""
    manifest, config = lab.image(lab.base)
    for number, old in enumerate((b"127.0.0.1", b"subject")):
        layers, diff_ids = list(manifest.layers), list(config.diff_ids)
        for position, layer in enumerate(layers):
            tar = gzip.decompress(lab.layout.blob_path(layer.digest).read_bytes())
            if old == b"subject" and position == 0:
                changed = tar.replace(b"base\0", b"evil\0", 1)
            else:
                changed = tar.replace(old, b"x" * len(old), 1)
            layers[position] = lab.layout.add(gzip.compress(changed), LAYER_GZIP)
            diff_ids[position] = Digest.of(changed)
        labels = {**config.labels, "ostree.final-diffid": str(diff_ids[-1])}
        lab.write(layers, diff_ids, labels=labels, tag=str(number))
        refused(lab, DigestError, "does not have its checksum", str(number))


def test_a_chunk_that_is_missing_is_named_by_a_path(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    lab.write(
        (*manifest.layers[:2], *manifest.layers[3:]),
        (*config.diff_ids[:2], *config.diff_ids[3:]),
    )
    refused(lab, ObjectError, "the image lacks the object of /usr/")


def test_another_number_of_diff_ids_is_refused(lab: Lab) -> None:
    manifest, config = lab.image(lab.base)
    lab.write(manifest.layers, config.diff_ids[:-1])
    refused(lab, ImageError, "6 layers and 5 diff-ids")


# --- interruption ------------------------------------------------------------------------------

_SLOWLY = """
import sys, time
from pathlib import Path
from contextlib import contextmanager
from strata.container.importer import import_image
from strata.core.events import silent
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo

class Slow:
    def __init__(self, stream): self.stream = stream
    def read(self, size=-1):
        time.sleep(0.002)
        return self.stream.read(200)

class Source:
    def __init__(self, source): self.source = source
    def __getattr__(self, name): return getattr(self.source, name)
    @contextmanager
    def open_layer(self, layer):
        with self.source.open_layer(layer) as stream:
            yield Slow(stream)

reference = ImageReference.parse(sys.argv[2])
print("begin", flush=True)
with open_source(reference, architecture="x86_64") as source:
    repo = Repo.open(Path(sys.argv[1]))
    import_image(Source(source), repo, reference=reference, reporter=silent())
print("end", flush=True)
"""
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.soak)])
def test_an_import_killed_at_any_time_goes_on_in_the_next(lab: Lab, times: int) -> None:
    body = random.Random(5).randbytes(60_000)  # noqa: S311
    lab.derive(*(Tar().add(f"usr/bin/new{n}", body + b"%d" % n).bytes() for n in range(3)))
    whole = lab.pull(lab.repo("whole"))
    repo = lab.repo()
    chance = random.Random(11)  # noqa: S311
    killed = 0
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", _SLOWLY, str(repo.path), str(lab.reference())],
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        time.sleep(0.05 + chance.random() * 0.9)
        if process.poll() is None:
            killed += 1
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        fsck(repo)
    assert killed >= times // 3
    result = lab.pull(repo)
    assert (result.base_commit, result.merge_commit) == (whole.base_commit, whole.merge_commit)
    assert result.fetched_bytes < whole.fetched_bytes
    assert leftovers(repo) == []
    assert repo.refs() == lab.repo("whole").refs()
    assert list((repo.path / "state").iterdir()) == []
    fsck(repo)


_MEASURED = """
import sys
from pathlib import Path
from strata.container.importer import import_image
from strata.core.events import silent
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.ostree.writer import writing
reference = ImageReference.parse(sys.argv[2])
with open_source(reference, architecture="x86_64") as source:
    import_image(source, Repo.open(Path(sys.argv[1])), reference=reference, reporter=silent())
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


def test_memory_does_not_grow_with_the_layers(lab: Lab) -> None:
    tars = [Tar().add(f"usr/lib/big{n}", bytes([n]) * (192 << 20)).bytes() for n in range(2)]
    lab.derive(*tars, pack=lambda data: gzip.compress(data, 1))
    done = run(
        [sys.executable, "-c", _MEASURED, str(lab.repo().path), str(lab.reference())],
        env={"PYTHONPATH": _ENVIRONMENT["PYTHONPATH"]},
    )
    assert int(done.stdout) / 1024 < 100


def test_the_digest_of_every_file_is_that_of_its_source(lab: Lab) -> None:
    """End to end, by another road: sha256 of what `ostree checkout` writes."""
    repo = lab.repo()
    result = lab.pull(repo, "base")
    run(
        [
            "ostree",
            "checkout",
            "-C",
            f"--repo={repo.path}",
            result.merge_commit,
            str(lab.root / "o"),
        ]
    )

    def sums(root: Path) -> dict[str, str]:
        return {
            str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in root.rglob("*")
            if p.is_file() and not p.is_symlink()
        }

    assert sums(lab.root / "o") == sums(lab.root / "source")
