"""The agent's systemd units and generator, with upstream's names: installers start them so."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

from strata.core.errors import UsageError
from strata.core.files import atomic_write

UNITS = (
    "node-image-pull.service",
    "node-image-overlay.service",
    "node-image-finish.service",
    "node-image-overlay.target",
)
# The package whose absence calls for the overlay, where nobody names another.
MARKER = "openshift-clients"
GENERATOR = "node-image-overlay-generator"
UNIT_FOLDER = "etc/systemd/system"
GENERATOR_FOLDER = "etc/systemd/system-generators"


def write_units(root: Path, *, agent: str, marker: str) -> list[Path]:
    """Write the units and the generator below `root` (`/` on a machine); returns their paths.

    agent: the command that starts the agent; marker: the package whose absence calls for the
    overlay. Raises UsageError when the marker is no package name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]*", marker):
        raise UsageError(f"{marker!r} is not the name of a package")
    written = []
    for name in UNITS:
        path = root / UNIT_FOLDER / name
        atomic_write(path, _fill(name, agent, marker))
        written.append(path)
    path = root / GENERATOR_FOLDER / GENERATOR
    atomic_write(path, _fill(GENERATOR, agent, marker), 0o755)
    return [*written, path]


def _fill(name: str, agent: str, marker: str) -> bytes:
    data = pkgutil.get_data("strata.node.units", f"{name}.in")
    if data is None:
        raise UsageError(f"the agent was packed without {name}")
    text = data.decode("utf-8").replace("@AGENT@", agent).replace("@MARKER@", marker)
    return text.encode("utf-8")
