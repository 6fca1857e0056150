"""Images in the hands of other tools: read by podman and umoci, derived further by buildah."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Strata
from importlab import CAPABILITY, Lab, cat, fsck, leftovers
from layertar import Tar
from registry import ADDRESS, Registry
from strata.container.importer import import_image
from strata.core.events import silent
from strata.core.files import mounts_under, remove_tree
from strata.core.process import run
from strata.oci.layout import Layout
from strata.oci.model import LAYER_ZSTD, Manifest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.checkout import checkout
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

pytestmark = pytest.mark.tools

Facts = dict[str, tuple[object, ...]]


def facts(root: Path, place: Callable[[str], str | None]) -> Facts:
    """What every path below a root is: mode, owner, content or target, attributes.

    place: where a path counts as being; None to leave it out, and what is below it.
    """
    found: Facts = {}
    for folder, names, files in os.walk(root):
        inside = [(name, place(os.path.relpath(f"{folder}/{name}", root))) for name in names]
        names[:] = [name for name, placed in inside if placed]
        for name in (*names, *files):
            path = Path(folder, name)
            placed = place(str(path.relative_to(root)))
            if placed is None:
                continue
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            what = b""
            if kind == stat.S_IFLNK:
                what = os.fsencode(os.readlink(path))
            elif kind == stat.S_IFREG:
                what = hashlib.sha256(path.read_bytes()).digest()
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if not key.startswith(("user.rootlesscontainers", "trusted.overlay."))
            }
            mode = 0 if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode)
            owner = (status.st_uid, status.st_gid)
            found[placed] = (kind, mode, owner, what, tuple(sorted(xattrs.items())))
    return found


def of_image(path: str) -> str | None:
    """A path of an image's file system; the repository in it, and the /var/tmp that every image of
    a commit has, are apart."""
    return None if path in ("sysroot/ostree", "ostree", "var/tmp") else path


def of_commit(path: str) -> str | None:
    """A path of a checkout: an image shows /usr/etc as /etc."""
    return path[4:] if path == "usr/etc" or path.startswith("usr/etc/") else path


def derive(lab: Lab) -> None:
    """An image above the base that adds, replaces and removes."""
    lab.derive(
        Tar()
        .add("usr/bin/new", b"new", mode=0o4711, owner=(3, 4), xattrs={"user.a": "b"})
        .add("usr/lib/pkg/.wh.a")
        .add("usr/bin/tool", b"replaced", mode=0o755)
        .bytes(),
        Tar().folder("usr/lib/pkg").add("usr/lib/pkg/.wh..wh..opq").add("usr/lib/pkg/z").bytes(),
    )


def checked_out(lab: Lab, commit: str) -> Path:
    """A commit as the real `ostree` checks it out."""
    where = lab.root / f"checkout-{commit[:8]}"
    run(["ostree", "checkout", "-C", f"--repo={lab.root}/node", commit, str(where)])
    return where


def unpacked(lab: Lab, tag: str) -> Path:
    """An image as umoci unpacks it."""
    image = f"{lab.layout.path}:{tag}"
    run(["umoci", "unpack", "--image", image, str(lab.root / f"bundle-{tag}")])
    return lab.root / f"bundle-{tag}/rootfs"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of the container tools' own, in a folder of the test."""
    config = tmp_path / "storage.conf"
    config.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{tmp_path}/graph"\n'
        f'runroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(config))
    yield config
    # Not `podman system reset`, which may reach beyond this store.
    for mount in mounts_under(tmp_path):
        run(["umount", mount])
    remove_tree(tmp_path / "graph")
    remove_tree(tmp_path / "run")


@pytest.mark.parametrize("tag", ["base", "image"])
def test_a_checkout_is_file_by_file_what_umoci_unpacks(lab: Lab, tag: str) -> None:
    derive(lab)
    result = lab.pull(lab.repo(), tag)
    ours = facts(checked_out(lab, result.merge_commit), of_commit)
    assert facts(unpacked(lab, tag), of_image) == ours
    if tag == "base":
        source = facts(lab.root / "source", of_commit)
        assert ours == source
    else:
        assert ours["usr/bin/new"][1] == 0o4711
        assert [path for path in ours if path.startswith("usr/lib/pkg/")] == ["usr/lib/pkg/z"]


@pytest.mark.parametrize("tag", ["base", "image"])
def test_a_checkout_is_file_by_file_what_podman_mounts(lab: Lab, storage: Path, tag: str) -> None:
    derive(lab)
    name = f"localhost/{tag}:1"
    run(["skopeo", "copy", "-q", str(lab.reference(tag)), f"containers-storage:{name}"])
    result = lab.pull(lab.repo(), tag)
    ours = facts(checked_out(lab, result.merge_commit), of_commit)
    mounted = Path(run(["podman", "image", "mount", name]).stdout.strip())
    theirs = facts(mounted, of_image)
    run(["podman", "image", "unmount", name])
    assert theirs == ours
    assert dict(ours["usr/bin/ping"][-1])["security.capability"] == CAPABILITY  # type: ignore[call-overload]


def test_the_repository_in_an_unpacked_image_is_read(lab: Lab) -> None:
    """Mode bare-split-xattrs: attributes are beside the objects, here written out by umoci."""
    root = unpacked(lab, "base")
    inside = Repo.open(root / "sysroot/ostree/repo")
    assert inside.mode == "bare-split-xattrs"
    tree = Tree.load(inside, lab.commit)
    assert tree == Tree.load(lab.origin, lab.commit)
    assert inside.header(file_of(tree, "usr/bin/ping")).xattrs == (
        (b"security.capability", CAPABILITY),
    )
    # All of every object: the image made of it is the image it came from.
    lab.origin = inside
    assert lab.encapsulate(lab.commit).digest == lab.base.digest
    # And onto a disk: what the origin gives.
    copies = []
    for number, repo in enumerate((inside, Repo.open(lab.root / "origin"))):
        target = lab.root / f"copy{number}"
        checkout(repo, Tree.load(repo, lab.commit), str(target), link=False)
        copies.append(facts(target, of_commit))
    assert copies[0] == copies[1] == facts(lab.root / "source", of_commit)


