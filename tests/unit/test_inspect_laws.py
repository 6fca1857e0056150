"""Laws of looking at images, with made-up layers: against a plain model, and never a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core.errors import ImageError
from strata.inspect.entries import File, LayerEntries, normal_path
from strata.inspect.files import _Squash
from strata.inspect.osrelease import look
from strata.inspect.packagediff import by_name, diff_packages
from strata.inspect.packages import parse_pkglist
from strata.inspect.same import diff_os_release
from strata.inspect.view import LayerView
from strata.oci.digest import Digest
from strata.oci.model import LAYER_GZIP, Descriptor
from strata.rpm.nevra import NEVRA

pytestmark = pytest.mark.property

NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
NODES = st.tuples(PATHS, st.sampled_from(("file", "dir", "link")), st.integers(0, 0o777))
LAYERS = st.tuples(
    st.lists(NODES, max_size=6), st.lists(PATHS, max_size=2), st.lists(PATHS, max_size=2)
)


def layer(number: int) -> LayerView:
    empty = Digest("0" * 64)
    return LayerView(number, Descriptor(LAYER_GZIP, empty, 0), empty, "derived", "")


def file(kind: str, mode: int, layer: int) -> File:
    return File(kind, mode, 0, 0, 0, "t" if kind == "link" else "", (), "", layer, layer)


def model(layers: list[tuple[list[tuple[str, str, int]], list[str], list[str]]]) -> dict[str, int]:
    """path → mode, by a flat mapping: OCI's rules in their plainest form; folders as 0o1000 + mode.

    A folder that no entry describes has mode 0755.
    """
    found: dict[str, int] = {}

    def below(path: str) -> list[str]:
        return [name for name in found if name.startswith(f"{path}/")]

    for nodes, removed, opaque in layers:
        for path in opaque:
            if found.get(path, 0) & 0o1000:
                for name in below(path):
                    del found[name]
        for path in removed:
            for name in (*below(path), path):
                found.pop(name, None)
        for path, kind, mode in nodes:
            parts = path.split("/")
            for depth in range(1, len(parts)):
                parent = "/".join(parts[:depth])
                if not found.get(parent, 0) & 0o1000:
                    found[parent] = 0o1755
            if kind != "dir":
                for name in below(path):
                    del found[name]
            found[path] = mode | (0o1000 if kind == "dir" else 0)
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(LAYERS, max_size=4))
def test_layers_are_laid_over_each_other_as_a_flat_model_does(
    layers: list[tuple[list[tuple[str, str, int]], list[str], list[str]]],
) -> None:
    squash = _Squash()
    for number, (nodes, removed, opaque) in enumerate(layers, 1):
        entries: list[tuple[str, File | str]] = [
            (path, file(kind, mode, number)) for path, kind, mode in nodes
        ]
        squash.apply(LayerEntries(entries, removed, opaque), layer(number))
    found = squash.listing(hidden="")
    del found["/"]
    assert {
        path[1:]: of.mode | (0o1000 if of.kind == "dir" else 0) for path, of in found.items()
    } == model(layers)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_package_list_or_an_image_error(data: bytes) -> None:
    try:
        parse_pkglist(data)
    except ImageError:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_a_path_below_the_root_or_an_image_error(data: bytes) -> None:
    try:
        path = normal_path(data)
    except ImageError:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_os_release_equal_to_itself(data: bytes) -> None:
    values = look(data)
    assert diff_os_release(values, values) == ()


NEVRAS = st.lists(
    st.builds(
        NEVRA,
        st.sampled_from("abc"),
        st.integers(0, 1),
        st.sampled_from("12"),
        st.sampled_from("12"),
        st.sampled_from(("x86_64", "i686", "noarch")),
    ),
    max_size=8,
)


@given(NEVRAS, NEVRAS)
def test_package_differences_turn_one_multiset_into_the_other(
    old: list[NEVRA], new: list[NEVRA]
) -> None:
    changes = diff_packages(old, new)
    left = list(old)
    for change in changes:
        if change.old:
            left.remove(change.old)
        if change.new:
            left.append(change.new)
    assert sorted(left) == sorted(new)
    assert sum(len(rows) for rows in by_name(changes).values()) == len(changes)
    assert diff_packages(old, old) == ()
