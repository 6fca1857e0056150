"""Transports against the real tools: archives, other tools' stores, registries, policies."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import run_strata
from layertar import Tar
from registry import ADDRESS, Registry
from strata.core.errors import SignatureError, StrataError, TransportError
from strata.oci.archive import Archive, write_archive
from strata.oci.digest import Digest
from strata.oci.indexes import blobs_of
from strata.oci.layout import Layout
from strata.oci.model import (
    CONFIG,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)
from strata.oci.reference import BY_POLICY, ImageReference, SignaturePolicy
from strata.oci.source import open_source

pytestmark = pytest.mark.tools


LAYERS = (
    Tar().add("etc/hello", b"hello\n").add("big", os.urandom(300_000)).bytes(),
    Tar().add("etc/other", b"other\n").bytes(),
)


def image(layout: Layout, architecture: str, *tars: bytes) -> Descriptor:
    """A real image of these layers."""
    layers = tuple(layout.add(gzip.compress(tar, mtime=0), LAYER_GZIP) for tar in tars)
    diff_ids = tuple(Digest.of(tar) for tar in tars)
    config = ImageConfig(architecture, "linux", "2024-01-02T03:04:05Z", {}, diff_ids)
    described = layout.add(config.to_bytes(), CONFIG)
    made = layout.add(Manifest(described, layers).to_bytes(), MANIFEST)
    return Descriptor(MANIFEST, made.digest, made.size_bytes, {}, Platform("linux", architecture))


@dataclass
class Images:
    """A layout with one image (`one`) and an index of two (`both`), and a folder beside it."""

    layout: Layout
    one: Descriptor
    both: Descriptor
    folder: Path

    def reference(self, tag: str) -> str:
        return f"oci:{self.layout.path}:{tag}"

    def digests(self, layout: Layout, tag: str) -> set[Digest]:
        """All blobs of an image of any layout, read and checked."""
        blobs = blobs_of(layout, layout.resolve(tag))
        for blob in blobs:
            layout.read(blob)
        return {blob.digest for blob in blobs}


@pytest.fixture
def images(tmp_path: Path) -> Images:
    layout = Layout.create(tmp_path / "layout")
    one = image(layout, "amd64", *LAYERS)
    index = Index((one, image(layout, "mars64", LAYERS[1])), {"k": "v"})
    both = layout.add(index.to_bytes(), INDEX)
    layout.tag("one", one)
    layout.tag("both", both)
    return Images(layout, one, both, tmp_path)


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def content(reference: str, architecture: str = "x86_64") -> list[bytes]:
    """The layers' tars, as this transport gives them."""
    parsed = ImageReference.parse(reference)
    tars = []
    with open_source(parsed, architecture=architecture) as source:
        for layer in source.manifest.layers:
            with source.open_layer(layer) as stream:
                data = b""
                while chunk := stream.read(1 << 16):
                    data += chunk
            tars.append(gzip.decompress(data) if layer.media_type == LAYER_GZIP else data)
    return tars


# --- archives ------------------------------------------------------------------------------------


def test_skopeo_reads_the_archives_we_write(images: Images) -> None:
    path = images.folder / "x.tar"
    write_archive(path, images.layout, images.one, "os/4.19")
    raw = skopeo("inspect", "--raw", f"oci-archive:{path}:os/4.19")
    assert Digest.of(raw.encode()) == images.one.digest
    assert json.loads(skopeo("inspect", f"oci-archive:{path}"))["Architecture"] == "amd64"
    skopeo("copy", "-q", "--preserve-digests", f"oci-archive:{path}", f"dir:{images.folder}/dir")
    manifest = (images.folder / "dir/manifest.json").read_bytes()
    assert Digest.of(manifest) == images.one.digest


def test_skopeo_reads_a_whole_index_from_an_archive(images: Images) -> None:
    path = images.folder / "x.tar"
    write_archive(path, images.layout, images.both, "both")
    target = images.folder / "back"
    skopeo("copy", "-q", "--all", "--preserve-digests", f"oci-archive:{path}", f"oci:{target}:x")
    back = Layout.open(target)
    assert back.resolve("x").digest == images.both.digest
    assert images.digests(back, "x") == images.digests(images.layout, "both")


def test_we_read_the_archives_skopeo_writes(images: Images) -> None:
    path = images.folder / "x.tar"
    skopeo("copy", "-q", images.reference("one"), f"oci-archive:{path}:os/4.19")
    with Archive(path) as archive:
        assert archive.resolve("os/4.19").digest == images.one.digest
    assert content(f"oci-archive:{path}:os/4.19") == list(LAYERS)


