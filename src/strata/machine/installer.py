"""What an installer puts on a machine, as files of an Ignition config: the agent and its units."""

from __future__ import annotations

from strata.bootimage.ignition import File
from strata.core.files import scratch_dir
from strata.node.pack import build_zipapp
from strata.node.units import AGENT, Installation, unit_files
from strata.oci.source import temporary_folder


def agent_file() -> File:
    """The agent, where its units look for it."""
    with scratch_dir(temporary_folder(), "strata-agent") as folder:
        return File(AGENT, build_zipapp(folder / "agent.pyz").read_bytes(), 0o755)


def installation_files(how: Installation) -> list[File]:
    """The units and the generator. Raises UsageError when a value does not fit into a unit."""
    return [File(f"/{one.path}", one.text.encode(), one.mode) for one in unit_files(how)]
