"""What this machine's libostree can do."""

from __future__ import annotations

import re

from strata.core.errors import ToolFailedError, ToolMissingError
from strata.core.process import run

# From this release on, what an image has in /var is copied to a machine at its first deployment.
KEEPS_VAR = (2024, 3)


def libostree_version() -> tuple[int, int]:
    """The version of the `ostree` on PATH, or (0, 0) when there is none."""
    try:
        text = run(["ostree", "--version"]).stdout
    except (ToolMissingError, ToolFailedError):
        return (0, 0)
    return parse_version(text)


def parse_version(text: str) -> tuple[int, int]:
    """The version in `ostree --version`'s output; (0, 0) when it has none."""
    match = re.search(r"Version:\s*'?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def keeps_var() -> bool:
    """Whether deployments of this machine's libostree bring an image's /var along."""
    return libostree_version() >= KEEPS_VAR
