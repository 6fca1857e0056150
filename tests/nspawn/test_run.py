"""`strata run` and the agent as a person runs them: JSON for programs, --keep, Ctrl-C, an image
from elsewhere, a node image with another Python, and the README's recipe."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, SAMPLE, Strata, leftovers, make_store
from strata.compose.fetch import fetch_to_store
from strata.compose.workspace import Workspace
from strata.core.events import silent
from strata.machine.nspawn import RECORD
from strata.machine.session import STORE_INSIDE, agent_status, booted, stored_images
from strata.node.pack import build_zipapp
from strata.node.units import GENERATOR, GENERATOR_FOLDER
from strata.oci.reference import ImageReference

pytestmark = [pytest.mark.nspawn, pytest.mark.usefixtures("nothing_left_running")]


def test_a_run_tells_programs_before_and_after(container_store: Path, strata: Strata) -> None:
    common = ("-C", str(SAMPLE), "--store", str(container_store))
    done = json.loads(strata(*common, "run", "node/4.19", "--json").stdout)
    assert done["boot_id"]["before"] == done["boot_id"]["after"]
    assert done["commands"]["before"]["kubectl"] == ""
    assert done["commands"]["after"]["kubectl"].startswith("Client Version")
    assert done["units"]["after"] == {"containerd.service": "active"}
    assert done["failed"] == []
    assert leftovers(container_store / "machines") == []
    assert list((container_store / "machines").iterdir()) == []


def test_ctrl_c_in_a_booted_machine_leaves_nothing(container_store: Path) -> None:
    command = [str(Path(sys.executable).with_name("strata")), "-C", str(SAMPLE)]
    command += ["--store", str(container_store), "run", "node/4.20"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "overlay the node image …" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, rest
    process.stderr.close()
    assert "strata: interrupted; nothing is left running" in rest
    assert leftovers(container_store / "machines") == []
    assert list((container_store / "machines").iterdir()) == []


def test_a_kept_machine_can_be_entered_and_ended(
    container_store: Path, tmp_path: Path, strata: Strata
) -> None:
    # A node image from elsewhere, on a base from elsewhere, with a store of one's own: there are
    # no definitions, and none are needed.
    store = tmp_path / "store"
    common = ("-C", str(tmp_path), "--store", str(store))
    node = f"oci:{container_store}:node/4.19@sample-12"
    base = f"oci:{container_store}:coreos/sample-12"
    try:
        done = strata(*common, "run", node, "--base", base, "--keep")
        line = next(text for text in done.stdout.splitlines() if "look around:" in text)
        enter = shlex.split(line.split("look around:")[1])[:-2]
        inside = subprocess.run(
            [*enter, "/usr/bin/systemctl", "is-active", "containerd.service"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert inside.stdout == "active\n"
        again = strata(*common, "run", node, "--base", base, check=False)
        assert again.returncode == 14
        end = next(text for text in done.stdout.splitlines() if "end it:" in text)
        command = end.split("end it:")[1].strip()
        assert "is running already" in again.stderr
        assert f"hint: to end it: {command}\n" in again.stderr
        # What is advised ends this machine, and it stands in no other's way.
        folder = next((store / "machines").iterdir())
        assert (folder / RECORD).exists()
        subprocess.run(shlex.split(command), check=True)
        deadline = time.monotonic() + 30
        while leftovers(store / "machines") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert leftovers(store / "machines") == []
        assert (folder / RECORD).exists()
        strata(*common, "run", node, "--base", base)
        assert not folder.exists()
    finally:
        strata("clean", "--store", str(store))
    assert leftovers(store / "machines") == []
    assert not store.exists()


def test_what_cannot_be_run_says_so(container_store: Path, strata: Strata) -> None:
    common = ("-C", str(SAMPLE), "--store", str(container_store))
    done = strata(*common, "run", "bootc/sample-12", check=False)
    assert done.returncode == 2
    assert "bootc/sample-12 cannot be run" in done.stderr
    done = strata(*common, "run", f"oci:{container_store}:nope", check=False)
    assert done.returncode == 11
    assert "has no tag nope" in done.stderr


def test_an_overlay_needs_no_library_of_the_node_image(
    container_store: Path, sample_repos: Path, tmp_path: Path, strata: Strata
) -> None:
    """As a node image with another Python: what was not imported before is not there any more."""
    definitions = Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))
    script = definitions / "node/common.yaml"
    away = "    ldconfig\n    mv /usr/lib/python3.11 /usr/lib/python3.99\n"
    script.write_text(script.read_text().replace("    ldconfig\n", away))
    assert away in script.read_text()
    store = make_store(tmp_path / "store", sample_repos)
    base = f"oci:{container_store}:coreos/sample-12"
    common = ("-C", str(definitions), "--store", str(store))
    done = strata(*common, "run", "node/4.19", "--base", base, check=False)
    # The overlay is through; what fails, and is told, is the next start of the agent.
    assert "overlaid sha256:" in done.stderr
    assert "Fatal Python error" in done.stderr
    assert "strata: the overlay failed in the machine" in done.stderr
    assert done.returncode == 14
    assert leftovers(store / "machines") == []


def test_the_recipe_of_the_readme(container_store: Path) -> None:
    """The commands of "On a machine", on a machine that has nothing of ours."""
    text = (ROOT / "README.md").read_text().split("## On a machine")[1].split("\n## ")[0]
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    recipe = "\n".join(lines).replace("openshift-clients", "kubernetes-client")
    workspace = Workspace.create(container_store)
    node = ImageReference("oci", str(container_store), "node/4.19@sample-12")
    pinned = fetch_to_store(workspace, node, arch="x86_64", reporter=silent())
    image = f"oci:{STORE_INSIDE}@{pinned.digest}"
    assert "docker://HOST/node@sha256:…" in recipe
    recipe = recipe.replace("docker://HOST/node@sha256:…", image)
    base = ImageReference("oci", str(container_store), "coreos/sample-12")
    images = stored_images(workspace, None, base, arch="x86_64", reporter=silent())
    with booted(workspace, images, "test-readme", marker="none", reporter=silent()) as machine:
        agent = build_zipapp(machine.deployment.var / "tmp/strata-node.pyz")
        assert agent.exists()
        done = machine.run("sh", "-ec", f"cd /var/tmp\n{recipe}")
        assert "phase        nothing" in done.stdout
        machine.wait_until(
            "systemctl", "is-active", "containerd.service", timeout_s=60, what="containerd"
        )
        assert agent_status(machine)["phase"] == "finished"
        generator = machine.run("cat", f"/{GENERATOR_FOLDER}/{GENERATOR}").stdout
        assert "kubernetes-client" in generator
