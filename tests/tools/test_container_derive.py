"""Deriving: whatever happens to a mounted base, its layers over the base give the same tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strata.compose.overlaymount import overlay_mount
from strata.container import derive, derived
from strata.core.errors import ImageError
from strata.oci.compression import decompress
from strata.oci.layout import Layout
from strata.oci.model import CONFIG, ImageConfig, Manifest
from strata.oci.tar import TarReader
from strata.ostree.checkout import checkout
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree, scan
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

NAMES = ("a", "b", "c")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
operations = st.lists(
    st.tuples(st.sampled_from(["file", "link", "dir", "remove", "mode", "empty", "xattr"]), paths),
    max_size=12,
)


class Lab:
    """A folder with a repository, a layout and a base tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = Repo.init(folder / "repo")
        self.layout = Layout.create(folder / "layout")
        self.root = folder / "root"
        (self.root / "usr").mkdir(parents=True)

    def scan(self, path: Path) -> Tree:
        with writing(self.repo, sync=False) as writer:
            return scan(writer, str(path))

    @contextmanager
    def changed(self) -> Iterator[tuple[Tree, Path, Path]]:
        """The base's tree, and its overlay mount: merged and upper."""
        base = self.scan(self.root)
        lower, scratch = self.folder / "lower", self.folder / "scratch"
        checkout(self.repo, base, str(lower), link=False)
        scratch.mkdir()
        with overlay_mount(lower, scratch) as mount:
            yield base, mount.merged, mount.upper

    def layers_over(self, base: Tree, upper: Path, found: list[derive.Change], by: int) -> Tree:
        """What an importer makes of the layers: their trees over the base, one after the other."""
        owners = {
            path: f"package-{zlib.crc32(path.encode()) % by}" for path in (c.path for c in found)
        }
        tree = base
        for title, group in derive.group(found, lambda path: owners.get(path[1:]), ["rpmdb"]):
            layer = derive.write_changes(self.layout, title, group, base, str(upper))
            blob = self.layout.open_blob(layer.descriptor.digest)
            with blob as stream, writing(self.repo, sync=False) as writer:
                tar = TarReader(decompress(stream, layer.descriptor.media_type))
                read = derived.read_layer(writer, tar, base)
            tree = derived.overlay(tree, read.tree, read.implied)
        return tree


@contextmanager
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as folder:
        yield Lab(Path(folder))


def act(root: Path, kind: str, path: str, seed: int) -> None:
    """One operation; those that make no sense where they are do nothing."""
    target = root / "usr" / path
    try:
        if kind in ("file", "link", "dir"):
            target.parent.mkdir(parents=True, exist_ok=True)
            if kind == "dir":
                target.mkdir()
            elif kind == "link":
                target.unlink(missing_ok=True)
                target.symlink_to(NAMES[seed % len(NAMES)])
            else:
                target.write_bytes(b"%d" % seed)
        elif kind == "remove":
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
        elif kind == "empty" and target.is_dir():
            shutil.rmtree(target)
            target.mkdir()
        elif kind == "mode":
            target.chmod(0o700 + seed % 64)
        elif kind == "xattr":
            os.setxattr(target, "user.mark", b"%d" % seed)
    except OSError:
        pass


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations, operations, st.integers(1, 4))
def test_layers_over_the_base_are_what_the_mount_showed(
    before: list[tuple[str, str]], after: list[tuple[str, str]], owners: int
) -> None:
    with lab() as at:
        for seed, (kind, path) in enumerate(before):
            act(at.root, kind, path, seed)
        with ExitStack() as stack:
            base, merged, upper = stack.enter_context(at.changed())
            for seed, (kind, path) in enumerate(after):
                act(merged, kind, path, seed + 100)
            shown = at.scan(merged)
            of_mount = derive.changes(str(upper), base)
            of_tree = derive.tree_changes(str(merged), base)
            for found, where in ((of_mount, upper), (of_tree, merged)):
                assert at.layers_over(base, where, found, owners) == shown
        # A tree that equals its base has nothing to say.
        assert derive.tree_changes(str(at.root), base) == []


