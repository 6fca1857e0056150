"""Running a node image on its base: deploy, boot, overlay, look.

The machine is set up as an installer would: the agent, its units and its configuration are files of
the machine's own /etc and /var; the image comes from the store, shown read-only inside.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.bootimage.sysroot import Deployment, deploy
from strata.compose.fetch import fetch_to_store
from strata.compose.workspace import Workspace
from strata.container.importer import import_image
from strata.core.errors import ImageError, MachineError
from strata.core.events import Reporter
from strata.core.files import remove_tree, scratch_dir
from strata.core.process import require_root
from strata.machine.deploy import put_file, put_tree
from strata.machine.facts import Facts, gather
from strata.machine.nspawn import Bind, NspawnMachine, running
from strata.node.pack import build_zipapp
from strata.node.units import AGENT, Installation, write_units
from strata.oci.digest import Digest
from strata.oci.reference import ImageReference
from strata.oci.source import open_source

STORE_INSIDE = "/run/strata-store"
GO = "/run/strata-go"
_HOLD = f"""\
[Service]
ExecStartPre=/bin/sh -c 'until [ -e {GO} ]; do sleep 0.05; done'
"""
BOOT_TIMEOUT_S = 60.0
OVERLAY_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Images:
    """What a machine runs. node: empty when only the base is booted; else its manifest's digest."""

    base_commit: str
    node: Digest | None
    node_reference: str
    layers: int
    size_bytes: int


def stored_images(
    workspace: Workspace,
    node: ImageReference | None,
    base: ImageReference | None,
    *,
    arch: str,
    reporter: Reporter,
) -> Images:
    """Have the images in the store, and the base's commit in its repository.

    node alone: the base is the commit it encapsulates. A base image with derived layers of its own
    is booted with them. Raises ImageError, TransportError, MachineError.
    """
    if node is None and base is None:
        raise MachineError("neither a node nor a base image is named")
    stored = {}
    for name, reference in (("node", node), ("base", base)):
        if reference is not None:
            stored[name] = fetch_to_store(workspace, reference, arch=arch, reporter=reporter)
    below = stored.get("base") or stored["node"]
    with open_source(below, architecture=arch) as source:
        result = import_image(source, workspace.repo(), reference=below, reporter=reporter)
    derived = "base" in stored and any(layer.kind == "derived" for layer in result.layers)
    commit = result.merge_commit if derived else result.base_commit
    if not commit:
        raise ImageError(
            f"{node} encapsulates no commit, so it does not say which base it stands on",
            hint="name the base with --base",
        )
    if "node" not in stored:
        return Images(commit, None, "", 0, 0)
    with open_source(stored["node"], architecture=arch) as source:
        digest, layers = source.manifest_digest, source.manifest.layers
    size = sum(layer.size_bytes for layer in layers)
    inside = f"oci:{STORE_INSIDE}@{digest}"
    return Images(commit, digest, inside, len(layers), size)


def set_up(
    workspace: Workspace, images: Images, folder: Path, *, marker: str, hold: bool
) -> Deployment:
    """Deploy the base and put an installer's files on it.

    hold: the pull waits for GO, so that the machine can be looked at before.
    """
    deployment = deploy(workspace.store / "repo", images.base_commit, folder / "sysroot")
    if images.node is None:
        return deployment
    with scratch_dir(folder, "installer") as installer:
        write_units(installer, Installation(marker=marker))
        put_tree(deployment, installer)
        agent = build_zipapp(installer / "strata-node.pyz").read_bytes()
    put_file(deployment, "/var/usrlocal/bin/strata-node.pyz", agent, 0o755)
    config = json.dumps({"image": images.node_reference})
    put_file(deployment, "/etc/strata/node.json", config.encode() + b"\n")
    if hold:
        drop_in = "/etc/systemd/system/node-image-pull.service.d/10-hold.conf"
        put_file(deployment, drop_in, _HOLD.encode())
    return deployment


