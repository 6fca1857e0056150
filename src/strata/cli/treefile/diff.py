"""`strata treefile diff`: what two resolved treefiles have apart."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator

from strata.cli.context import Context, add_command, print_json
from strata.cli.treefile.common import FILES, add_selection, chosen
from strata.treefile.compare import FieldDiff, compare, script_title

DESCRIPTION = f"""\
Compare two treefiles as they are resolved, field by field: one file before and
after a change, or two variants.

  strata treefile diff main:packages-openshift.yaml packages-openshift.yaml \\
      --osversion rhel-9.8
  strata treefile diff build-args-rhel-9.8.conf build-args-c10s.conf

With --exit-code a difference exits with 1.

{FILES}"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "diff", run, summary="compare two resolved treefiles", description=DESCRIPTION
    )
    parser.add_argument("old", metavar="A", help="a treefile or a build-args file")
    parser.add_argument("new", metavar="B", help="another")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 when they differ")
    add_selection(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the differences."""
    with chosen(context, arguments, arguments.old) as choice:
        old = choice.flatten()
    with chosen(context, arguments, arguments.new) as choice:
        new = choice.flatten()
    found = compare(old, new)
    if context.as_json:
        document = [diff.to_json() for diff in found]
        print_json(document)
    else:
        sys.stdout.write("".join(f"{line}\n" for diff in found for line in _lines(diff)))
    return 1 if found and arguments.exit_code else 0


def _lines(diff: FieldDiff) -> Iterator[str]:
    def item(value: object) -> str:
        if diff.field == "postprocess":
            return script_title(str(value))
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    yield f"{diff.field}:"
    yield from (f"  - {item(value)}" for value in diff.removed)
    yield from (f"  + {item(value)}" for value in diff.added)
    for key, old, new in diff.changed:
        if diff.field == "postprocess":
            yield f"  ~ {key}"
            yield from _script(str(old), str(new))
            continue
        name = f"{key}: " if key else ""
        yield f"  {name}{_shown(old)} → {_shown(new)}"
    if diff.reordered:
        yield "  the same in another order"


def _script(old: str, new: str) -> Iterator[str]:
    """The lines of a script that changed."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    for line in lines:
        if not line.startswith(("---", "+++", "@@")):
            yield f"      {line}"


def _shown(value: object) -> str:
    return "(absent)" if value is None else json.dumps(value, ensure_ascii=False)
