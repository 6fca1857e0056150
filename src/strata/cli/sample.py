"""`strata sample`: the sample distribution's repositories."""

from __future__ import annotations

import argparse
from pathlib import Path

from strata.cli.context import Context, add_command, add_group, print_json
from strata.cli.progress import print_table, size
from strata.sample.archive import COMPOSES
from strata.sample.repositories import build_repositories

DESCRIPTION = """\
Make real RPM repositories from Debian packages: sample-12-baseos (what the
bootc and CoreOS layers install), sample-12-node-4.19 (what only the node
layer does) and sample-12-extensions (what can be installed on a node), signed
by a key made for the purpose. The key, downloads and, by content, conversions
are kept in ~/.cache/strata (or $STRATA_CACHE); a second run takes a second.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(
        commands,
        "sample",
        summary="make the sample distribution's RPM repositories",
        description="The sample distribution: real RPMs to try strata with, made from Debian's.",
    )
    parser = add_command(
        verbs, "repos", repos, summary="make the repositories", description=DESCRIPTION
    )
    parser.add_argument("dest", metavar="DEST", help="folder for them, e.g. STORE/sample")
    parser.add_argument(
        "--compose",
        choices=sorted(COMPOSES),
        default="release",
        help="release: Debian's release pocket alone (default); updates: with its updates",
    )


def repos(context: Context, arguments: argparse.Namespace) -> int:
    """Make the repositories and say what is in them."""
    dest = Path(arguments.dest).absolute()
    if context.dry_run:
        context.reporter.note(f"would make the {arguments.compose} compose in {dest}")
        return 0
    made = build_repositories(
        dest,
        compose=arguments.compose,
        cache=context.cache,
        jobs=context.jobs,
        reporter=context.reporter,
    )
    if context.as_json:
        document = [
            {
                "name": item.name,
                "path": str(item.path),
                "packages": item.packages,
                "size_bytes": item.size_bytes,
                "converted": item.converted,
            }
            for item in made
        ]
        print_json(document)
    else:
        rows = [
            [item.name, str(item.packages), size(item.size_bytes), str(item.converted)]
            for item in made
        ]
        print_table("", ["repository", ">packages", ">size", ">converted now"], rows)
    return 0
