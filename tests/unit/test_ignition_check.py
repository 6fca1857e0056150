"""What an Ignition config needs too early, by cases."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest

from strata.bootimage.ignition import check as checking
from strata.bootimage.ignition.bootstrap import PULL
from strata.bootimage.ignition.check import Images, Report, check
from strata.bootimage.ignition.contents import read_contents
from strata.core.errors import DefinitionError
from strata.inspect.entries import File
from strata.node import units as agent
from strata.node.units import Installation, unit_files

pytestmark = pytest.mark.unit

SERVICE = "[Service]\nType=oneshot\n"
INSTALLED = {
    file.name: file.text
    for file in unit_files(Installation())
    if file.path == f"{agent.UNIT_FOLDER}/{file.name}"
}
EVERYWHERE = ("/usr/bin/bash", "/usr/bin/sh", "/usr/bin/curl", "/usr/bin/podman")


def a_file(kind: str = "file", target: str = "") -> File:
    return File(kind, 0o755, 0, 0, 1, target, (), "", 1, 1)


def images() -> Images:
    """A base with a shell; a node image with oc and crio above it; /bin is a link in both."""
    boot = {path: a_file() for path in EVERYWHERE} | {"/bin": a_file("link", "usr/bin")}
    node = boot | {path: a_file() for path in ("/usr/bin/oc", "/usr/bin/crio")}
    return Images(boot, node, lambda path: "openshift-clients-4.19.0-1" if "oc" in path else "")


def config(
    units: dict[str, str], files: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """A config of enabled units and of scripts."""
    return {
        "ignition": {"version": "3.2.0"},
        "storage": {
            "files": [
                {"path": path, "contents": {"source": f"data:,{quote(text)}"}}
                for path, text in (files or {}).items()
            ],
        },
        "systemd": {
            "units": [
                {"name": name, "enabled": True, "contents": text} for name, text in units.items()
            ]
        },
        **more,
    }


def report(document: dict[str, Any], installed: dict[str, str] | None = None) -> Report:
    contents = read_contents(json.dumps(document).encode(), "x.ign")
    return check(contents, images(), INSTALLED if installed is None else installed)


def found(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Unit, trail and path of each finding."""
    return [(one.by, " ".join(one.trail), one.path) for one in report(document).findings]


def early(text: str, files: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    """What is found in one unit that starts with the network."""
    unit = f"{text}[Install]\nWantedBy=network-online.target\n"
    return found(config({"x.service": unit}, files))


def test_the_agents_names_are_the_agents() -> None:
    assert (checking.OVERLAY, checking.TARGET, PULL) == (agent.OVERLAY, agent.TARGET, agent.PULL)


@pytest.mark.parametrize(
    "command", ["/usr/bin/oc x", "/bin/oc", "-@oc x", "+/usr/bin/env A=b oc", "sh -c 'curl | oc'"]
)
def test_a_command_of_the_node_image_is_found(command: str) -> None:
    assert early(f"{SERVICE}ExecStartPre={command}\n") == [
        ("x.service", "3 ExecStartPre", "/usr/bin/oc")
    ]


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/curl oc",
        "/usr/bin/nowhere",
        "/opt/oc",
        "sh -c 'command -v oc || curl'",
        "sh -c \"echo 'oc'\"",
        "$OC",
        "./oc",
    ],
)
def test_what_is_on_the_boot_image_or_nowhere_is_none(command: str) -> None:
    assert early(f"{SERVICE}ExecStart={command}\n") == []


def test_scripts_are_followed_to_the_line() -> None:
    files = {
        "/usr/local/bin/boot.sh": "#!/bin/bash\nset -e\ncurl x\n. /usr/local/lib/more\nhelper\n",
        "/usr/local/lib/more": "wait_for() {\n    until oc get nodes; do sleep 1; done\n}\n",
        "/usr/local/bin/helper": "#!/usr/bin/env -S bash -e\n\ncrio x\n/usr/local/bin/boot.sh\n",
        "/usr/local/bin/unused": "#!/bin/bash\noc\n",
    }
    assert early(f"{SERVICE}ExecStart=/usr/local/bin/boot.sh\n", files) == [
        (
            "x.service",
            "3 ExecStart /usr/local/bin/boot.sh:4 /usr/local/lib/more:2",
            "/usr/bin/oc",
        ),
        (
            "x.service",
            "3 ExecStart /usr/local/bin/boot.sh:5 /usr/local/bin/helper:3",
            "/usr/bin/crio",
        ),
    ]


