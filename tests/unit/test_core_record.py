"""The build record: its golden form, its schema, its key and what it says about a rebuild."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from strata.core.errors import DefinitionError
from strata.core.record import (
    BuildRecord,
    Input,
    StepRecord,
    changed_inputs,
    input_key,
    schema,
)

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent.parent / "data" / "record" / "golden.json"
RECORD = BuildRecord(
    target="coreos/sample-12",
    arch="x86_64",
    inputs=(
        Input("base", "bootc commit", "11" * 32),
        Input("lock", "coreos/sample-12", "sha256:" + "22" * 32),
        Input("tool", "dnf", "4.14.0"),
        Input("treefile", "coreos/manifest.yaml", "sha256:" + "33" * 32),
    ),
    outputs={"manifest": "sha256:" + "44" * 32, "layers": 65, "version": "12.9.20260711-0"},
    steps=(StepRecord("install packages", 4.25, 0), StepRecord("commit", 0.5, 7_340_032)),
    built="2026-07-11T09:00:00Z",
)


def test_a_record_is_written_as_the_golden_file() -> None:
    assert RECORD.to_bytes() == GOLDEN.read_bytes()


def test_the_golden_file_reads_back_equal_and_keeps_to_the_schema() -> None:
    assert BuildRecord.load(GOLDEN) == RECORD
    jsonschema.validate(json.loads(GOLDEN.read_bytes()), dict(schema()))


def test_the_key_does_not_depend_on_the_order_of_inputs() -> None:
    assert input_key(reversed(RECORD.inputs)) == RECORD.key


def test_a_changed_an_added_and_a_gone_input_are_named() -> None:
    newer = [
        Input("treefile", "coreos/manifest.yaml", "sha256:" + "55" * 32),
        *RECORD.inputs[1:3],
        Input("overlay", "overlay/10coreos", "sha256:" + "66" * 32),
    ]
    told = [str(change) for change in changed_inputs(RECORD.inputs, newer)]
    assert told == [
        "base bootc commit is gone",
        "overlay overlay/10coreos is new",
        "treefile coreos/manifest.yaml changed (333333333333 → 555555555555)",
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"version": 2}, "version is not 1"),
        ({"target": 7}, "target has the wrong type"),
        ({"inputs": {}}, "inputs has the wrong type"),
        ({"inputs": [{"kind": "lock"}]}, "inputs[0].name is missing"),
        ({"key": "sha256:" + "00" * 32}, "key does not match the inputs"),
    ],
)
def test_a_damaged_record_names_the_place(damage: dict[str, object], message: str) -> None:
    document = {**json.loads(RECORD.to_bytes()), **damage}
    with pytest.raises(DefinitionError) as caught:
        BuildRecord.parse(json.dumps(document).encode(), "records/x.json")
    assert message in caught.value.message
    assert caught.value.hint == "delete the file: the next build writes it anew"


def test_text_that_is_not_json_is_an_error_of_ours() -> None:
    with pytest.raises(DefinitionError, match="is not JSON"):
        BuildRecord.parse(b"{", "records/x.json")


def test_outputs_do_not_change_the_key() -> None:
    assert replace(RECORD, outputs={}).key == RECORD.key
