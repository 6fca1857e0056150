"""`strata doctor`: which tools are missing, and the lines that install them."""

from __future__ import annotations

import argparse
import sys

from strata.cli.context import Context, add_command, print_json
from strata.cli.progress import print_table
from strata.core.errors import ToolMissingError
from strata.core.process import tool_version
from strata.core.tools import TOOLS, find_tool


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    add_command(
        commands,
        "doctor",
        doctor,
        summary="name missing tools, with the line that installs them",
        description="Look for the outside tools strata calls and say what each is for. For missing "
        "ones,\nprint the install line of apt and of dnf hosts. Exit status 4 when one is missing.",
    )


def doctor(context: Context, arguments: argparse.Namespace) -> int:
    """Probe every tool once."""
    versions: dict[str, str | None] = {}
    for name in sorted(TOOLS):
        try:
            find_tool(name)
            versions[name] = tool_version(name)
        except ToolMissingError:
            versions[name] = None
    missing = [TOOLS[name] for name, version in versions.items() if version is None]
    if context.as_json:
        document = {
            "tools": versions,
            "missing": [
                {"tool": tool.name, "apt": tool.apt, "dnf": tool.dnf, "purpose": tool.purpose}
                for tool in missing
            ],
        }
        print_json(document)
    else:
        rows = [
            [name, version or "MISSING", TOOLS[name].purpose] for name, version in versions.items()
        ]
        print_table("", ["tool", "version", "what strata uses it for"], rows)
        if missing:
            apt = " ".join(sorted({tool.apt for tool in missing}))
            dnf = " ".join(sorted({tool.dnf for tool in missing}))
            sys.stdout.write(f"To install what is missing:\n  apt install {apt}\n")
            sys.stdout.write(f"  dnf install {dnf}\n")
    return ToolMissingError.exit_status if missing else 0
