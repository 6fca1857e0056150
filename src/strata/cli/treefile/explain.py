"""`strata treefile explain`: which line brought a package in, and how it came to count."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from strata.cli.context import Context, add_command, print_json
from strata.cli.treefile.common import FILES, add_file, chosen
from strata.core.errors import DefinitionError
from strata.treefile.explain import Mention, explain, near

DESCRIPTION = f"""\
Say which lines name a package: the includes that lead there, from the treefile
down, and the conditions that had to hold.

  strata treefile explain build-args-rhel-9.8.conf fwupd-plugin-flashrom

{FILES}"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "explain",
        run,
        summary="which lines brought a package in",
        description=DESCRIPTION,
    )
    add_file(parser)
    parser.add_argument("package", metavar="PACKAGE", help="its name")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the lines."""
    with chosen(context, arguments, arguments.file) as choice:
        flat = choice.flatten()
    found = explain(flat, arguments.package)
    if not found:
        names = near(flat, arguments.package)
        raise DefinitionError(
            f"no line of {arguments.file} names {arguments.package}",
            hint=f"named are {', '.join(names[:8])}"
            if names
            else "if it is in the tree, something that is named depends on it: see the lock",
        )
    if context.as_json:
        document = [_json(mention) for mention in found]
        print_json(document)
    else:
        sys.stdout.write("\n".join(line for mention in found for line in _lines(mention)) + "\n")
    return 0


def _lines(mention: Mention) -> Iterator[str]:
    item = mention.item
    yield f"{item.text}, in {mention.kind} at {item.source}"
    for depth, step in enumerate(item.chain, 1):
        what = f"includes {step.name}" if step.name else "has an inline treefile"
        when = f" if {' and '.join(step.conditions)}" if step.conditions else ""
        yield f"{'  ' * depth}{step.place} {what}{when}"


def _json(mention: Mention) -> dict[str, object]:
    item = mention.item
    return {
        "text": item.text,
        "kind": mention.kind,
        "file": item.source.file,
        "line": item.source.line,
        "chain": [
            {
                "file": step.place.file,
                "line": step.place.line,
                "include": step.name or None,
                "conditions": list(step.conditions),
            }
            for step in item.chain
        ],
    }
