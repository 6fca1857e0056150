"""The labels of a base image, and what its input hash follows (R2.10 to R2.12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.compose.labels import Identity, base_labels, input_hash
from strata.core.record import Input
from strata.treefile.project import parse_project
from strata.treefile.target import Target

pytestmark = pytest.mark.unit

VERSION = "9.8.20260817-0"
INPUTS = (Input("lock", "coreos/rhel-9.8", f"sha256:{'1' * 64}"), Input("tool", "rpm", "4.18.0"))


def labels(identity: Identity) -> dict[str, str]:
    return base_labels(
        identity,
        target="coreos/rhel-9.8",
        version=VERSION,
        description="Red Hat Enterprise Linux CoreOS 9.8",
        inputs=INPUTS,
    )


def test_r2_10_the_labels_of_a_variant_are_upstreams() -> None:
    described = "RHEL CoreOS"
    assert labels(Identity("rhcos", "rhel-9.8", described, version_labels=True)) == {
        "ostree.bootable": "1",
        "com.coreos.inputhash": input_hash(INPUTS),
        "com.coreos.osname": "rhcos",
        "com.coreos.stream": "rhel-9.8",
        "org.opencontainers.image.title": described,
        "org.opencontainers.image.description": described,
        "io.openshift.build.versions": f"machine-os={VERSION}",
        "io.openshift.build.version-display-names": f"machine-os={described}",
        "strata.target": "coreos/rhel-9.8",
    }


def test_r2_10_what_the_definitions_do_not_say_is_os_releases_or_left_out() -> None:
    found = labels(Identity("", "rhel-9.8"))
    assert found["org.opencontainers.image.title"] == "Red Hat Enterprise Linux CoreOS 9.8"
    assert found["org.opencontainers.image.description"] == "Red Hat Enterprise Linux CoreOS 9.8"
    assert not {key for key in found if "osname" in key or key.startswith("io.openshift")}


def test_r2_12_the_input_hash_follows_content_alone() -> None:
    lock, tool = INPUTS
    assert len(input_hash(INPUTS)) == 64
    assert input_hash([lock, Input("tool", "rpm", "4.19.0")]) == input_hash(INPUTS)
    for kind in ("definition", "treefile", "overlay", "lock", "base"):
        one = Input(kind, "x", f"sha256:{'2' * 64}")
        other = Input(kind, "x", f"sha256:{'3' * 64}")
        hashes = {input_hash(INPUTS), input_hash([*INPUTS, one]), input_hash([*INPUTS, other])}
        assert len(hashes) == 3
    assert input_hash([tool]) != input_hash([lock])


def test_r2_12_version_labels_concern_the_coreos_layer_alone(tmp_path: Path) -> None:
    text = (
        'schema = 1\n[stream.s]\nversion = "1.2"\narches = ["x86_64"]\n'
        'coreos = { from = "docker://registry.example/c@sha256:1" }\n'
    )
    plain, told = (parse_project(text + more, tmp_path) for more in ("", "version-labels = true\n"))
    assert told.stream("s").version_labels
    assert not plain.stream("s").version_labels
    digests = [
        [of.definition_digest(Target(kind, "s")) for of in (plain, told)]
        for kind in ("coreos", "bootc")
    ]
    assert digests[0][0] != digests[0][1]
    assert digests[1][0] == digests[1][1]
