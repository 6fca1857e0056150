"""Laws of paths inside a tree: for any links and any path, the result is in the tree."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.errors import TreeError
from strata.core.rooted import resolve

pytestmark = pytest.mark.property

names = st.sampled_from(["a", "b", "c"])
tree_paths = st.lists(names, min_size=1, max_size=3).map("/".join)
wild_paths = st.tuples(
    st.sampled_from(["", "/"]),
    st.lists(st.sampled_from(["a", "b", "c", "..", ".", "", "host"]), max_size=6).map("/".join),
).map("".join)
links = st.dictionaries(tree_paths, wild_paths.filter(bool), max_size=6)


def grow(root: Path, targets: Mapping[str, str]) -> None:
    """A tree with some folders and the links that find a place in it."""
    (root / "a/b").mkdir(parents=True)
    (root / "b").mkdir()
    (root / "a/c").write_text("x")
    for place, target in targets.items():
        parent = (root / place).parent
        # Through no other link: the test itself must not write beside the tree.
        real = os.path.realpath(parent) == str(parent) and parent.is_dir()
        if real and not os.path.lexists(root / place):
            (root / place).symlink_to(target)


@given(links, wild_paths, st.booleans())
def test_whatever_the_links_say_the_result_is_in_the_tree(
    targets: dict[str, str], path: str, follow_last: bool
) -> None:
    # Nothing is removed here: a law is about where a path leads, and tests may run as root.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.path.realpath(folder)) / "root"
        grow(root, targets)
        with contextlib.suppress(TreeError):
            found = resolve(root, path, follow_last=follow_last)
            inside = found.relative_to(root)
            assert ".." not in inside.parts
            # No folder on the way is a link, so the name means what it says on the host as well.
            on_the_way = [root.joinpath(*inside.parts[:end]) for end in range(len(inside.parts))]
            assert not any(place.is_symlink() for place in on_the_way)
            assert not (follow_last and found.is_symlink())
            assert resolve(root, str(inside), follow_last=follow_last) == found
