"""`strata build`: targets into images in the store."""

from __future__ import annotations

import argparse
import sys

from strata.cli.context import Context, add_command, print_json
from strata.cli.progress import print_table, size
from strata.compose.build import BUILT, BuildResult, build_targets, summary
from strata.compose.context import BuildContext
from strata.compose.workspace import Workspace
from strata.oci.reference import ImageReference
from strata.treefile.project import load_project
from strata.treefile.target import Target

DESCRIPTION = """\
Build targets, and what they stand on, into the store. What is up to date is
not built again; what differs is named.

  strata build node/4.19                    the node image, its base when needed
  strata build bootc/sample-12 coreos/sample-12
  strata build extensions/4.19              packages that go on top of a node
  strata build node/4.19 --base docker://registry.example/coreos:12.9
                                            on a published base, without its
                                            definitions
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "build", build, summary="build images into the store", description=DESCRIPTION
    )
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="e.g. node/4.19")
    parser.add_argument("--base", metavar="IMGREF", help="build node targets on this image")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="build again what is up to date, and compare to the byte",
    )


def build(context: Context, arguments: argparse.Namespace) -> int:
    """Build and say what became of each target."""
    results = build_targets(
        make_build_context(context),
        [Target.parse(text) for text in arguments.targets],
        base=ImageReference.parse(arguments.base) if arguments.base else None,
        verify=arguments.verify,
        dry_run=context.dry_run,
        reporter=context.reporter,
    )
    if context.as_json:
        document = [_result_json(result) for result in results]
        print_json(document)
    else:
        _show(results)
    return 0


def make_build_context(context: Context) -> BuildContext:
    """The definitions and the store of a command."""
    project = load_project(context.definitions)
    return BuildContext(project, Workspace.create(context.store), context.arch, context.jobs)


def _result_json(result: BuildResult) -> dict[str, object]:
    return {
        "target": str(result.target),
        "status": result.status,
        "changes": [str(change) for change in result.changes],
        "compared": [str(item) for item in result.compared],
        "outputs": dict(result.record.outputs) if result.record else {},
    }


def _show(results: list[BuildResult]) -> None:
    rows = []
    for result in results:
        outputs = result.record.outputs if result.record else {}
        rows.append(
            [
                str(result.target),
                result.status,
                str(outputs.get("version", "")),
                str(outputs.get("packages", "")),
                str(outputs.get("layers", "")),
                size(int(str(outputs["size_bytes"]))) if outputs else "",
                f"{result.seconds:.1f}" if result.status == BUILT else "",
            ]
        )
    columns = ["target", "", "version", ">packages", ">layers", ">size", ">seconds"]
    print_table("", columns, rows)
    for result in results:
        if result.changes:
            sys.stdout.write(f"{result.target}, because:\n")
            sys.stdout.writelines(f"  {change}\n" for change in result.changes)
        elif result.compared and result.status != BUILT:
            sys.stdout.write(f"{result.target}: compared {summary(result.compared)}\n")