@dataclass(frozen=True)
class Overlaid:
    """A machine before and after. seconds: from the start of the pull to multi-user.target with
    its services; status: what the agent says."""

    before: Facts
    after: Facts
    seconds: float
    status: dict[str, object]


@contextmanager
def booted(
    workspace: Workspace,
    images: Images,
    name: str,
    *,
    marker: str,
    reporter: Reporter,
    network_namespace: Path | None = None,
    keep: bool = False,
) -> Iterator[NspawnMachine]:
    """Deploy and boot a machine; it and its files are gone after the block, unless `keep` is set
    and the block ended well.

    Raises MachineError, NotRootError, ToolFailedError.
    """
    require_root("booting a machine")
    folder = workspace.machines / name
    known = running(folder)
    if known is not None:
        raise MachineError(
            f"the machine {name} is running already",
            hint=f"to end it: {shlex.join(known.power_off_command())}",
        )
    remove_tree(folder)
    folder.mkdir(parents=True)
    kept = False
    try:
        with reporter.step("deploy the base"):
            deployment = set_up(workspace, images, folder, marker=marker, hold=True)
        machine = NspawnMachine(
            deployment,
            folder,
            binds=(Bind(workspace.store, STORE_INSIDE),),
            network_namespace=network_namespace,
        )
        with machine:
            with reporter.step("boot under systemd-nspawn"):
                machine.wait_until(
                    "systemctl",
                    "is-active",
                    "basic.target",
                    timeout_s=BOOT_TIMEOUT_S,
                    what="basic.target",
                )
            yield machine
            if keep:
                machine.detach()
                kept = True
    finally:
        if not kept:
            remove_tree(folder)


def overlay(machine: NspawnMachine, reporter: Reporter, *, agent: str = AGENT) -> Overlaid:
    """Let the held pull go, wait until the machine is through, and compare. agent: its path there.

    Raises MachineError when it does not get there, with the journal's end.
    """
    before = gather(machine)
    with reporter.step("overlay the node image") as step:
        started = time.monotonic()
        machine.run("touch", GO)
        _wait_for_phase(machine, "finished")
        machine.wait_until(
            "systemctl",
            "is-active",
            "multi-user.target",
            timeout_s=OVERLAY_TIMEOUT_S,
            what="multi-user.target",
        )
        # The switch of targets is over when no job waits any more.
        machine.wait_until(
            "sh",
            "-c",
            '[ -z "$(systemctl list-jobs --no-legend)" ]',
            timeout_s=OVERLAY_TIMEOUT_S,
            what="the end of all jobs",
        )
        seconds = time.monotonic() - started
        step.detail(f"{seconds:.1f} s from the start of the pull")
    return Overlaid(before, gather(machine), seconds, agent_status(machine, agent))


def agent_status(machine: NspawnMachine, agent: str = AGENT) -> dict[str, object]:
    """`strata-node status --json` inside the machine."""
    done = machine.run(agent, "status", "--json")
    status: dict[str, object] = json.loads(done.stdout)
    return status


def _wait_for_phase(machine: NspawnMachine, phase: str) -> None:
    deadline = time.monotonic() + OVERLAY_TIMEOUT_S
    units = [f"node-image-{name}.service" for name in ("pull", "overlay", "finish")]
    while True:
        state = machine.run("cat", "/run/strata-node/state.json", check=False).stdout
        if state and json.loads(state)["phase"] == phase:
            return
        failed = machine.run("systemctl", "is-failed", *units, check=False).stdout.split()
        if "failed" in failed or time.monotonic() > deadline:
            journal = machine.run(
                "journalctl",
                "--no-pager",
                "-n",
                "40",
                *(f"--unit={unit}" for unit in units),
                check=False,
            ).stdout
            what = "failed" if "failed" in failed else "did not finish"
            raise MachineError(
                f"the overlay {what} in the machine",
                hint=f"the machine's console is in {machine.console}",
                context={"console": journal},
            )
        time.sleep(0.2)
