"""The agent's systemd units and generator, with upstream's names: installers start them so.

`unit_files` is pure; an installer's Ignition config and `strata-node units` both write what it
gives. `strata.node.units.order` looks for ordering cycles among the units of a machine.
"""

from __future__ import annotations

import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import UsageError
from strata.core.files import atomic_write
from strata.node.host import LIVE

# Where an installer puts the agent. Started by its own name, SELinux may let it become what ostree
# becomes; `python3 FILE` would stay what services are.
AGENT = "/usr/local/bin/strata-node.pyz"
# The package whose absence calls for the overlay, where nobody names another.
MARKER = "openshift-clients"
LIVE_SIZE = "50%"

TARGET = "node-image-overlay.target"
HOOK = "node-image-pull-pre.target"
PULL, OVERLAY, FINISH = (f"node-image-{name}.service" for name in ("pull", "overlay", "finish"))
GENERATOR = "node-image-overlay-generator"
UNIT_FOLDER = "etc/systemd/system"
GENERATOR_FOLDER = "etc/systemd/system-generators"

# Its kernel is not compressed: upstream's installer allows it this much where others have 5 GiB.
_ARCHITECTURE_SIZES = {"ppc64le": "6G"}


@dataclass(frozen=True)
class Installation:
    """How the agent is put on a machine.

    agent: the command that starts it, its file last. marker: the package whose absence calls for
    the overlay. live_size: of the tmpfs on live systems, as mount takes it. architecture: as uname
    names it. assisted: something else starts the overlay and nothing is isolated: there is no
    generator, no target and no finish.
    """

    agent: str = AGENT
    marker: str = MARKER
    live_size: str = LIVE_SIZE
    architecture: str = ""
    assisted: bool = False


@dataclass(frozen=True)
class UnitFile:
    """A file of the installation. path: below the machine's root, without a leading slash."""

    path: str
    text: str
    mode: int = 0o644

    @property
    def name(self) -> str:
        """Its name alone."""
        return self.path.rpartition("/")[2]


def escape_path(path: str) -> str:
    """A path as a unit's name has it, as `systemd-escape --path` does (systemd.unit(5))."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "-"
    return "-".join(_escape(part, not at) for at, part in enumerate(parts))


def _escape(part: str, first: bool) -> str:
    escaped = re.sub(
        r"[^A-Za-z0-9:_.]",
        lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()),
        part,
    )
    return "\\x2e" + escaped[1:] if first and escaped.startswith(".") else escaped


LIVE_MOUNT = f"{escape_path(str(LIVE))}.mount"


def unit_files(how: Installation) -> list[UnitFile]:
    """The units and the generator. Raises UsageError when a value does not fit into a unit."""
    _check(how)
    sources = [(HOOK, HOOK), (LIVE_MOUNT, "node-image-live.mount"), (PULL, PULL)]
    sources.append((OVERLAY, OVERLAY))
    if not how.assisted:
        sources += [(FINISH, FINISH), (TARGET, TARGET)]
    files = [UnitFile(f"{UNIT_FOLDER}/{name}", _fill(template, how)) for name, template in sources]
    size = _ARCHITECTURE_SIZES.get(how.architecture)
    if size and how.live_size == LIVE_SIZE:
        text = f"[Mount]\nOptions=mode=0755,nosuid,nodev,size={size}\n"
        files.append(UnitFile(f"{UNIT_FOLDER}/{LIVE_MOUNT}.d/10-architecture.conf", text))
    if not how.assisted:
        files.append(UnitFile(f"{GENERATOR_FOLDER}/{GENERATOR}", _fill(GENERATOR, how), 0o755))
    return files


def write_units(root: Path, how: Installation) -> list[Path]:
    """Write `unit_files` below a root (a machine's: `/`); returns the paths. Raises UsageError."""
    written = []
    for file in unit_files(how):
        path = root / file.path
        atomic_write(path, file.text.encode(), file.mode)
        written.append(path)
    return written


def _check(how: Installation) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]*", how.marker):
        raise UsageError(f"{how.marker!r} is not the name of a package")
    if not re.fullmatch(r"/[A-Za-z0-9/._+-]+( [A-Za-z0-9/._+=-]+)*", how.agent):
        raise UsageError(
            f"{how.agent!r} does not start the agent from a unit",
            hint="write an absolute path of letters, digits, dots and dashes",
        )
    if not re.fullmatch(r"[1-9][0-9]*[kKmMgG%]?", how.live_size):
        raise UsageError(
            f"{how.live_size!r} is not the size of a tmpfs", hint="write it like 5G or 50%"
        )


def _fill(name: str, how: Installation) -> str:
    data = pkgutil.get_data("strata.node.units", f"{name}.in")
    if data is None:
        raise UsageError(f"the agent was packed without {name}")
    values = {
        "AGENT": how.agent,
        "FILE": how.agent.split()[-1],
        "MARKER": how.marker,
        "LIVE": str(LIVE),
        "LIVE_SIZE": how.live_size.replace("%", "%%"),
        "LIVE_MOUNT": LIVE_MOUNT,
    }
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], data.decode("utf-8"))
