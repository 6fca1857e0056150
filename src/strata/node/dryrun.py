"""What a command would do to this machine: the same questions, and nothing changed.

A dry run takes no lock, writes no state and no journal, and mounts, if it must, in a namespace of
its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from strata.core.errors import StrataError
from strata.core.events import Reporter
from strata.core.process import require_root
from strata.core.text import shortened
from strata.node import finish, host, live, merge, mounts, overlay, preflight, restarts, undo
from strata.node.config import NodeConfig
from strata.node.etcmerge import Plan
from strata.node.host import State
from strata.node.phases import PHASES
from strata.node.preflight import Preflight
from strata.node.restarts import Restart
from strata.node.wanted import Wanted
from strata.oci.source import open_source
from strata.ostree.repo import Repo


@dataclass(frozen=True)
class OverlayIntent:
    """What an overlay would do: to /etc, and to services that run."""

    etc: Plan
    services: tuple[Restart, ...]

    def lines(self) -> list[str]:
        """For people."""
        services = [
            f"{item.action:8} {item.unit} ({item.reason}): {shortened(item.files, 3)}"
            for item in self.services
        ]
        return [*self.etc.lines(), merge.summary(self.etc), *services]

    def to_json(self) -> dict[str, object]:
        """JSON-ready values."""
        return {**self.etc.to_json(), "services": [asdict(item) for item in self.services]}


def phases_of(command: str) -> list[dict[str, str]]:
    """What a command goes through, in order."""
    return [
        {"phase": phase.name, "does": phase.does} for phase in PHASES if phase.command == command
    ]


def pull_plan(wanted: Wanted, reporter: Reporter) -> Preflight:
    """What a pull would bring; the registry is asked once.

    Raises NotRootError, TransportError, NoSpaceError, and what a pull raises before it fetches.
    """
    require_root("reading the system's repository")
    host.require_booted()
    mounts.join_machine()
    signed = wanted.image(architecture=host.architecture(), reporter=reporter)
    if host.is_live() and (host.LIVE / "repo").exists():
        repo, free = host.open_repo(), preflight.free_in(host.LIVE)
    elif host.is_live():
        size = max(0, host.available_memory_bytes() - live.RESERVE_BYTES)
        repo, free = Repo.open(host.REPO), (size, live.inodes_for(size))
    else:
        repo, free = host.open_repo(), preflight.free_in(host.REPO)
    with open_source(
        signed.image, architecture=host.architecture(), signature=signed.signature
    ) as source:
        found = preflight.look(source, repo, signed.image, free=free)
    if not found.is_booted:
        found.require_room()
    return found


def overlay_plan(config: NodeConfig) -> OverlayIntent:
    """What an overlay would do; nothing is changed. Raises NotRootError, StrataError."""
    require_root("reading all of /etc")
    host.require_booted()
    mounts.join_machine()
    if undo.is_overlaid():
        raise StrataError(
            "a node image is mounted over /usr already: what the booted one was is not seen",
            hint="run strata-node undo first",
        )
    if State.load().phase != host.PULLED or not overlay.is_pulled():
        raise overlay.nothing_pulled()
    mounts.private_namespace()
    if host.is_live():
        live.show()
    changed = restarts.changed_files(host.USR, str(host.checkout_path() / "usr"))
    return OverlayIntent(merge.plan_now(config.etc), restarts.plan(changed, config))


def finish_plan() -> None:
    """Raise StrataError when a finish would be refused."""
    if State.load().phase not in host.ALREADY:
        raise finish.nothing_overlaid()
