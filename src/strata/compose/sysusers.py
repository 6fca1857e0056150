"""`sysusers`: the users that packages and overlays declare are made when the tree is.

Newer versions of rpm make them while they install; rpm-ostree knows such a tree by rpm's macro
`%__systemd_sysusers` and then runs it for all, so that a tree has the users whoever installed it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from strata.core import rooted
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import definition_error

FORCED = "compose-forced"
_COMMAND = "/usr/bin/systemd-sysusers"
# Runs a command in the tree; returns what it printed.
RunInTree = Callable[[list[str]], str]


def make_users(root: Path, treefile: Flattened, run: RunInTree) -> bool:
    """Run systemd-sysusers in a root as the treefile has it; returns whether it ran.

    Raises DefinitionError when it is forced and not there, ToolFailedError.
    """
    command = ""
    if rooted.resolve(root, "usr/bin/rpm").exists():
        command = run(["rpm", "--eval", "%{?__systemd_sysusers}"]).strip()
    if not command and treefile.text("sysusers") == FORCED:
        command = _COMMAND
    if not command:
        return False
    if not rooted.resolve(root, command).exists():
        raise definition_error(
            treefile.places.get("sysusers"),
            f"the tree has no {command} to make users with",
            "add the package that brings it (systemd), or leave sysusers out",
            key="sysusers",
        )
    run([command])
    return True
