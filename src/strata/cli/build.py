"""`strata build`: targets into images in the store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from strata.bootimage.build import prepare_bootimage
from strata.cli.context import Context, add_command, print_json
from strata.cli.progress import print_table, size
from strata.cli.scriptshell import before_shell, shell_hint
from strata.compose.amend import parse_with
from strata.compose.build import BUILT, BuildResult, build_targets, prepare_context, summary
from strata.compose.context import BUILDAH, ENGINES, NATIVE, BuildContext, hermetic
from strata.compose.steps import Fate
from strata.compose.workspace import Workspace
from strata.core.errors import UsageError
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
  strata build node/4.19 --with ./kubelet:/usr/bin/kubelet
                                            with a file that was just built
  strata build hotfix/case-0042             a node layer with one case's change
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "build", build, summary="build images into the store", description=DESCRIPTION
    )
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="e.g. node/4.19")
    parser.add_argument("--base", metavar="IMGREF", help="build node targets on this image")
    add_with(parser)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=NATIVE,
        help="what builds node layers: strata itself, or buildah by the Containerfile",
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=ID,src=FILE",
        help="a file for the Containerfile's steps that mount it, and for no layer",
    )
    parser.add_argument(
        "--context",
        metavar="DIR",
        help="write what a node layer's Containerfile needs beside the definitions (packages, and "
        "what applies the treefile) to a new folder, for a CI to build; build only what is below",
    )
    parser.add_argument(
        "--dev",
        action="store_true",
        help="base layers that are built get a version that ends in .dev",
    )
    parser.add_argument(
        "--hermetic",
        metavar="FILE",
        help="a .repo file of prefetched packages: its repositories, and no others, are used",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="build each a second time under another clock, umask, locale, directory order and "
        "number of CPUs, and compare to the byte",
    )
    parser.add_argument(
        "--shell",
        action="store_true",
        help="when a postprocess script fails, open a shell in its sandbox",
    )


def add_with(parser: argparse.ArgumentParser) -> None:
    """The option that swaps components."""
    parser.add_argument(
        "--with",
        dest="swaps",
        action="append",
        default=[],
        metavar="FILE:PATH|RPM",
        help="swap a component of the node layer; the image and its record say so",
    )


def build(context: Context, arguments: argparse.Namespace) -> int:
    """Build and say what became of each target."""
    building = replace(
        make_build_context(context),
        dev=arguments.dev,
        engine=arguments.engine,
        secrets=tuple(arguments.secret),
    )
    if arguments.secret and arguments.engine != BUILDAH:
        raise UsageError("--secret is for --engine buildah: the native engine has no use for it")
    if arguments.hermetic:
        building = hermetic(building, Path(arguments.hermetic))
    if arguments.shell:
        if arguments.engine == BUILDAH:
            raise UsageError(
                "--shell is for the native engine: buildah's steps end with it",
                hint="leave --engine out; it runs the same scripts",
            )
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError("--shell needs a terminal", hint="leave it out: the error is shown")
        building = replace(building, before_shell=before_shell(context))
    with _rerun(context, arguments):
        if arguments.context:
            return _write_context(context, building, arguments)
        results = _build(context, building, arguments)
    if context.as_json:
        document = [_result_json(result) for result in results]
        print_json(document)
    else:
        _show(results)
    return 0


def _rerun(context: Context, arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """A script's failure names the build that opens a shell; not where one was open."""
    if arguments.shell:
        return nullcontext()
    options = ["--dev"] if arguments.dev else []
    options += ["--hermetic", arguments.hermetic] if arguments.hermetic else []
    return shell_hint(
        context, arguments.targets, base=arguments.base, swaps=arguments.swaps, options=options
    )


def _write_context(context: Context, building: BuildContext, arguments: argparse.Namespace) -> int:
    context.no_dry_run("build --context")
    if len(arguments.targets) != 1:
        raise UsageError("--context is of one node target")
    folder = Path(arguments.context)
    target = Target.parse(arguments.targets[0])
    base = ImageReference.parse(arguments.base) if arguments.base else None
    given = parse_with(arguments.swaps)
    found = prepare_context(building, target, base, given, folder, context.reporter)
    if context.as_json:
        print_json({"folder": str(folder), "arguments": dict(found)})
    else:
        sys.stdout.write(f"{folder}: for --build-context strata={folder}, with the arguments\n")
        sys.stdout.writelines(f"  --build-arg {key}={value}\n" for key, value in found.items())
    return 0


def _build(
    context: Context, building: BuildContext, arguments: argparse.Namespace
) -> list[BuildResult]:
    return build_targets(
        building,
        [Target.parse(text) for text in arguments.targets],
        base=ImageReference.parse(arguments.base) if arguments.base else None,
        given=parse_with(arguments.swaps),
        verify=arguments.verify,
        dry_run=context.dry_run,
        reporter=context.reporter,
    )


def make_build_context(context: Context) -> BuildContext:
    """The definitions and the store of a command."""
    project = load_project(context.definitions)
    workspace = Workspace.create(context.store, cache_limit_bytes=context.cache_limit_bytes)
    makers = {"bootimage": prepare_bootimage}
    return BuildContext(project, workspace, context.arch, context.jobs, makers=makers)


def _result_json(result: BuildResult) -> dict[str, object]:
    return {
        "target": str(result.target),
        "status": result.status,
        "changes": [str(change) for change in result.changes],
        "steps": [fate.to_json() for fate in result.steps],
        "compared": [str(item) for item in result.compared],
        "outputs": dict(result.record.outputs) if result.record else {},
        "verified": result.verified.to_json() if result.verified else None,
    }


def _steps_text(steps: Sequence[Fate]) -> str:
    """Which steps are made again, when some are not."""
    same = ", ".join(fate.name for fate in steps if fate.same)
    made = ", ".join(fate.name for fate in steps if not fate.same)
    return f"  so its {made} is made again; its {same} is as before\n" if same and made else ""


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
            sys.stdout.write(_steps_text(result.steps))
        elif result.compared and result.status != BUILT:
            sys.stdout.write(f"{result.target}: compared {summary(result.compared)}\n")
        if result.verified:
            conditions = ", ".join(result.verified.conditions)
            sys.stdout.write(f"{result.target}: built again, equal to the byte ({conditions})\n")
