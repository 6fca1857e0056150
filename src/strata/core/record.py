"""The build record: what everything built leaves behind, and all that anything remembers.

A record names its inputs by digest and its outputs by digest. Two records with equal inputs have
equal keys; a rebuild is explained by the inputs that differ, a no-op by those that were compared.
The schema is `record.schema.json` beside this module.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.core.errors import DefinitionError
from strata.core.files import atomic_write, json_digest, pretty_json

RECORD_VERSION = 1
MAX_RECORD_BYTES = 4 << 20

KINDS = (
    *("definition", "treefile", "overlay", "lock", "base", "with", "source", "tool", "strata"),
    "clock",
)


@dataclass(frozen=True, order=True)
class Input:
    """One thing a build read. kind: one of KINDS. digest: `sha256:…`, or a version for a
    tool, or a label's value for a source."""

    kind: str
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class StepRecord:
    """A step of the build: its title, how long it took and how many bytes went through it (0 when
    it counted none)."""

    title: str
    seconds: float
    size_bytes: int


@dataclass(frozen=True)
class BuildRecord:
    """What a target was built from, what came out, and when.

    outputs: name to value (image digest, commit checksum, version, sizes). built: RFC 3339.
    """

    target: str
    arch: str
    inputs: tuple[Input, ...]
    outputs: Mapping[str, object]
    steps: tuple[StepRecord, ...]
    built: str

    @property
    def key(self) -> str:
        """sha256 over the inputs: equal inputs, equal key."""
        return input_key(self.inputs)

    def to_bytes(self) -> bytes:
        """The record as indented JSON with sorted keys."""
        return pretty_json(
            {
                "version": RECORD_VERSION,
                "target": self.target,
                "arch": self.arch,
                "key": self.key,
                "inputs": [
                    {"kind": item.kind, "name": item.name, "digest": item.digest}
                    for item in self.inputs
                ],
                "outputs": dict(self.outputs),
                "steps": [
                    {
                        "title": step.title,
                        "seconds": round(step.seconds, 3),
                        "bytes": step.size_bytes,
                    }
                    for step in self.steps
                ],
                "built": self.built,
            }
        )

    def save(self, path: Path) -> None:
        """Write the record durably."""
        atomic_write(path, self.to_bytes())

    @staticmethod
    def parse(data: bytes, source: str = "record") -> BuildRecord:
        """Read a record strictly. Raises DefinitionError naming the key that is wrong."""
        try:
            document = json.loads(data)
        except ValueError as error:
            raise DefinitionError(
                f"{source} is not JSON: {error}", hint=_REMAKE, context={"file": source}
            ) from error
        reader = _Reader(document, source)
        if reader.get("version", int) != RECORD_VERSION:
            raise reader.error("version", f"is not {RECORD_VERSION}")
        inputs = tuple(
            Input(item.get("kind", str), item.get("name", str), item.get("digest", str))
            for item in reader.items("inputs")
        )
        steps = tuple(
            StepRecord(
                item.get("title", str),
                float(item.get("seconds", (int, float))),
                item.get("bytes", int),
            )
            for item in reader.items("steps")
        )
        record = BuildRecord(
            reader.get("target", str),
            reader.get("arch", str),
            inputs,
            reader.get("outputs", dict),
            steps,
            reader.get("built", str),
        )
        if reader.get("key", str) != record.key:
            raise reader.error("key", "does not match the inputs")
        return record

    @staticmethod
    def load(path: Path) -> BuildRecord:
        """Read a record file. Raises FileNotFoundError, DefinitionError."""
        with open(path, "rb") as stream:
            data = stream.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            raise DefinitionError(f"{path} is larger than a build record can be", hint=_REMAKE)
        return BuildRecord.parse(data, str(path))


_REMAKE = "delete the file: the next build writes it anew"


class _Reader:
    """A JSON object whose fields are read by name and type, with the place in every error."""

    def __init__(self, value: object, source: str, at: str = "") -> None:
        self.source, self.at = source, at
        if not isinstance(value, dict):
            raise self.error("", "is not an object")
        self.value: dict[str, object] = value

    def error(self, key: str, problem: str) -> DefinitionError:
        where = ".".join(part for part in (self.at, key) if part) or "the record"
        return DefinitionError(
            f"{self.source}: {where} {problem}",
            hint=_REMAKE,
            context={"file": self.source, "key": where},
        )

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        if key not in self.value:
            raise self.error(key, "is missing")
        value = self.value[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(key, "has the wrong type")
        return value

    def items(self, key: str) -> list[_Reader]:
        values = self.get(key, list)
        return [
            _Reader(value, self.source, f"{key}[{index}]") for index, value in enumerate(values)
        ]


def input_key(inputs: Iterable[Input]) -> str:
    """sha256 over sorted inputs, as `sha256:…`."""
    rows = sorted((item.kind, item.name, item.digest) for item in inputs)
    return json_digest(rows)


@dataclass(frozen=True)
class InputChange:
    """An input that differs between two builds. old or new is empty when it was not there."""

    kind: str
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        if not self.old:
            return f"{self.kind} {self.name} is new"
        if not self.new:
            return f"{self.kind} {self.name} is gone"
        return f"{self.kind} {self.name} changed ({_short(self.old)} → {_short(self.new)})"


def _short(digest: str) -> str:
    bare = digest[7:] if digest.startswith("sha256:") else digest
    return bare[:12] if len(bare) == 64 else bare


def changed_inputs(old: Iterable[Input], new: Iterable[Input]) -> tuple[InputChange, ...]:
    """The inputs that differ, in order of kind and name."""
    before = {(item.kind, item.name): item.digest for item in old}
    after = {(item.kind, item.name): item.digest for item in new}
    return tuple(
        InputChange(kind, name, before.get((kind, name), ""), after.get((kind, name), ""))
        for kind, name in sorted(before.keys() | after.keys())
        if before.get((kind, name)) != after.get((kind, name))
    )


def schema() -> dict[str, object]:
    """The JSON schema of a record."""
    data = pkgutil.get_data("strata.core", "record.schema.json")
    if data is None:
        raise FileNotFoundError("record.schema.json")
    document: dict[str, object] = json.loads(data)
    return document
