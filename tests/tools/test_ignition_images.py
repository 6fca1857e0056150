"""`strata ignition check` on real images: a base, a node image on it, configs of installers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import run_strata
from importlab import Lab
from layertar import Tar
from lookimages import RPMDB, database, header, write

pytestmark = pytest.mark.tools

SCRIPT = "#!/bin/sh\nset -e\nuntil oc get nodes; do\n    sleep 1\ndone\n"
UNIT = "[Unit]\nWants=network-online.target\n{}[Service]\nExecStart=/usr/local/bin/wait.sh\n"


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> str:
    """A node image that brings oc, in a package."""
    packages = database(tmp_path / "db", header("openshift-clients", "4.19.0", ["/usr/bin/oc"]))
    lab.derive(Tar().add("usr/bin/oc", b"oc", mode=0o755).add(RPMDB, packages).bytes())
    return str(lab.reference())


def installer(path: Path, order: str = "") -> str:
    """An installer's config, with a script that needs oc."""
    document = {
        "ignition": {"version": "3.2.0"},
        "storage": {
            "files": [
                {
                    "path": "/usr/local/bin/wait.sh",
                    "mode": 0o755,
                    "contents": {"source": "data:," + SCRIPT.replace("\n", "%0A")},
                }
            ]
        },
        "systemd": {"units": [{"name": "wait.service", "contents": UNIT.format(order)}]},
    }
    path.write_text(json.dumps(document))
    return str(path)


def test_a_dependency_that_is_hidden_in_a_script_is_told(node: str, tmp_path: Path) -> None:
    config = installer(tmp_path / "bootstrap.ign")
    done = run_strata("ignition", "check", config, "--node", node, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "wait.service needs /usr/bin/oc of openshift-clients-4.19.0-1.x86_64, "
        "which comes with the node image",
        "  4 ExecStart → /usr/local/bin/wait.sh:3 → oc",
        "  After=node-image-overlay.service in wait.service would do",
        "1 finding in 1 unit that does not wait for the overlay; 0 wait for it",
    ]


def test_what_it_says_would_do_does(node: str, tmp_path: Path) -> None:
    config = installer(tmp_path / "bootstrap.ign", "After=node-image-overlay.service\n")
    done = run_strata("ignition", "check", config, "--node", node, "--json")
    assert json.loads(done.stdout) == {
        "ok": True,
        "findings": [],
        "early": [],
        "late": ["wait.service"],
        "ring": [],
        "elsewhere": [],
    }


def test_another_boot_image_may_have_it(node: str, tmp_path: Path) -> None:
    config = installer(tmp_path / "bootstrap.ign")
    boot = write(tmp_path / "boot", Tar().add("usr/bin/oc", b"oc", mode=0o755).bytes())
    done = run_strata("ignition", "check", config, "--node", node, "--boot", boot)
    assert done.stdout == "0 findings in 1 unit that does not wait for the overlay; 0 wait for it\n"


def test_an_image_without_a_base_needs_a_boot_image(tmp_path: Path) -> None:
    config = installer(tmp_path / "bootstrap.ign")
    plain = write(tmp_path / "plain", Tar().add("usr/bin/oc", b"oc").bytes())
    done = run_strata("ignition", "check", config, "--node", plain, check=False)
    assert done.returncode == 2
    assert "does not say which base it stands on" in done.stderr
    assert "--boot" in done.stderr


def test_our_own_config_needs_nothing_too_early(node: str, tmp_path: Path) -> None:
    """The agent's units and generator, merged into the installer's config."""
    config = installer(tmp_path / "bootstrap.ign", "After=node-image-overlay.service\n")
    image = f"registry.example/node@sha256:{'a' * 64}"
    run_strata("ignition", "bootstrap", "--image", image, "--merge-into", config, "-o", config)
    done = run_strata("ignition", "check", config, "--node", node, "--json")
    found = json.loads(done.stdout)
    assert found["findings"] == []
    assert "node-image-overlay.service" in found["early"]
    assert "wait.service" in found["late"]
