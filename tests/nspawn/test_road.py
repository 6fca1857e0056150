"""The road's end, on a booted system: the node image from a real registry, without a reboot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from registry import ADDRESS, Registry
from strata.compose.fetch import fetch_to_store
from strata.compose.workspace import Workspace
from strata.container.importer import import_image
from strata.core.events import silent
from strata.machine.facts import Facts, gather
from strata.machine.nspawn import NspawnMachine
from strata.machine.session import Overlaid, booted, overlay, stored_images
from strata.node.units import AGENT
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

pytestmark = [pytest.mark.nspawn, pytest.mark.usefixtures("nothing_left_running")]

# Inside the machine: every path of /usr with what a commit records of it.
_LIST_USR = """
import hashlib, json, os, stat
found = {}
for top, dirs, files in os.walk("/usr"):
    if top == "/usr/lib":
        dirs.remove("modules")
    for name in [*dirs, *files]:
        path = top + "/" + name
        status = os.lstat(path)
        row = [status.st_mode, status.st_uid, status.st_gid, ""]
        if stat.S_ISLNK(status.st_mode):
            row[3] = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as stream:
                row[3] = hashlib.sha256(stream.read()).hexdigest()
        found[path] = row
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Road:
    """A machine after its overlay. retried: what the pull said while the registry was down."""

    machine: NspawnMachine
    done: Overlaid
    repo: Repo
    merge_commit: str
    retried: str


