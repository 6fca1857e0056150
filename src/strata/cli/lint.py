"""`strata lint`: what the definitions of targets say, and likely do not mean; what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from strata.cli.context import Context, add_command
from strata.cli.lintpublic import show_needs
from strata.cli.treefile.common import print_findings
from strata.compose.extensionrepos import lint_repositories
from strata.compose.workspace import Workspace
from strata.core.errors import UsageError
from strata.treefile.extensionlint import lint_extensions
from strata.treefile.extensions import load_extensions
from strata.treefile.lint import Finding
from strata.treefile.project import Project, load_project
from strata.treefile.target import Target

DESCRIPTION = """\
Look into the definitions of targets for what loads, and yet is likely a mistake.
Exits with 1 on an error, with --strict on warnings too; notes never fail.

  strata lint extensions/4.19       kernels that may not match, repositories
                                    that let architectures drift apart
  strata lint --repositories        the same, and what repositories have on every
                                    architecture of a stream: this takes the network
  strata lint --public              what builds need that is not public: repositories,
  strata lint --public node/4.19    images and secrets, with the line that asks for each

What is public is declared in strata.toml, by prefixes of addresses and images:
public = ["https://mirror.example/", "registry.example/os"]. Exits with 1 when
something is not. Treefiles are looked at by `strata treefile lint`.
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
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help="default: all that there are rules for")
    add("--strict", action="store_true", help="warnings fail too")
    add("--repositories", action="store_true", help="look into them, on every architecture")
    add("--public", action="store_true", help="list what is not public")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the findings of all targets."""
    targets = [Target.parse(text) for text in arguments.targets]
    if arguments.public:
        return show_needs(context, targets)
    project = load_project(context.definitions)
    found: list[Finding] = []
    wanted = [project.canonical(target) for target in targets]
    for target in wanted or [one for one in project.targets() if one.kind in RULES]:
        if target.kind not in RULES:
            known = ", ".join(f"{kind}/" for kind in RULES)
            raise UsageError(f"there are no rules for {target}", hint=f"there are for: {known}")
        found += RULES[target.kind](project, target)
        if arguments.repositories:
            workspace = Workspace.create(context.store)
            found += lint_repositories(project, target, workspace.files, workspace.metadata)
    return print_findings(context, sorted(set(found)), strict=arguments.strict)


def _extensions(project: Project, target: Target) -> tuple[Finding, ...]:
    file = load_extensions(project.path, project.node(target).extensions)
    return lint_extensions(file, project.stream(target.stream).arches)


RULES: Mapping[str, Callable[[Project, Target], tuple[Finding, ...]]] = {
    "extensions": _extensions,
}
