"""Laws of extensions files and of extensions.json; hostile bytes."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.errors import DefinitionError, PackageError
from strata.rpm.extensionlist import read_extension_list, write_extension_list
from strata.rpm.nevra import NEVRA
from strata.treefile.extensions import parse_extensions

pytestmark = pytest.mark.property

part = st.text("abcz019._+~^", min_size=1, max_size=8)
names = st.text("abcz019.-_+", min_size=1, max_size=12).filter(lambda name: name.strip("-"))
archs = st.sampled_from(["x86_64", "noarch", "aarch64"])
nevras = st.builds(NEVRA, names, st.integers(0, 99), part, part, archs)


@given(st.lists(nevras, unique_by=lambda nevra: nevra.name))
def test_r4_5_what_is_written_is_read_again(packages: list[NEVRA]) -> None:
    assert read_extension_list(write_extension_list(packages)) == (tuple(sorted(packages)), ())


values = st.one_of(st.none(), st.integers(), st.text(max_size=20), st.lists(st.text(), max_size=2))


@given(st.dictionaries(st.text(max_size=8), values))
def test_r4_5_every_entry_is_read_or_told(rows: dict[str, object]) -> None:
    found, problems = read_extension_list(json.dumps(rows).encode())
    assert len(found) + len(problems) == len(rows)
    assert {nevra.name for nevra in found} <= set(rows)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_an_error(data: bytes) -> None:
    with contextlib.suppress(PackageError):
        read_extension_list(data)


key = st.sampled_from(
    ["repos", "extensions", "packages", "architectures", "kind", "match-base-evr", "modules", "x"]
)
documents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["x86_64", "a"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(key, inner, max_size=4)),
)


@given(st.one_of(documents.map(json.dumps), st.text(max_size=200)))
def test_any_text_is_an_extensions_file_or_an_error(text: str) -> None:
    with contextlib.suppress(DefinitionError):
        parse_extensions(text, "x.yaml")