@pytest.mark.parametrize("transport", ["dir", "docker-archive"])
def test_other_files_are_read(images: Images, transport: str) -> None:
    name = f"{transport}:{images.folder}/x"
    skopeo("copy", "-q", images.reference("one"), name)
    assert content(name) == list(LAYERS)


# --- other tools' stores -------------------------------------------------------------------------


@pytest.fixture
def podman_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of podman's and skopeo's own, in a folder of the test; gives that of copies."""
    root = tmp_path / "storage"
    config = tmp_path / "storage.conf"
    config.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{root}/graph"\nrunroot = "{root}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(config))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield temporary
    assert list(temporary.iterdir()) == []  # no copy stays behind


def output(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_an_image_of_podmans_store_is_read(images: Images, podman_store: Path) -> None:
    skopeo("copy", "-q", images.reference("one"), "containers-storage:localhost/os:4.19")
    listed = output("podman", "images", "--format", "{{.Repository}}:{{.Tag}}")
    assert listed == "localhost/os:4.19"
    assert content("containers-storage:localhost/os:4.19") == list(LAYERS)


def test_an_image_that_buildah_made_is_read(images: Images, podman_store: Path) -> None:
    skopeo("copy", "-q", images.reference("one"), "containers-storage:localhost/os:4.19")
    container = output("buildah", "from", "--pull-never", "localhost/os:4.19")
    added = images.folder / "added"
    added.write_text("added\n")
    output("buildah", "copy", container, str(added), "/etc/added")
    output("buildah", "commit", "-q", container, "localhost/derived")
    output("buildah", "rm", container)
    tars = content("containers-storage:localhost/derived")
    assert tars[:2] == list(LAYERS)
    with tarfile.open(fileobj=io.BytesIO(tars[2])) as tar:
        member = tar.extractfile("etc/added")
        assert member is not None
        assert member.read() == b"added\n"


def test_a_copy_that_fails_leaves_nothing(images: Images, podman_store: Path) -> None:
    with pytest.raises(TransportError, match="containers-storage:localhost/no"):
        content("containers-storage:localhost/no")
    skopeo("copy", "-q", images.reference("one"), "containers-storage:localhost/os:4.19")
    with pytest.raises(StrataError, match="is for amd64, not for s390x"):
        content("containers-storage:localhost/os:4.19", "s390x")
    parsed = ImageReference.parse("containers-storage:localhost/os:4.19")
    with pytest.raises(ValueError, match="stop"):
        with open_source(parsed, architecture="x86_64"):
            assert len(list(podman_store.iterdir())) == 1
            raise ValueError("stop")


def test_a_daemon_that_is_not_there_says_so(
    podman_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{podman_store}/no.sock")
    with pytest.raises(TransportError, match="docker-daemon:x:y"):
        content("docker-daemon:x:y")


# --- policies ------------------------------------------------------------------------------------


def open_signed(reference: str) -> None:
    parsed = ImageReference.parse(reference)
    with open_source(parsed, architecture="x86_64", signature=SignaturePolicy(BY_POLICY)) as source:
        with source.open_layer(source.manifest.layers[0]):
            pass


def test_a_policy_is_enforced_wherever_the_image_is(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = images.folder / "x.tar"
    write_archive(archive, images.layout, images.one, "one")
    skopeo("copy", "-q", images.reference("one"), f"dir:{images.folder}/dir")
    skopeo("copy", "-q", images.reference("one"), f"docker-archive:{images.folder}/d.tar:x/y:z")
    names = [
        *(images.reference("one"), images.reference("both")),
        f"oci-archive:{archive}:one",
        *(f"dir:{images.folder}/dir", f"docker-archive:{images.folder}/d.tar"),
    ]
    policy = images.folder / "policy.json"
    monkeypatch.setenv("CONTAINERS_POLICY_JSON", str(policy))
    reject, accept = [{"type": "reject"}], [{"type": "insecureAcceptAnything"}]
    for name in names:
        policy.write_text(json.dumps({"default": accept}))
        with pytest.raises(SignatureError, match="accepts everything"):
            open_signed(name)
        policy.write_text(json.dumps({"default": reject}))
        with pytest.raises(SignatureError, match="the signature policy of this machine refuses it"):
            open_signed(name)
        allowed = {name.partition(":")[0]: {"": accept}}
        policy.write_text(json.dumps({"default": reject, "transports": allowed}))
        open_signed(name)


# --- registries ----------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as served:
        served.start()
        yield served


def strata(registry: Registry, folder: Path, *arguments: str, **env: str) -> dict[str, object]:
    """The command in the registry's network, with a configuration of skopeo's; its JSON."""
    config = folder / ".config/containers/registries.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[[registry]]\nlocation = "{ADDRESS}"\ninsecure = true\n')
    command = str(Path(sys.executable).with_name("strata"))
    done = subprocess.run(
        registry.inside(command, *arguments, "--json"),
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(folder), **env},
        check=False,
    )
    text = done.stderr.splitlines()[-1] if done.returncode else done.stdout
    document: dict[str, object] = json.loads(text)
    return document


@pytest.mark.parametrize("tag", ["one", "both"])
def test_an_image_travels_to_a_registry_and_back_unchanged(
    images: Images, registry: Registry, tag: str
) -> None:
    every = ("--all",) if tag == "both" else ()
    there = f"docker://{ADDRESS}/sample/os:{tag}"
    pushed = strata(registry, images.folder, "image", "copy", *every, images.reference(tag), there)
    expected = images.layout.resolve(tag).digest
    assert pushed["digest"] == str(expected)
    assert (pushed["images"], pushed["layers"]) == ((2, 2) if every else (1, 2))
    back = images.folder / "back"
    archive = images.folder / "back.tar"
    for target in (f"oci:{back}:x", f"oci-archive:{archive}:x"):
        copied = strata(registry, images.folder, "image", "copy", *every, there, target)
        assert copied["digest"] == str(expected)
        assert copied["size"] == pushed["size"]
    assert images.digests(Layout.open(back), "x") == images.digests(images.layout, tag)
    with Archive(archive) as read:
        assert {b.digest for b in blobs_of(read, read.resolve("x"))} == images.digests(
            images.layout, tag
        )
    shown = strata(registry, images.folder, "image", "index", "show", there)
    if every:
        assert shown["annotations"] == {"k": "v"}
    else:
        assert shown["code"] == "image"


def test_a_layout_that_travels_by_digest_and_one_image_of_an_index(
    images: Images, registry: Registry
) -> None:
    there = f"docker://{ADDRESS}/sample/os"
    by_digest = f"oci:{images.layout.path}@{images.one.digest}"
    pushed = strata(registry, images.folder, "image", "copy", by_digest, f"{there}:digest")
    assert pushed["digest"] == str(images.one.digest)
    mars = strata(
        registry,
        images.folder,
        *("image", "copy", "--arch", "mars64", images.reference("both"), f"{there}:mars"),
    )
    entries = Index.parse(images.layout.read(images.both)).manifests
    assert mars["digest"] == str(entries[1].digest)


def test_what_was_copied_is_said_wherever_it_went(images: Images, podman_store: Path) -> None:
    folder = images.folder
    for target, kept in (
        (f"dir:{folder}/dir", True),
        ("containers-storage:localhost/os:4.19", True),
        (f"docker-archive:{folder}/d.tar:registry.example/os:4.19", False),
    ):
        done = run_strata("image", "copy", images.reference("one"), target, "--json")
        document = json.loads(done.stdout)
        assert (document["images"], document["layers"]) == (1, 2)
        assert document["size"] > 300_000
        assert (document["digest"] == str(images.one.digest)) is kept
        assert content(target.replace(":registry.example/os:4.19", "")) == list(LAYERS)


def test_a_policy_is_enforced_on_a_registrys_image(images: Images, registry: Registry) -> None:
    there = f"docker://{ADDRESS}/sample/os:one"
    strata(registry, images.folder, "image", "copy", images.reference("one"), there)
    policy = images.folder / "policy.json"
    reject, accept = [{"type": "reject"}], [{"type": "insecureAcceptAnything"}]
    documents = (
        ({"default": accept}, "signature"),
        ({"default": reject}, "signature"),
        ({"default": reject, "transports": {"docker": {ADDRESS: accept}}}, None),
    )
    repository = images.folder / "repo"
    output("ostree", f"--repo={repository}", "init", "--mode=bare-user")
    for document, code in documents:
        policy.write_text(json.dumps(document))
        env = {"CONTAINERS_POLICY_JSON": str(policy)}
        done = strata(
            registry,
            images.folder,
            *("image", "import", f"ostree-image-signed:{there}", "--repo", str(repository)),
            **env,
        )
        assert done.get("code") == code, done


def test_what_cannot_be_copied_says_why(images: Images, registry: Registry) -> None:
    there = f"docker://{ADDRESS}/sample/no:such"
    failed = strata(registry, images.folder, "image", "copy", there, f"oci:{images.folder}/x:y")
    assert failed["message"] == f"{there}: there is no such image"
    remote = f"ostree-remote-image:keys:{there}"
    failed = strata(registry, images.folder, "image", "copy", remote, f"oci:{images.folder}/x:y")
    assert failed["code"] == "signature"
