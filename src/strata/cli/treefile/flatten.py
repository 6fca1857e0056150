"""`strata treefile flatten`: a treefile with all that it includes."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence

from strata.cli.context import Context, add_command, print_json
from strata.cli.treefile.common import FILES, add_file, chosen
from strata.treefile.conditions import show
from strata.treefile.treefile import Flattened, Sourced

DESCRIPTION = f"""\
Print the tree a treefile describes: includes followed, conditions decided, in
the order rpm-ostree merges them. Behind every item stands the line it is from.

  strata treefile flatten manifest-rhel-9.8.yaml --osversion rhel-9.8
  strata treefile flatten build-args-c10s.conf --arch s390x --json

{FILES}"""
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./+@=-]*")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "flatten",
        run,
        summary="print a treefile with all it includes",
        description=DESCRIPTION,
    )
    add_file(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print it, as YAML or JSON."""
    with chosen(context, arguments, arguments.file) as choice:
        flat = choice.flatten()
    if context.as_json:
        document = {
            "treefile": flat.fields,
            "variables": flat.variables,
            "files": dict(flat.inputs),
        }
        print_json(document)
        return 0
    set_to = ", ".join(f"{key}={show(value)}" for key, value in sorted(flat.variables.items()))
    files = "1 file" if len(flat.inputs) == 1 else f"{len(flat.inputs)} files"
    lines = [f"# {arguments.file}, {files}; {set_to}", *as_yaml(flat)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def as_yaml(flat: Flattened) -> Iterator[str]:
    """The lines of a YAML document that says the same, each item's place as a comment."""
    sourced: dict[str, Sequence[Sourced]] = {
        "packages": sorted(flat.packages, key=lambda item: item.text),
        "repos": flat.repos,
        "ostree-layers": flat.overlays,
        "exclude-packages": flat.excluded,
    }
    for key, value in flat.fields.items():
        if key == "postprocess":
            yield "postprocess:"
            for item in flat.postprocess:
                yield f"  # {item.source}"
                yield from _script(item.text)
        elif key in sourced:
            yield f"{key}:"
            width = max((len(_text(item.text)) for item in sourced[key]), default=0)
            for item in sourced[key]:
                yield f"  - {_text(item.text):{width}}  # {item.source}"
        elif isinstance(value, list):
            yield f"{key}:  # {flat.places[key]}"
            yield from (f"  - {_value(item)}" for item in value)
        elif isinstance(value, dict) and value:
            yield f"{key}:  # {flat.places[key]}"
            yield from (f"  {_text(name)}: {_value(item)}" for name, item in value.items())
        else:
            yield f"{key}: {_value(value)}  # {flat.places[key]}"


def _script(text: str) -> Iterator[str]:
    """A block scalar; a quoted text where a block could not say the same."""
    if text.endswith("\n") and not text.endswith("\n\n") and not text.startswith((" ", "\n")):
        yield "  - |"
        yield from (
            f"    {line}".rstrip() if not line else f"    {line}" for line in text[:-1].split("\n")
        )
    else:
        yield f"  - {json.dumps(text)}"


def _value(value: object) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)
