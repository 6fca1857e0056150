"""The JSON schema of a treefile, for editors; made from the one declaration of the fields."""

from __future__ import annotations

from collections.abc import Mapping

from strata.treefile.fields import ARCHES, FIELDS, LEGACY
from strata.treefile.shapes import TEXT, TEXTS, Either

_INCLUDE = Either((TEXT, TEXTS))


def treefile_schema() -> dict[str, object]:
    """A JSON schema (draft 2020-12). Every field may be empty (null), as rpm-ostree has it."""
    properties: dict[str, object] = {}
    for name, declared in FIELDS.items():
        properties[name] = _nullable(declared.shape.json_schema(), declared.doc)
    for old, name in LEGACY.items():
        shape = _nullable(FIELDS[name].shape.json_schema(), f"the old spelling of {name}")
        properties[old] = {**shape, "deprecated": True}
    for arch in ARCHES:
        doc = f"packages to install on {arch} only"
        properties[f"packages-{arch}"] = _nullable(TEXTS.json_schema(), doc)
    include = _INCLUDE.json_schema()
    properties["include"] = _nullable(include, "treefiles this one includes")
    by_arch = {"type": "object", "additionalProperties": include}
    properties["arch-include"] = _nullable(by_arch, "treefiles included on one architecture")
    condition = {
        "type": "object",
        "required": ["if", "include"],
        "additionalProperties": False,
        "properties": {
            "if": include,
            "include": {"anyOf": [include, {"$ref": "#/$defs/treefile"}]},
        },
    }
    conditional = {"type": "array", "items": condition}
    properties["conditional-include"] = _nullable(conditional, "included when conditions hold")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "treefile",
        "$ref": "#/$defs/treefile",
        "$defs": {
            "treefile": {
                "type": "object",
                "properties": properties,
                "patternProperties": {"^packages-[a-z0-9_]+$": TEXTS.json_schema()},
                "additionalProperties": False,
            }
        },
    }


def _nullable(shape: Mapping[str, object], doc: str) -> dict[str, object]:
    return {"description": doc, "anyOf": [shape, {"type": "null"}]}
