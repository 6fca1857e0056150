"""Any JSON in the place of an Ignition config is read or refused, and merging holds its laws."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.bootimage.ignition import Config, File
from strata.bootimage.ignition.check import Images, check
from strata.bootimage.ignition.contents import read_contents
from strata.bootimage.ignition.merge import merge_into
from strata.bootimage.ignition.resource import decode, encode
from strata.core.errors import DefinitionError

pytestmark = pytest.mark.property

CHILD = {"ignition": {"version": "3.0.0"}, "systemd": {"units": [{"name": "c.service"}]}}
WHOLE: dict[str, Any] = {
    "ignition": {
        "version": "3.2.0",
        "config": {
            "merge": [encode(json.dumps(CHILD).encode()), {"source": "https://h.example/x"}],
            "replace": {},
        },
    },
    "storage": {
        "files": [
            {"path": "/a", "contents": encode(b"#!/bin/sh\nb\n" * 200), "append": [encode(b"c")]},
            {"path": "/etc/systemd/system/f.timer.d/x.conf", "contents": {"source": "data:,x"}},
        ],
        "links": [{"path": "/etc/systemd/system/a.target.wants/b.service", "target": "../b"}],
    },
    "systemd": {
        "units": [
            {
                "name": "a.service",
                "enabled": True,
                "mask": False,
                "contents": "[Unit]\nAfter=b.service\n[Service]\nExecStart=/a\n",
                "dropins": [{"name": "x.conf", "contents": "[Service]\nExecStart=\n"}],
            }
        ]
    },
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield at
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*at, key))


def changed(place: tuple[Any, ...], value: Any) -> Any:
    """The whole config with something else at one place."""
    if not place:
        return value
    document = copy.deepcopy(WHOLE)
    inner: Any = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return document


CONFIGS = st.builds(changed, st.sampled_from(list(places(WHOLE))), VALUES)


@pytest.mark.parametrize("place", list(places(WHOLE)), ids=lambda place: ".".join(map(str, place)))
@settings(max_examples=30)
@given(VALUES)
def test_any_json_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    try:
        contents = read_contents(json.dumps(changed(place, value)).encode(), "x.ign")
    except DefinitionError:
        return
    check(contents, Images({}, {}, lambda path: ""), {})


@given(st.binary(max_size=3000))
def test_what_is_encoded_is_decoded(data: bytes) -> None:
    assert decode(encode(data), "x") == data


@given(CONFIGS, st.dictionaries(st.sampled_from("abc"), st.binary(max_size=9), max_size=3))
def test_what_is_merged_counts_and_is_merged_once(parent: Any, files: dict[str, bytes]) -> None:
    child = Config(
        [File("/etc/strata/node.json", b"{}"), *(File(f"/{n}", files[n]) for n in files)]
    )
    given_ = json.dumps(parent).encode()
    try:
        once = merge_into(given_, child.to_bytes(), "x.ign")
    except DefinitionError:
        return
    assert merge_into(once, child.to_bytes(), "x.ign") == once
    try:
        found = read_contents(once, "x.ign").files
    except DefinitionError:
        return  # the parent's own fault
    if not (parent["ignition"]["config"] or {}).get("replace"):
        assert {path: found[path] for path in (f"/{name}" for name in files)} == {
            f"/{name}": data for name, data in files.items()
        }
