"""The layers together are the system that would be composed in one piece (R0.2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata, make_store
from strata.inspect.contents import read_contents
from strata.inspect.diff import Opened, compare_packages
from strata.inspect.entries import File
from strata.inspect.files import read_files
from strata.inspect.same import same_system
from strata.inspect.view import view_of
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.rpm.nevra import NEVRA

pytestmark = pytest.mark.tools

USERS = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")
VAR = "/usr/lib/tmpfiles.d/strata-var-{}.conf"
# What follows from composing in layers; docs/builds.md says why.
EXPECTED = {
    *USERS,
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "/usr/lib/modules/{kernel}/initramfs.img",
    *(VAR.format(layer) for layer in ("bootc", "coreos", "node")),
    "/usr/share/buildinfo/labels.json",
}


def one_piece(folder: Path, store: Path) -> Path:
    """The sample's definitions as one layer: every treefile includes the one it stood on, and all
    packages of the layered image are named (a solver of one set may choose others)."""
    definitions = Path(shutil.copytree(SAMPLE, folder, symlinks=True))
    for file, below, key in (
        ("coreos/manifest.yaml", "../bootc/manifest.yaml", "repos:\n"),
        ("node/common.yaml", "../coreos/manifest.yaml", "ostree-layers:\n"),
    ):
        path = definitions / file
        text = path.read_text().replace(key, f"include:\n  - {below}\n{key}", 1)
        path.write_text(text)
    names = set()
    for lock in ("bootc/sample-12", "coreos/sample-12", "node/4.19@sample-12"):
        document = json.loads((store / f"locks/{lock}.lock").read_text())
        names |= {NEVRA.parse(text).name for text in nevras(document)}
    path = definitions / "node/manifest.yaml"
    path.write_text(path.read_text() + "packages:\n  - " + " ".join(sorted(names)) + "\n")
    (definitions / "strata.toml").write_text(
        "schema = 1\n"
        'repos = ["sample.repo"]\n'
        "[stream.sample-12]\n"
        'version = "12.9"\n'
        'arches = ["x86_64"]\n'
        'coreos = { treefile = "node/manifest.yaml" }\n'
        'bootimages = { config = "coreos/image.yaml", formats = ["qcow2"], '
        'platforms = "coreos/platforms.yaml" }\n'
        'content-sets = "content-sets.yaml"\n'
    )
    return definitions


def nevras(value: object) -> list[str]:
    """Every `nevra` in a lock file."""
    if isinstance(value, dict):
        own = [value["nevra"]] if isinstance(value.get("nevra"), str) else []
        return own + [text for inner in value.values() for text in nevras(inner)]
    return [text for inner in value for text in nevras(inner)] if isinstance(value, list) else []


def lines(image: Opened, files: Mapping[str, File], path: str) -> list[str]:
    """A text file's lines; none when it is not there."""
    if path not in files:
        return []
    return read_contents(*image, [files[path]])[files[path].digest].decode().splitlines()


def without_numbers(line: str) -> tuple[str, ...]:
    return tuple(field for field in line.split(":") if not field.isdigit())


def test_r0_2_the_layers_squashed_are_what_one_compose_would_be(
    built_store: Path, sample_repos: Path, tmp_path: Path, strata: Strata
) -> None:
    record = json.loads((built_store / "records/coreos/sample-12.json").read_text())
    definitions = one_piece(tmp_path / "definitions", built_store)
    store = make_store(tmp_path / "store", sample_repos)
    # The version says the day of the newest content: one piece has the node's repository, too.
    epoch = str(record["outputs"]["epoch"])
    build = ("-C", str(definitions), "--store", str(store), "build", "coreos/sample-12")
    strata(*build, SOURCE_DATE_EPOCH=epoch)
    layered = ImageReference.parse(f"oci:{built_store}:node/4.19@sample-12")
    whole = ImageReference.parse(f"oci:{store}:coreos/sample-12")
    with (
        open_source(layered, architecture="x86_64") as one,
        open_source(whole, architecture="x86_64") as other,
    ):
        old, new = (one, view_of(one, "layered")), (other, view_of(other, "whole"))
        left, right = (read_files(*image).files for image in (old, new))
        packages = compare_packages(old, new)
        assert packages.changes == ()
        found = same_system(old, new, (left, right), packages)
        kernel = record["outputs"]["kernel"]
        expected = {path.format(kernel=kernel) for path in EXPECTED}
        assert {difference.subject for difference in found} == expected, found
        # Only what a number or a file is called differs, not what it says.
        for path in USERS:
            here, there = (
                sorted(map(without_numbers, lines(*of, path))) for of in ((old, left), (new, right))
            )
            assert here == there
        owners = []
        for image, files in ((old, left), (new, right)):
            groups = {
                line.split(":")[2]: line.split(":")[0] for line in lines(image, files, USERS[1])
            }
            owners.append(groups[str(files["/usr/lib/dbus-1.0/dbus-daemon-launch-helper"].gid)])
        assert owners == ["messagebus", "messagebus"]
        snippets = [
            sorted(
                line
                for layer in ("bootc", "coreos", "node")
                for line in lines(image, files, VAR.format(layer))
            )
            for image, files in ((old, left), (new, right))
        ]
        assert snippets[0] == snippets[1]
