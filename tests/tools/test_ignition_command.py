"""`strata ignition bootstrap` as a person runs it: without a network, and held against Ignition."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from igniting import ignite
from strata.node.config import parse_config

pytestmark = pytest.mark.tools

DIGEST = "sha256:" + "a" * 64
PULLSPEC = f"registry.example/node@{DIGEST}"
ENOUGH = ("--image", PULLSPEC)


def bootstrap(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command in a network namespace that has no network, not even loopback."""
    command = [str(Path(sys.executable).with_name("strata")), "ignition", "bootstrap", *arguments]
    done = subprocess.run(
        ["unshare", "--net", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done


def validate(data: str, folder: Path) -> str:
    """What Ignition's own validator says against a config; it must accept it."""
    path = folder / "config.ign"
    path.write_text(data)
    done = subprocess.run(["ignition-validate", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Every option about the network, with files that hold what they should."""
    files = {
        "auth.json": json.dumps({"auths": {"registry.example": {"auth": "eDp5"}}}),
        "lab.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "policy.json": json.dumps({"default": [{"type": "reject"}]}),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return [
        *("--auth", str(tmp_path / "auth.json"), "--ca", str(tmp_path / "lab.pem")),
        *("--policy", str(tmp_path / "policy.json"), "--mirror", "registry.example=m.example"),
        *("--proxy", "http://p.example:3128", "--no-proxy", ".example,10.0.0.0/8"),
        *("--keep", "bootkube.service", "--probe", "/usr/local/bin/ok --now"),
    ]


@pytest.mark.parametrize(
    "which",
    [
        ENOUGH,
        ("--release", f"docker://registry.example/release@{DIGEST}", "--release-tag", "rhel-x"),
        ("--late", "/run/installer/pullspec"),
    ],
)
@pytest.mark.parametrize("agent", ["in-image", "embedded"])
@pytest.mark.parametrize("assisted", [(), ("--assisted",)])
def test_it_is_valid_and_made_without_any_network(
    inputs: list[str], tmp_path: Path, which: tuple[str, ...], agent: str, assisted: tuple[str, ...]
) -> None:
    done = bootstrap(*which, *inputs, "--agent", agent, *assisted)
    assert validate(done.stdout, tmp_path) == ""
    root = ignite(done.stdout.encode(), tmp_path / "root")
    config = parse_config((root / "etc/strata/node.json").read_bytes(), "node.json")
    named = (config.image, config.release, config.late)
    assert [str(one.image) if hasattr(one, "image") else str(one) for one in named if one] == [
        which[1] if which[0] != "--image" else f"docker://{PULLSPEC}"
    ]
    assert config.keep == ("bootkube.service",)
    assert config.probe == ("/usr/local/bin/ok", "--now")
    assert (str(config.auth), str(config.policy)) == (
        "/etc/strata/auth.json",
        "/etc/strata/policy.json",
    )
    units = root / "etc/systemd/system"
    assert (units / "node-image-finish.service").exists() != bool(assisted)
    generator = root / "etc/systemd/system-generators/node-image-overlay-generator"
    assert generator.exists() != bool(assisted)
    assert (root / "usr/local/bin/strata-node.pyz").exists() == (agent == "embedded")
    starts = f"ExecStart={'/usr/local/bin' if agent == 'embedded' else '/usr/bin'}/strata-node.pyz"
    assert starts in (units / "node-image-pull.service").read_text()
    assert ("kB of them the agent" in done.stderr) == (agent == "embedded")


def test_the_embedded_agent_runs_and_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = (bootstrap(*ENOUGH).stdout for _ in range(2))
    assert first == second
    agent = ignite(first.encode(), tmp_path) / "usr/local/bin/strata-node.pyz"
    assert os.access(agent, os.X_OK)
    done = subprocess.run([str(agent), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("strata-node ")
    done = subprocess.run(
        [str(agent), "units", str(tmp_path / "again")], capture_output=True, text=True, check=True
    )
    ours = (tmp_path / "etc/systemd/system/node-image-overlay.service").read_text()
    again = tmp_path / "again/etc/systemd/system/node-image-overlay.service"
    assert again.read_text() == ours


def test_a_key_is_valid_too(tmp_path: Path) -> None:
    done = bootstrap(*ENOUGH, "--ssh-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me")
    assert validate(done.stdout, tmp_path) == ""
    assert '"sshAuthorizedKeys":["ssh-ed25519' in done.stdout


def test_it_is_merged_into_an_installers_config(tmp_path: Path) -> None:
    unit = (
        "[Service]\nExecStart=/usr/local/bin/bootkube.sh\n[Install]\nWantedBy=multi-user.target\n"
    )
    theirs = {"name": "node-image-pull.service", "enabled": False, "contents": "[Service]\n"}
    parent: dict[str, Any] = {
        "ignition": {"version": "3.2.0"},
        "systemd": {
            "units": [{"name": "bootkube.service", "enabled": True, "contents": unit}, theirs]
        },
    }
    path = tmp_path / "bootstrap.ign"
    path.write_text(json.dumps(parent))
    done = bootstrap(*ENOUGH, "--merge-into", str(path), "-o", str(path))
    assert "merges it" in done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    assert validate(path.read_text(), tmp_path) == ""
    document = json.loads(path.read_bytes())
    assert document["systemd"] == parent["systemd"]
    bootstrap(*ENOUGH, "--merge-into", str(path), "-o", str(path))
    assert json.loads(path.read_bytes()) == document
    # What both have is ours, and the rest is theirs.
    units = ignite(path.read_bytes(), tmp_path / "root") / "etc/systemd/system"
    assert (units / "bootkube.service").read_text() == unit
    assert "strata-node.pyz pull" in (units / "node-image-pull.service").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image", "registry.example/node:4.19"), "is not by digest"),
        (("--release", "registry.example/release:4.19"), "is not by digest"),
        (("--late", "run/x"), "is not an absolute path"),
        (("--image", "node"), "not docker://HOST/NAME"),
        ((*ENOUGH, "--auth", "/nowhere"), "--auth /nowhere cannot be read"),
        ((*ENOUGH, "--auth", "{tmp}/empty.json"), "has no credentials"),
        ((*ENOUGH, "--policy", "{tmp}/anything.json"), "accepts everything"),
        ((*ENOUGH, "--live-size", "a lot"), "is not the size of a tmpfs"),
        ((*ENOUGH, "--probe", "'"), "is not a command"),
        ((*ENOUGH, "--ca", "{tmp}/empty.json", "--ca", "{tmp}/./empty.json"), "is another empty"),
        ((), "one of the arguments --image --release --late is required"),
        ((*ENOUGH, "--late", "/x"), "not allowed with argument"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "empty.json").write_text("{}")
    anything = {"default": [{"type": "insecureAcceptAnything"}]}
    (tmp_path / "anything.json").write_text(json.dumps(anything))
    given = [text.replace("{tmp}", str(tmp_path)) for text in arguments]
    done = bootstrap(*given, status=2)
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
