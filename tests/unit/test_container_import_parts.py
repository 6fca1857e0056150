"""The parts of an import that touch no file: refs, paths, trees laid over each other."""

from __future__ import annotations

import pytest

from strata.container.derived import OPAQUE, map_path, overlay, split_path
from strata.container.refs import blob_ref, escape, image_ref
from strata.core.errors import ImageError, UsageError
from strata.oci.digest import Digest
from strata.oci.reference import ImageReference
from strata.ostree.objects import Checksum, DirMeta
from strata.ostree.tree import Tree

pytestmark = pytest.mark.unit

A, B = Checksum("a" * 64), Checksum("b" * 64)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("sha256:00aa", "sha256_3A_00aa"),
        (
            "docker://example.com/coreos/fedora:latest",
            "docker_3A__2F__2F_example_2E_com/coreos/fedora_3A_latest",
        ),
        ("oci:/var/tmp/x:latest", "oci_3A__2F_var/tmp/x_3A_latest"),
        ("containers-storage:localhost/a_b", "containers-storage_3A_localhost/a__b"),
        ("x/a-/b", "x/a-_2F_b"),
        ("foo/", "foo_2F_"),
        ("/", "_2F_"),
        ("a//b", "a/_2F_b"),
        ("é", "_E9_"),
        ("\t", "_09_"),
        ("🙂", "_1F642_"),
    ],
)
def test_refs_are_escaped_as_ostree_container_does(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_what_cannot_be_a_ref_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be part of a ref"):
        escape(text)


def test_the_refs_of_layers_and_images() -> None:
    assert blob_ref(Digest("0" * 64)) == "ostree/container/blob/sha256_3A_" + "0" * 64
    reference = ImageReference.parse("docker://example.com/x/y")
    assert image_ref(reference) == "ostree/container/image/docker_3A__2F__2F_example_2E_com/x/y"
    assert image_ref(ImageReference.parse("registry:example.com/x/y")) == image_ref(reference)


@pytest.mark.parametrize(
    ("path", "mapped"),
    [
        (b"usr/bin/x", "usr/bin/x"),
        (b"/usr//bin/./x/", "usr/bin/x"),
        (b"etc/x", "usr/etc/x"),
        (b"etc", "usr/etc"),
        (b"usr/etc/x", "usr/etc/x"),
        (b"var/lib/x", "usr/share/factory/var/lib/x"),
        (b"./", ""),
        (b"run", "run"),
        (b"tmp", "tmp"),
        (b"run/x", None),
        (b"dev/null", None),
        (b"opt/x", None),
        (b"etcetera", None),
        (b"sysroot/ostree", None),
    ],
)
def test_a_containers_path_goes_where_a_machine_has_it(path: bytes, mapped: str | None) -> None:
    found = map_path(split_path(path))
    assert (None if found is None else "/".join(found)) == mapped


@pytest.mark.parametrize("path", [b"..", b"a/../b", b"/..", b"\xff", b"a\0b", b"d/" * 300])
def test_a_path_that_leaves_its_root_is_refused(path: bytes) -> None:
    with pytest.raises(ImageError, match=r"leaves its root|not UTF-8"):
        split_path(path)


def _tree(**files: Checksum) -> Tree:
    return Tree(files=dict(files))


def test_nothing_laid_over_is_the_same() -> None:
    lower = Tree(DirMeta(1), {"f": A}, {"d": _tree(x=B)})
    assert overlay(lower, Tree(), set()) == lower


def test_neither_side_is_changed() -> None:
    lower = Tree(files={"f": A}, dirs={"d": _tree(x=B)})
    layer = Tree(files={"f": B, ".wh.gone": A}, dirs={"d": _tree(y=A)})
    copies = overlay(lower, Tree(), set()), overlay(Tree(), layer, set())
    assert overlay(lower, layer, set()).dirs["d"].files == {"x": B, "y": A}
    assert (lower, layer.files) == (copies[0], {"f": B, ".wh.gone": A})


def test_a_whiteout_beside_its_name_replaces_the_folder() -> None:
    lower = Tree(dirs={"d": _tree(old=A)})
    layer = Tree(files={".wh.d": A}, dirs={"d": _tree(new=B)})
    assert overlay(lower, layer, set()).dirs["d"].files == {"new": B}


def test_an_opaque_folder_in_a_new_folder_is_no_file() -> None:
    layer = Tree(dirs={"d": Tree(files={OPAQUE: A, "x": B})})
    assert overlay(Tree(), layer, set()).dirs["d"].files == {"x": B}


def test_implied_folders_take_the_metadata_below() -> None:
    lower = Tree(dirs={"d": Tree(DirMeta(5), {}, {"e": Tree(DirMeta(6))})})
    layer = Tree(dirs={"d": Tree(DirMeta(7), {}, {"e": Tree(DirMeta(8))})})
    merged = overlay(lower, layer, {"d/e"})
    assert merged.dirs["d"].meta.uid == 7
    assert merged.dirs["d"].dirs["e"].meta.uid == 6
