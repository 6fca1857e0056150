"""`strata lock export`: a lock in the form of another tool."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from strata.cli.context import Context, add_command
from strata.rpm.lock import Lock
from strata.rpm.manifestlock import manifest_lock_bytes

DESCRIPTION = """\
Print a lock of ours as a manifest lock, which rpm-ostree and the tools of
fedora-coreos-config read.

  strata lock export build/store/locks/coreos/sample-12.lock >manifest-lock.x86_64.json
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "export", run, summary="a lock as a manifest lock", description=DESCRIPTION
    )
    parser.add_argument("lock", metavar="LOCK", help="a lock of ours")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print it."""
    lock = Lock.load(Path(arguments.lock))
    sys.stdout.write(manifest_lock_bytes(lock).decode())
    return 0
