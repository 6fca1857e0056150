"""`strata lint`: what the definitions of targets say, and likely do not mean."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from strata.cli.context import Context, add_command
from strata.cli.treefile.common import print_findings
from strata.core.errors import UsageError
from strata.treefile.extensionlint import lint_extensions
from strata.treefile.extensions import load_extensions
from strata.treefile.lint import Finding
from strata.treefile.project import Project, load_project
from strata.treefile.target import Target

DESCRIPTION = """\
Look into the definitions of targets for what loads, and yet is likely a mistake.
Exits with 1 on an error, with --strict on warnings too; notes never fail.

  strata lint extensions/4.19          kernels that may not match, repositories
                                       that let architectures drift apart

Treefiles are looked at by `strata treefile lint`.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "lint",
        run,
        summary="look for likely mistakes in targets' definitions",
        description=DESCRIPTION,
    )
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="e.g. extensions/4.19")
    parser.add_argument("--strict", action="store_true", help="warnings fail too")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the findings of all targets."""
    project = load_project(context.definitions)
    found: list[Finding] = []
    for text in arguments.targets:
        target = project.canonical(Target.parse(text))
        if target.kind not in RULES:
            known = ", ".join(f"{kind}/" for kind in RULES)
            raise UsageError(f"there are no rules for {target}", hint=f"there are for: {known}")
        found += RULES[target.kind](project, target)
    return print_findings(context, sorted(set(found)), strict=arguments.strict)


def _extensions(project: Project, target: Target) -> tuple[Finding, ...]:
    file = load_extensions(project.path, project.node(target).extensions)
    return lint_extensions(file, project.stream(target.stream).arches)


RULES: Mapping[str, Callable[[Project, Target], tuple[Finding, ...]]] = {
    "extensions": _extensions,
}