def test_an_interpreter_is_needed_too() -> None:
    files = {"/usr/local/bin/x": "#!/usr/bin/crio -x\noc\n"}
    assert early(f"{SERVICE}ExecStart=x\n", files) == [
        ("x.service", "3 ExecStart /usr/local/bin/x:1", "/usr/bin/crio")
    ]


def test_hooks_run_without_a_unit_and_a_package_is_named() -> None:
    path = "/etc/NetworkManager/dispatcher.d/30-x"
    findings = report(config({}, {path: "#!/bin/sh\noc\n"})).findings
    assert [(one.by, one.trail) for one in findings] == [(path, (f"{path}:2",))]
    assert findings[0].to_json()["package"] == "openshift-clients-4.19.0-1"


LATE = (
    "[Unit]\nAfter=node-image-overlay.service\n{}",
    "[Unit]\nAfter=node-image-finish.service\n{}",
    "[Unit]\nAfter=node-image-overlay.target\n{}",
    "{}[Install]\nWantedBy=multi-user.target\n",
    "{}[Install]\nWantedBy=multi-user.target graphical.target\n",
)
EARLY = (
    "{}",
    "{}[Install]\nWantedBy=multi-user.target network-online.target\n",
    "{}[Install]\nWantedBy=node-image-overlay.target\n",
    "[Unit]\nAfter=node-image-pull.service\n{}[Install]\nWantedBy=basic.target\n",
    "[Unit]\nBefore=node-image-overlay.service\n{}[Install]\nWantedBy=basic.target\n",
)


@pytest.mark.parametrize(
    ("text", "late"), [*((text, True) for text in LATE), *((text, False) for text in EARLY)]
)
def test_a_unit_after_the_overlay_may_need_what_it_brings(text: str, late: bool) -> None:
    unit = text.format(f"{SERVICE}ExecStart=oc\n")
    done = report(config({"x.service": unit}))
    assert (done.late == ("x.service",)) == late
    assert bool(done.findings) != late
    assert done.ok == late


def test_an_assisted_machine_boots_to_multi_user() -> None:
    """R6.20: nothing is isolated there, so only the order counts."""
    installed = {name: text for name, text in INSTALLED.items() if name != agent.TARGET}
    unit = f"{SERVICE}ExecStart=oc\n[Install]\nWantedBy=multi-user.target\n"
    assert report(config({"x.service": unit}), installed).findings
    after = f"[Unit]\nAfter=y.service\n{unit}"
    both = {"x.service": after, "y.service": "[Unit]\nAfter=node-image-overlay.service\n"}
    assert report(config(both), installed).late == ("x.service", "y.service")
    # The config's own units say which kind of machine it is.
    assert report(config({**installed, "x.service": unit})).findings
    assert not report(config({**INSTALLED, "x.service": unit})).findings


def test_what_late_units_start_and_timers_trigger() -> None:
    wanted = "[Install]\nWantedBy=multi-user.target\n"
    units = {
        "late.service": f"[Unit]\nWants=second.service\n{SERVICE}{wanted}",
        "second.service": f"{SERVICE}ExecStart=oc\n",
        "third.timer": "[Timer]\nUnit=other.service\n[Install]\nWantedBy=timers.target\n",
        "other.service": f"{SERVICE}ExecStart=oc\n{wanted}",
        "after.service": f"[Unit]\nWants=early.service\nAfter={agent.OVERLAY}\n{SERVICE}",
        "early.service": f"{SERVICE}ExecStart=oc\n",
    }
    done = report(config(units))
    assert done.late == ("after.service", "late.service", "second.service")
    # One is also started by a timer, the other together with a unit that waits, without waiting.
    assert [one.by for one in done.findings] == ["early.service", "other.service"]


