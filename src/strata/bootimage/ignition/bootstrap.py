"""The Ignition config that puts the agent, what it is told and how it reaches a registry on a
machine. Pure: made from values, without any network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from strata.bootimage.ignition import UNIT_FOLDER, Config, File
from strata.bootimage.ignition.network import ENVIRONMENT, FOLDER, Network, network_files
from strata.core.errors import UsageError
from strata.core.files import pretty_json
from strata.core.text import shown

NODE_JSON = f"{FOLDER}/node.json"
PULL = "node-image-pull.service"
USER = "core"


@dataclass(frozen=True)
class Bootstrap:
    """What a machine gets. node_config: `node.json`; installation: the agent's units, drop-ins and
    generator; agent: the agent and its path, None when the boot image has it."""

    node_config: Mapping[str, object]
    installation: Sequence[File]
    agent: File | None = None
    network: Network = field(default_factory=Network)
    ssh_keys: Sequence[str] = ()


def bootstrap_config(wanted: Bootstrap) -> bytes:
    """The Ignition config. Raises UsageError when a value does not fit where it has to go."""
    files = [File(NODE_JSON, pretty_json(dict(wanted.node_config)))]
    files += network_files(wanted.network)
    units = [file for file in wanted.installation if file.path.startswith(UNIT_FOLDER)]
    if any(file.path == ENVIRONMENT for file in files):
        text = f"[Service]\nEnvironmentFile={ENVIRONMENT}\n"
        units.append(File(f"{UNIT_FOLDER}{PULL}.d/20-network.conf", text.encode()))
    files += [file for file in wanted.installation if not file.path.startswith(UNIT_FOLDER)]
    if wanted.agent:
        files.append(wanted.agent)
    users = [(USER, [_ssh_key(key) for key in wanted.ssh_keys])] if wanted.ssh_keys else []
    return Config(files=files, users=users, unit_files=units).to_bytes()


def _ssh_key(text: str) -> str:
    key = text.strip()
    if not re.fullmatch(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]{16,}( [^\n]*)?", key):
        raise UsageError(f"{shown(text[:40])!r} is not a public ssh key")
    return key
