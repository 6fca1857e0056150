"""`strata image lint`: the rules an image must keep."""

from __future__ import annotations

import argparse

from strata.cli.context import Context, add_command
from strata.cli.image.looking import (
    add_arch_option,
    all_files,
    opened,
    plural,
    print_json,
    write,
)
from strata.core.text import shown
from strata.inspect.lint import Outcome, is_fatal
from strata.inspect.lintimage import RULES, lint_image

DESCRIPTION = """\
Check an image against the rules of `bootc container lint` and those between
its layers: no node package in the base, the package list last and true, no
.pyc of the base rewritten, nothing in /var, /run and /tmp. Exits with 1 on a
fatal finding.

  strata image lint oci:build/store:node/4.19@sample-12 --node-only 'openvswitch-*'
"""
SHOWN_FINDINGS = 8


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "lint", run, summary="check the rules an image must keep", description=DESCRIPTION
    )
    parser.add_argument("image", metavar="IMGREF", help="e.g. oci:DIR:TAG or docker://HOST/NAME")
    parser.add_argument(
        "--node-only",
        metavar="PATTERN",
        nargs="+",
        default=[],
        help="names of packages that belong to the node layer, not to the base",
    )
    add_arch_option(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Check and print."""
    with opened(context, arguments, arguments.image) as image:
        files = all_files(context, image, digests=True)
        outcomes = lint_image(*image, files, arguments.node_only)
    fatal = is_fatal(outcomes)
    if context.as_json:
        print_json({"ok": not fatal, "rules": [outcome.to_json() for outcome in outcomes]})
        return 1 if fatal else 0
    for outcome in outcomes:
        _print(outcome)
    kept = sum(1 for of in outcomes if not of.findings and not of.skipped)
    found = {
        level: sum(len(of.findings) for of in outcomes if of.rule.level == level)
        for level in ("fatal", "warning")
    }
    write(
        f"{kept} of {plural(len(RULES), 'rule')} kept, "
        f"{plural(found['fatal'], 'fatal finding')}, {plural(found['warning'], 'warning')}"
    )
    return 1 if fatal else 0


def _print(outcome: Outcome) -> None:
    rule = outcome.rule
    if outcome.skipped:
        write(f"skipped  {rule.id}: {outcome.skipped}")
    for finding in outcome.findings[:SHOWN_FINDINGS]:
        write(f"{rule.level:<8} {rule.id}: {shown(finding.message)}", f"         {finding.hint}")
    if len(outcome.findings) > SHOWN_FINDINGS:
        more = len(outcome.findings) - SHOWN_FINDINGS
        write(f"{rule.level:<8} {rule.id}: … and {more} more (--json lists all)")