def file_of(tree: Tree, path: str) -> Checksum:
    found = tree.lookup(path)
    assert isinstance(found, str)
    return found


_CONTAINERFILE = """\
FROM localhost/node:1
COPY motd /etc/motd
RUN echo extra >/usr/share/extra && chmod 640 /usr/share/extra && chown 3:4 /usr/share/extra
RUN rm /usr/bin/kubectl && ln -s /usr/share/extra /usr/lib/extra
"""


def test_an_image_that_buildah_derives_of_the_node_image_is_imported(
    built_store: Path, tmp_path: Path, storage: Path, strata: Strata
) -> None:
    node = f"oci:{built_store}:node/4.19@sample-12"
    repo = Repo.init(tmp_path / "repo")
    first = json.loads(strata("image", "import", node, "--repo", str(repo.path), "--json").stdout)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(_CONTAINERFILE)
    (context / "motd").write_text("derived\n")
    run(["skopeo", "copy", "-q", node, "containers-storage:localhost/node:1"])
    build = ["buildah", "build", "--isolation=chroot", "--layers", "--pull-never"]
    run([*build, "-t", "localhost/derived:1", str(context)])
    target = f"oci:{tmp_path}/derived:1"
    run(["skopeo", "copy", "-q", "containers-storage:localhost/derived:1", target])
    done = strata("image", "import", target, "--repo", str(repo.path), "--json")
    second = json.loads(done.stdout)
    assert second["base_commit"] == first["base_commit"]
    assert second["merge_commit"] != first["merge_commit"]
    # The store compressed the node image's layers anew: known by their diff-ids, they stay.
    added = second["layers"][len(first["layers"]) :]
    assert len(added) == 3
    assert all(layer["fetched_bytes"] > 0 for layer in added)
    # The base's commit layer is read again, to know that this image is of that commit.
    again = [layer for layer in second["layers"][:-3] if layer["fetched_bytes"]]
    assert [layer["kind"] for layer in again] == ["commit"]
    assert second["fetched_bytes"] < first["fetched_bytes"] / 100
    commit = second["merge_commit"]
    assert cat(repo, commit, "/usr/etc/motd") == "derived\n"
    assert cat(repo, commit, "/usr/share/extra") == "extra\n"
    listed = run(["ostree", "ls", "-R", f"--repo={repo.path}", commit]).stdout
    assert "00640 3 4      6 /usr/share/extra" in listed
    assert "/usr/lib/extra -> /usr/share/extra" in listed
    assert "/usr/bin/kubectl" not in listed
    assert (
        "/usr/bin/kubectl"
        in run(["ostree", "ls", "-R", f"--repo={repo.path}", first["merge_commit"]]).stdout
    )
    assert leftovers(repo) == []
    fsck(repo)


def test_layers_that_skopeo_compressed_as_zstd_chunked_are_read(lab: Lab) -> None:
    """Their table of contents is in frames that zstd skips."""
    derive(lab)
    target = lab.root / "chunked"
    compress = ["--dest-compress", "--dest-compress-format=zstd:chunked"]
    run(["skopeo", "copy", "-q", *compress, str(lab.reference()), f"oci:{target}:image"])
    layout = Layout.open(target)
    manifest = Manifest.parse(layout.read(layout.resolve("image")))
    assert {layer.media_type for layer in manifest.layers} == {LAYER_ZSTD}
    last = layout.read(manifest.layers[-1])
    assert last[:4] == b"\x28\xb5\x2f\xfd"
    assert last.count(b"\x50\x2a\x4d\x18") >= 2  # skippable: the table, and where it is
    chunked = ImageReference("oci", str(target), "image")
    repo = lab.repo()
    with open_source(chunked, architecture="x86_64") as source:
        result = import_image(source, repo, reference=chunked, reporter=silent())
    fsck(repo)
    there = lab.pull(lab.repo("other"))
    trees = [Tree.load(repo, result.merge_commit), Tree.load(repo, result.base_commit)]
    other = Repo.open(lab.root / "other")
    assert trees == [Tree.load(other, there.merge_commit), Tree.load(other, lab.commit)]


def test_an_image_travels_through_a_registry_into_a_repository_unchanged(lab: Lab) -> None:
    """Layout, registry, layout, repository: the same digests, commits and files."""
    derive(lab)
    there = lab.pull(lab.repo("direct"))
    with Registry(lab.root / "registry") as registry:
        registry.start()
        digest = registry.push(str(lab.reference()), "os:1")
        back = lab.root / "back"
        copy = ["skopeo", "copy", "-q", "--preserve-digests", "--src-tls-verify=false"]
        run(registry.inside(*copy, f"docker://{ADDRESS}/os:1", f"oci:{back}:image"))
    assert str(lab.layout.resolve("image").digest) == digest
    assert str(Layout.open(back).resolve("image").digest) == digest
    reference = ImageReference("oci", str(back), "image")
    repo = lab.repo()
    with open_source(reference, architecture="x86_64") as source:
        result = import_image(source, repo, reference=reference, reporter=silent())
    assert result.base_commit == lab.commit == there.base_commit
    assert result.merge_commit == there.merge_commit
    assert [layer.commit for layer in result.layers] == [layer.commit for layer in there.layers]
    fsck(repo)