@pytest.fixture(scope="module")
def road(container_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    workspace = Workspace.create(container_store)
    node = ImageReference("oci", str(container_store), "node/4.19@sample-12")
    images = stored_images(workspace, node, None, arch="x86_64", reporter=silent())
    pinned = fetch_to_store(workspace, node, arch="x86_64", reporter=silent())
    repo = workspace.repo()
    with open_source(pinned, architecture="x86_64") as source:
        stored = import_image(source, repo, reference=pinned, reporter=silent())
    commit = stored.merge_commit
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.start()
        digest = registry.push(str(node), "sample/node:4.19")
        registry.stop()
        images = replace(images, node_reference=f"docker://{ADDRESS}/sample/node@{digest}")
        with booted(
            workspace,
            images,
            "test-road",
            marker="kubernetes-client",
            reporter=silent(),
            network_namespace=registry.path,
        ) as machine:
            prepare(machine)
            machine.run("touch", "/run/strata-go")
            # The registry is down: the pull says so and tries again.
            machine.wait_until(
                "sh",
                "-c",
                "journalctl -u node-image-pull.service | grep -q 'trying again'",
                timeout_s=60,
                what="a retry",
            )
            retried = machine.run("journalctl", "-o", "cat", "-u", "node-image-pull.service").stdout
            registry.start()
            after = overlay(machine, silent())
            yield Road(machine, after, repo, commit, retried)


def prepare(machine: NspawnMachine) -> None:
    """What this machine has of its own before the overlay."""
    script = f"""
    mkdir -p /etc/containers/registries.conf.d
    printf '[[registry]]\\nlocation = "{ADDRESS}"\\ninsecure = true\\n' \
        > /etc/containers/registries.conf.d/10-test.conf
    echo '192.0.2.1 mine' >> /etc/hosts
    echo 'changed on both sides' > /etc/issue
    rm /etc/xattr.conf
    """
    machine.run("sh", "-ec", script)


def test_a_registry_that_is_down_is_named_and_tried_again(road: Road) -> None:
    expected = f"docker://{ADDRESS}/sample/node@sha256:"
    assert expected in road.retried
    assert "the registry cannot be reached; trying again in 1 s" in road.retried


def test_nothing_was_rebooted(road: Road) -> None:
    assert road.done.before.boot_id == road.done.after.boot_id


def test_the_node_packages_came_with_the_overlay(road: Road) -> None:
    before, after = road.done.before, road.done.after

    def has(facts: Facts, name: str) -> bool:
        return any(package.startswith(f"{name}-") for package in facts.packages)

    for name in ("kubernetes-client", "containerd", "openvswitch-switch"):
        assert not has(before, name)
        assert has(after, name)
    assert before.commands["kubectl"] == ""
    assert after.commands["ovs-vsctl"].startswith("ovs-vsctl (Open vSwitch)")


def test_services_are_active_and_none_failed(road: Road) -> None:
    assert road.done.after.units == {"containerd.service": "active"}
    assert road.done.after.failed == ()
    assert road.machine.run("systemctl", "is-active", "multi-user.target").stdout == "active\n"
    assert road.machine.run("systemctl", "is-active", "ssh.service").stdout == "active\n"


def test_every_file_of_usr_is_the_commits(road: Road) -> None:
    listing = road.machine.run("python3", "-I", "-c", _LIST_USR, timeout_s=120).stdout
    found: dict[str, list[object]] = json.loads(listing)
    tree = Tree.load(road.repo, road.merge_commit)
    usr = tree.dirs["usr"]
    expected: dict[str, list[object]] = {}
    for path, checksum in usr.walk_files("/usr"):
        if path.startswith("/usr/lib/modules/"):
            continue
        header = road.repo.header(checksum)
        content = header.target
        if not header.is_symlink:
            with road.repo.open_content(checksum) as stream:
                content = hashlib.sha256(stream.read()).hexdigest()
        expected[path] = [header.mode, header.uid, header.gid, content]
    for path, folder in usr.walk_folders("/usr"):
        if path != "/usr" and not f"{path}/".startswith("/usr/lib/modules/"):
            expected[path] = [folder.meta.mode, folder.meta.uid, folder.meta.gid, ""]
    assert len(expected) > 8000
    assert {path: row for path, row in found.items() if expected.get(path) != row} == {}
    assert set(expected) - set(found) == set()


def test_usr_is_read_only_and_the_modules_are_the_booted_ones(road: Road) -> None:
    for folder in ("/usr", "/usr/lib/modules"):
        assert road.machine.run("touch", f"{folder}/x", check=False).status != 0
    base = Tree.load(road.repo, road.repo.commit(road.merge_commit).parent)
    modules = base.folder("usr/lib/modules")
    assert modules is not None
    listed = road.machine.run("ls", "/usr/lib/modules").stdout.split()
    assert listed == sorted(modules.dirs)


def test_etc_is_merged_three_ways(road: Road) -> None:
    read = road.machine.run
    assert "192.0.2.1 mine" in read("cat", "/etc/hosts").stdout
    assert read("cat", "/etc/issue").stdout == "changed on both sides\n"
    assert read("cat", "/etc/motd").stdout == "Sample CoreOS with the node layer.\n"
    assert "version = 2" in read("cat", "/etc/containerd/config.toml").stdout
    assert read("test", "-e", "/etc/xattr.conf", check=False).status == 1
    assert road.done.status["etc_kept"] == ["issue"]


def test_users_of_the_node_layer_exist(road: Road) -> None:
    assert road.machine.run("id", "-un", "openvswitch").stdout == "openvswitch\n"


def test_the_deployment_is_the_base_and_only_the_node_layers_were_fetched(road: Road) -> None:
    shown = road.machine.run("ostree", "admin", "status").stdout
    assert str(road.done.status["base_commit"]) in shown
    fetched, whole = road.done.status["fetched_bytes"], road.done.status["image_bytes"]
    assert isinstance(fetched, int)
    assert isinstance(whole, int)
    assert 0 < fetched < whole / 2
    assert road.done.status["merge_commit"] == road.merge_commit


def test_a_base_with_layers_of_its_own_is_booted_with_them(
    road: Road, container_store: Path
) -> None:
    workspace = Workspace.create(container_store)
    layered = ImageReference("oci", str(container_store), "node/4.19@sample-12")
    images = stored_images(workspace, None, layered, arch="x86_64", reporter=silent())
    assert images.base_commit == road.merge_commit
    images = stored_images(workspace, layered, layered, arch="x86_64", reporter=silent())
    assert images.base_commit == road.merge_commit
    # A node image alone says which base it stands on.
    images = stored_images(workspace, layered, None, arch="x86_64", reporter=silent())
    assert images.base_commit == road.repo.commit(road.merge_commit).parent


def test_the_agent_needs_little_memory(road: Road) -> None:
    for key in ("pull_peak_bytes", "overlay_peak_bytes"):
        peak = road.done.status[key]
        assert isinstance(peak, int)
        assert peak < 150 << 20


def test_the_agents_phases_may_be_run_again(road: Road) -> None:
    for command in ("pull", "overlay"):
        done = road.machine.run(AGENT, command)
        assert "already" in done.stderr
    assert gather(road.machine).boot_id == road.done.after.boot_id


def test_the_repository_in_the_machine_is_sound(road: Road) -> None:
    road.machine.run("ostree", "fsck", "--repo=/ostree/repo", "--quiet", timeout_s=120)


def test_the_units_did_not_fail(road: Road) -> None:
    for name in ("pull", "overlay", "finish"):
        unit = f"node-image-{name}.service"
        shown = road.machine.run("systemctl", "show", "-P", "Result", unit).stdout
        assert shown == "success\n"


def test_what_support_needs_is_in_one_archive(road: Road) -> None:
    road.machine.run(AGENT, "bundle", "/run/bundle.tar.gz")
    unpacked = road.machine.run("tar", "-xzOf", "/run/bundle.tar.gz").stdout
    for text in ("node-image-pull.service", road.merge_commit, "/dev/shm", "ostree admin status"):
        assert text in unpacked
    names = road.machine.run("tar", "-tzf", "/run/bundle.tar.gz").stdout.split()
    assert "strata-node/journal.txt" in names
