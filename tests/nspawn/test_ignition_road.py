"""A machine that `strata ignition bootstrap` set up, booted: the agent inside the config, and
in the CoreOS layer. Ignition runs on the machine's files: nspawn has no first boot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import copy_store, run_strata
from igniting import ignite
from strata.bootimage.sysroot import deploy
from strata.compose.workspace import Workspace
from strata.core.events import silent
from strata.core.files import remove_tree
from strata.machine.deploy import put_tree
from strata.machine.nspawn import Bind, NspawnMachine
from strata.machine.session import GO, STORE_INSIDE, agent_status, overlay, stored_images
from strata.node.pack import build_zipapp
from strata.node.units import AGENT, FINISH, LIVE_MOUNT, OVERLAY
from strata.oci.reference import ImageReference

pytestmark = [pytest.mark.nspawn, pytest.mark.usefixtures("nothing_left_running")]

MARKER = "kubernetes-client"
# Waits for the test, and is a service that the pull needs: it says so by the hook.
HOLD = f"""\
[Unit]
Before=node-image-pull-pre.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until [ -e {GO} ]; do sleep 0.05; done'
[Install]
WantedBy=node-image-pull-pre.target
"""
FOLDER = "etc/systemd/system"


@contextmanager
def ignited(store: Path, scratch: Path, *options: str) -> Iterator[NspawnMachine]:
    """A machine of the sample's base with the config's files, booted."""
    workspace = Workspace.create(store)
    node = ImageReference("oci", str(store), "node/4.19@sample-12")
    images = stored_images(workspace, node, None, arch="x86_64", reporter=silent())
    config = scratch / "config.ign"
    which = ("--image", images.node_reference, "--marker", MARKER)
    run_strata("ignition", "bootstrap", *which, *options, "-o", str(config))
    root = ignite(config.read_bytes(), scratch / "root")
    (root / FOLDER / "hold.service").write_text(HOLD)
    wants = root / FOLDER / "node-image-pull-pre.target.wants"
    wants.mkdir()
    (wants / "hold.service").symlink_to("../hold.service")
    if (root / "usr/local").exists():
        (root / "var").mkdir(exist_ok=True)
        (root / "usr/local").rename(root / "var/usrlocal")
    folder = workspace.machines / f"test-{scratch.name}"
    remove_tree(folder)
    folder.mkdir(parents=True)
    try:
        deployment = deploy(store / "repo", images.base_commit, folder / "sysroot")
        put_tree(deployment, root)
        with NspawnMachine(deployment, folder, binds=(Bind(store, STORE_INSIDE),)) as machine:
            machine.wait_until(
                "systemctl", "is-active", "basic.target", timeout_s=60, what="basic.target"
            )
            yield machine
    finally:
        remove_tree(folder)


def check(machine: NspawnMachine, agent: str) -> None:
    """Let the pull go, and look at what has to be so after every overlay."""
    done = overlay(machine, silent(), agent=agent)
    assert done.before.boot_id == done.after.boot_id
    assert done.before.commands["kubectl"] == ""
    assert done.after.commands["kubectl"] != ""
    assert done.after.units == {"containerd.service": "active"}
    assert done.after.failed == ()
    assert machine.run(agent, "verify").stdout.endswith("booted one's\n")
    started = machine.run("systemctl", "show", "-P", "ExecStart", "node-image-pull.service").stdout
    assert f"path={agent} " in started
    # The hook was reached before the pull began, and this system is not live.
    order = machine.run(
        *("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic"), "node-image-pull-pre.target"
    )
    begun = machine.run(
        *("systemctl", "show", "-P", "ExecMainStartTimestampMonotonic"), "node-image-pull.service"
    )
    assert 0 < int(order.stdout) <= int(begun.stdout)
    mount = machine.run("systemctl", "show", "-P", "ConditionResult,ActiveState", LIVE_MOUNT)
    assert mount.stdout.split() == ["inactive", "no"]


def test_the_agent_arrives_in_the_config(container_store: Path, tmp_path: Path) -> None:
    options = ("--agent", "embedded", "--live-size", "64M")
    with ignited(container_store, tmp_path, *options) as machine:
        check(machine, AGENT)
        # R6.19: on a live system the mount unit gives the memory that it was told.
        machine.run("touch", "/run/ostree-live")
        machine.run("systemctl", "start", LIVE_MOUNT)
        mounted = machine.run("findmnt", "-no", "FSTYPE,SIZE", "/run/strata-node/live").stdout
        assert mounted.split() == ["tmpfs", "64M"]


def test_an_assisted_installer_starts_the_overlay_itself(
    container_store: Path, tmp_path: Path
) -> None:
    """R6.20, R6.11: nothing is isolated, what runs goes on, and the unit says when it is done."""
    with ignited(container_store, tmp_path, "--assisted") as machine:

        def show(unit: str, *properties: str) -> list[str]:
            found = machine.run("systemctl", "show", *(f"-p{name}" for name in properties), unit)
            rows = dict(line.split("=", 1) for line in found.stdout.splitlines())
            return [rows[name] for name in properties]

        machine.wait_until(
            *("systemctl", "is-active", "multi-user.target"), timeout_s=60, what="multi-user.target"
        )
        assert show(OVERLAY, "ActiveState") == ["inactive"]
        before = show("ssh.service", "ActiveState", "MainPID")
        machine.run("touch", GO)
        machine.run("systemctl", "start", OVERLAY)
        machine.run("test", "-e", "/usr/bin/kubectl")
        assert show(OVERLAY, "ActiveState", "Result") == ["active", "success"]
        assert agent_status(machine)["phase"] == "overlaid"
        assert show("ssh.service", "ActiveState", "MainPID") == before
        assert before[0] == "active"
        assert show(FINISH, "LoadState") == ["not-found"]
        assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


@pytest.mark.timeout(1500)
def test_the_agent_arrives_in_the_coreos_layer(
    container_store: Path, definitions: Path, tmp_path: Path
) -> None:
    """Its overlay folder has the agent; the node image stands on that base, so it has it too."""
    store = copy_store(container_store, tmp_path)
    agent = build_zipapp(definitions / "overlay.d/10coreos/usr/bin/strata-node.pyz")
    assert agent.stat().st_mode & 0o777 == 0o755
    run_strata("-C", str(definitions), "--store", str(store), "build", "node/4.19")
    try:
        with ignited(store, tmp_path, "--agent", "in-image") as machine:
            machine.run("test", "!", "-e", AGENT)
            check(machine, "/usr/bin/strata-node.pyz")
    finally:
        shutil.rmtree(store)