def test_a_folder_made_anew_keeps_what_another_layer_brings() -> None:
    """An opaque marker in a layer above would have hidden the package's file."""
    with lab() as at:
        (at.root / "usr/d").mkdir()
        (at.root / "usr/d/old").write_text("old")
        with at.changed() as (base, merged, upper):
            shutil.rmtree(merged / "usr/d")
            (merged / "usr/d").mkdir()
            (merged / "usr/d/new").write_text("new")
            found = derive.changes(str(upper), base)
            groups = derive.group(found, lambda p: "pkg" if p.endswith("new") else None, [])
            assert [title for title, _ in groups] == [derive.REMOVALS, "pkg"]
            shown = at.scan(merged)
            tree = base
            for title, changes in groups:
                layer = derive.write_changes(at.layout, title, changes, base, str(upper))
                blob = at.layout.open_blob(layer.descriptor.digest)
                with blob as stream, writing(at.repo, sync=False) as writer:
                    tar = TarReader(decompress(stream, layer.descriptor.media_type))
                    read = derived.read_layer(writer, tar, base)
                tree = derived.overlay(tree, read.tree, read.implied)
            assert tree == shown


@pytest.mark.parametrize("kind", ["folder in a file's place", "folder in a link's place"])
def test_libostree_sees_what_we_see_where_it_differs_from_oci(kind: str, tmp_path: Path) -> None:
    """Its union checkout refuses a folder over a file, and writes through a link to a folder."""
    at = Lab(tmp_path)
    if kind.startswith("folder in a link"):
        (at.root / "usr/elsewhere").mkdir()
        (at.root / "usr/x").symlink_to("elsewhere")
    else:
        (at.root / "usr/x").write_text("a file")
    with at.changed() as (base, merged, upper):
        (merged / "usr/x").unlink()
        (merged / "usr/x").mkdir()
        (merged / "usr/x/inside").write_text("inside")
        found = derive.changes(str(upper), base)
        shown = at.scan(merged)
        out, repo = str(tmp_path / "out"), f"--repo={at.repo.path}"
        with writing(at.repo, sync=False) as writer:
            below = commit_tree(writer, base, timestamp=0)
        subprocess.run(["ostree", "checkout", repo, "-H", below, out], check=True)
        for title, changes in derive.group(found, lambda _: "pkg", []):
            layer = derive.write_changes(at.layout, title, changes, base, str(upper))
            tar = tmp_path / "layer.tar.gz"
            shutil.copy(at.layout.blob_path(layer.descriptor.digest), tar)
            commit = ["ostree", "commit", repo, "-b", "layer", f"--tree=tar={tar}"]
            subprocess.run([*commit, "--tar-autocreate-parents"], check=True, capture_output=True)
            union = ["ostree", "checkout", repo, "--union", "--whiteouts", "-H", "layer", out]
            subprocess.run(union, check=True)
    assert at.scan(tmp_path / "out") == shown


def test_what_no_layer_can_say_is_refused() -> None:
    with lab() as at, at.changed() as (base, merged, upper):
        (merged / "usr/.wh.name").write_text("x")
        with pytest.raises(ImageError, match="its name says that a file is removed"):
            derive.changes(str(upper), base)
        (merged / "usr/.wh.name").unlink()
        os.mkfifo(merged / "usr/pipe")
        with pytest.raises(ImageError, match="/usr/pipe is a device, a pipe or a socket"):
            derive.tree_changes(str(merged), base)


def test_the_bases_configuration_comes_back_but_for_what_is_added(tmp_path: Path) -> None:
    """A foreign base has a variant, authors and empty history entries, and keeps them."""
    layout = Layout.create(tmp_path / "layout")
    document = {
        "architecture": "arm",
        "os": "linux",
        "variant": "v7",
        "os.version": "1.2",
        "author": "somebody",
        "config": {"Labels": {"a": "b"}, "StopSignal": "SIGRTMIN+3"},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [{"created_by": "ENV x", "empty_layer": True}],
    }
    config = ImageConfig.parse(json.dumps(document).encode())
    base = Manifest(layout.add(config.to_bytes(), CONFIG), ())
    made = derive.append_layers(layout, base, config, [], labels={"c": "d"}, created="then")
    written = json.loads(layout.read(Manifest.parse(layout.read(made)).config))
    labels = {"a": "b", "c": "d"}
    expected = {**document, "created": "then"}
    assert written == {**expected, "config": {"Labels": labels, "StopSignal": "SIGRTMIN+3"}}