def test_a_ring_of_units_is_told() -> None:
    unit = (
        f"[Unit]\nAfter={agent.OVERLAY}\nBefore={agent.HOOK}\n{SERVICE}ExecStart=curl\n"
        f"[Install]\nWantedBy={agent.HOOK}\n"
    )
    done = report(config({"dns.service": unit}))
    assert set(done.ring) >= {"dns.service", agent.OVERLAY, agent.PULL}
    assert not done.ok


# --- where units and files come from -------------------------------------------------------------

UNIT = f"{SERVICE}ExecStart=oc\n"


def packed(document: dict[str, Any]) -> dict[str, str]:
    data = base64.b64encode(gzip.compress(json.dumps(document).encode())).decode()
    return {"source": f"data:;base64,{data}", "compression": "gzip"}


def test_merged_configs_replace_units_and_add_drop_ins() -> None:
    drop_in = {
        "name": "x.service",
        "dropins": [{"name": "a.conf", "contents": f"[Unit]\nAfter={agent.OVERLAY}\n"}],
    }
    child: dict[str, Any] = {"ignition": {"version": "3.3.0"}, "systemd": {"units": [drop_in]}}
    parent = config({"x.service": UNIT})
    assert found(parent)
    parent["ignition"]["config"] = {"merge": [{"source": "https://h.example/a.ign"}, packed(child)]}
    done = report(parent)
    assert done.late == ("x.service",)
    assert done.elsewhere == ("https://h.example/a.ign",)
    child["systemd"]["units"] = [{"name": "x.service", "contents": f"{SERVICE}ExecStart=curl\n"}]
    parent["ignition"]["config"] = {"merge": [packed(child)]}
    assert found(parent) == []
    parent["ignition"]["config"] = {"replace": packed(config({"z.service": UNIT}))}
    assert [by for by, _, _ in found(parent)] == ["z.service"]


def test_drop_ins_take_commands_away() -> None:
    unit: dict[str, Any] = {
        "name": "x.service",
        "contents": UNIT,
        "dropins": [{"name": "a.conf", "contents": "[Service]\nExecStart=\nExecStart=crio\n"}],
    }
    document = {"ignition": {"version": "3.2.0"}, "systemd": {"units": [unit]}}
    assert found(document) == [("x.service", "a.conf:3 ExecStart", "/usr/bin/crio")]
    unit["mask"] = True
    unit["dropins"] = []
    assert found(document) == []


def test_units_may_be_files_and_enabled_by_links() -> None:
    folder = agent.UNIT_FOLDER
    document = config(
        {}, {f"/{folder}/x.service": UNIT, f"/{folder}/x.service.d/a.conf": "[Unit]\n"}
    )
    link = {"path": f"/{folder}/multi-user.target.wants/x.service", "target": "../x.service"}
    assert found(document)
    document["storage"]["links"] = [link]
    assert found(document) == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "not an Ignition config of specification 3"),
        ({"ignition": {"version": "3.0.0"}, "storage": 1}, "storage is not an object"),
        ({"ignition": {"version": "3.0.0"}, "storage": {"files": {"a": 1}}}, "is not a list"),
        ({"ignition": {"version": "3.0.0"}, "storage": {"files": [{}]}}, "path is missing"),
        (
            {
                "ignition": {"version": "3.0.0"},
                "storage": {"files": [{"path": "/x", "contents": {"source": "data:;base64,."}}]},
            },
            r"storage.files\[0\] \(/x\) cannot be read",
        ),
        (
            {"ignition": {"version": "3.0.0", "config": {"merge": [{"source": "data:,x"}]}}},
            r"merge\[0\] is not JSON",
        ),
    ],
)
def test_a_config_that_is_none_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        report(document)


def test_configs_do_not_merge_each_other_for_ever() -> None:
    document = config({})
    for _ in range(10):
        document = {
            "ignition": {"version": "3.2.0", "config": {"merge": [packed(document)]}},
        }
    with pytest.raises(DefinitionError, match="more than 8 deep"):
        report(document)
