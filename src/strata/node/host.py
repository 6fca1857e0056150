"""Where things are on the machine, and what the agent remembers: one JSON file under /run.

/run is gone at the next boot, and so is the overlay: the two live equally long.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from strata.core.errors import DefinitionError, StrataError
from strata.core.files import atomic_write, pretty_json
from strata.ostree.objects import Checksum, parse_checksum
from strata.ostree.repo import Repo

USR = "/usr"
ETC = "/etc"
STATE = Path("/run/strata-node/state.json")
BACKUP = Path("/run/strata-node/etc-before")
LOCK = Path("/run/strata-node/lock")
JOURNAL = Path("/run/strata-node/journal.jsonl")
NOW = Path("/run/strata-node/now")
BOOTED = Path("/run/ostree-booted")
REPO = Path("/ostree/repo")
SYSROOT = Path("/sysroot")
# Where libostree looks for deployments and boot entries.
ROOT = Path("/")
BOOT = Path("/boot")
# On the repository's file system, for hard links; not in its tmp, from which libostree removes what
# is a day old: a checkout's times are 0, and it may be the running /usr.
CHECKOUT = Path("/ostree/node-image")
# On a live system the root is read-only and cannot be linked from: what differs is in memory, on a
# tmpfs of its own (the agent's, or a unit's that is mounted there already).
LIVE_MARK = Path("/run/ostree-live")
LIVE = Path("/run/strata-node/live")
DEPLOYMENTS = Path("/ostree/deploy")
# There when SELinux is on, and when udev runs.
SELINUX = Path("/sys/fs/selinux/enforce")
UDEV = Path("/run/udev/control")
KERNEL_ARGUMENTS = Path("/proc/cmdline")

# How far a machine is, in order. BOOTED_NODE: it booted the node image, and needs no overlay.
NOTHING, PULLED, OVERLAID, FINISHED = "nothing", "pulled", "overlaid", "finished"
BOOTED_NODE = "booted"
ORDER = (NOTHING, PULLED, OVERLAID, FINISHED, BOOTED_NODE)
# There is nothing to pull or to overlay.
ALREADY = (OVERLAID, FINISHED, BOOTED_NODE)


@dataclass(frozen=True)
class State:
    """How far the machine is. Sizes in bytes, times in seconds; peaks are VmHWM. origin: the
    image with who has to have signed it; restarted, left: services that ran from files which the
    overlay changed."""

    phase: str = NOTHING
    image: str = ""
    origin: str = ""
    manifest_digest: str = ""
    merge_commit: str = ""
    base_commit: str = ""
    version: str = ""
    fetched_bytes: int = 0
    image_bytes: int = 0
    pull_seconds: float = 0.0
    overlay_seconds: float = 0.0
    pull_peak_bytes: int = 0
    overlay_peak_bytes: int = 0
    etc_changed: int = 0
    etc_kept: tuple[str, ...] = ()
    kernel_note: str = ""
    restarted: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def save(self) -> None:
        """Write the state durably."""
        atomic_write(STATE, pretty_json(asdict(self)))

    def at(self, phase: str, **values: object) -> State:
        """The state of a later phase."""
        return replace(self, phase=phase, **values)  # type: ignore[arg-type]

    @staticmethod
    def load() -> State:
        """The machine's state; the first phase when there is none. Raises DefinitionError."""
        try:
            document = json.loads(STATE.read_bytes())
            for name in ("etc_kept", "restarted", "left"):
                document[name] = tuple(document[name])
            return State(**document)
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError, KeyError) as error:
            raise DefinitionError(
                f"{STATE} is damaged: {error}", hint="remove it and run the agent again"
            ) from error


def require_booted() -> None:
    """Raise StrataError unless this machine was booted from an OSTree deployment."""
    if not BOOTED.exists() or not (REPO / "config").exists():
        raise StrataError(
            "this machine was not booted from an OSTree deployment",
            hint=f"the agent needs {BOOTED} and {REPO}",
        )


def architecture() -> str:
    """This machine's architecture, as uname names it."""
    return platform.machine()


def peak_memory_bytes() -> int:
    """The most memory this process has held (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise StrataError("the kernel does not say VmHWM")


def running_kernel() -> str:
    """The version of the running kernel."""
    return os.uname().release


def is_live() -> bool:
    """Whether this is a live system, from an ISO or over the network: its root is no disk's."""
    return LIVE_MARK.exists()


def checkout_path() -> Path:
    """Where the pulled node image's tree is shown, with `usr` in it."""
    return LIVE / "node-image" if is_live() else CHECKOUT


def open_repo() -> Repo:
    """The repository that has the pulled node image: on a live system, one in memory above the
    medium's. Raises ObjectError."""
    return Repo.open(LIVE / "repo" if is_live() else REPO)


def booted_commit() -> Checksum:
    """The commit of the booted deployment. Raises StrataError when it is not found."""
    found = sorted(DEPLOYMENTS.glob("*/deploy/*.[0-9]*"))
    for path in found:
        if path.is_dir() and os.path.samefile(path, "/"):
            return parse_checksum(path.name.partition(".")[0])
    for word in KERNEL_ARGUMENTS.read_text(encoding="utf-8", errors="replace").split():
        key, _, value = word.partition("=")
        if key == "ostree" and os.path.exists(value):
            return parse_checksum(Path(os.path.realpath(value)).name.partition(".")[0])
    raise StrataError(
        "which deployment is booted cannot be told",
        hint=f"none of {len(found)} in {DEPLOYMENTS} is this machine's root",
    )


def available_memory_bytes() -> int:
    """What can be had without swapping (MemAvailable)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise StrataError("the kernel does not say MemAvailable")
