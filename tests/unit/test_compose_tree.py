"""Normalising, overlays and the build order."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from strata.compose.arrange import arrange
from strata.compose.definitions import Definition
from strata.compose.graph import build_order
from strata.compose.normalise import (
    find_kernel,
    move_var_to_tmpfiles,
    normalise,
    prepare_root,
    reopen,
    tree_path,
)
from strata.compose.overlays import apply_overlay
from strata.compose.sandbox import run_script, tell
from strata.core.errors import DefinitionError, PackageError, TreeError
from strata.core.events import silent
from strata.inspect.layers import check_no_node_packages
from strata.rpm.nevra import NEVRA
from strata.treefile.project import load_project
from strata.treefile.target import Target
from strata.treefile.treefile import flatten

pytestmark = pytest.mark.unit

SAMPLE = Path(__file__).parents[2] / "definitions/sample"


def test_a_root_becomes_an_ostree_tree_and_reopens(tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare_root(root)
    (root / "bin/tool").write_text("x")
    (root / "boot/vmlinuz-6.1").write_text("kernel")
    (root / "boot/config-6.1").write_text("config")
    (root / "usr/lib/modules/6.1").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:::\n")
    (root / "etc/passwd-").write_text("old")
    (root / "etc/machine-id").write_text("1")
    (root / "var/lib/app data").mkdir(parents=True)
    (root / "var/lib/app data").chmod(0o750)
    (root / "var/lib/link").symlink_to("app data")
    (root / "var/lib/file").write_text("x")
    (root / "run/left").write_text("x")
    done = normalise(root, tmpfiles_name="strata-var-bootc.conf")
    assert done.dropped == ("/var/lib/file",)
    assert find_kernel(root) == "6.1"
    assert sorted(os.listdir(root / "usr/etc")) == ["passwd"]
    assert (root / "usr/bin/tool").exists()
    for name in ("var", "run", "boot", "tmp"):
        assert list((root / name).iterdir()) == []
    assert os.readlink(root / "usr/local") == "../var/usrlocal"
    assert os.readlink(root / "ostree") == "sysroot/ostree"
    lines = (root / "usr/lib/tmpfiles.d/strata-var-bootc.conf").read_text().splitlines()
    assert "d /var/lib/app\\x20data 0750 root root -" in lines
    assert "L /var/lib/link - - - - app\\x20data" in lines
    reopen(root)
    assert (root / "etc/passwd").exists()
    assert (root / "usr/local").is_dir()
    (root / "var/lib/app data").mkdir(parents=True)
    (root / "var/lib/new").mkdir()
    assert move_var_to_tmpfiles(root, "strata-var-coreos.conf") == ()
    upper = (root / "usr/lib/tmpfiles.d/strata-var-coreos.conf").read_text()
    assert upper == "d /var/lib/new 0755 root root -\n"


def test_r3_14_a_tree_has_exactly_one_kernel(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="has no kernel"):
        find_kernel(tmp_path)
    for version in ("6.1", "6.2"):
        (tmp_path / "usr/lib/modules" / version).mkdir(parents=True)
        (tmp_path / "usr/lib/modules" / version / "vmlinuz").write_text("x")
    with pytest.raises(DefinitionError, match=r"has 2 kernels \(6\.1, 6\.2\)"):
        find_kernel(tmp_path)


def test_a_hostile_tree_does_not_lead_its_normalising_to_the_host(tmp_path: Path) -> None:
    host = tmp_path / "host"
    (host / "etc").mkdir(parents=True)
    for name in ("machine-id", "vmlinuz-6.1", "etc/passwd"):
        (host / name).write_text("host")
    root = tmp_path / "root"
    prepare_root(root)
    (root / "boot").rmdir()
    (root / "boot").symlink_to(host)
    (root / "usr/lib/tmpfiles.d").symlink_to(host)
    (root / "usr/lib/modules").symlink_to(host)
    (root / "etc/passwd").symlink_to(host / "etc/passwd")
    normalise(root, tmpfiles_name="strata-var-bootc.conf")
    assert sorted(path.name for path in host.rglob("*")) == [
        "etc",
        "machine-id",
        "passwd",
        "vmlinuz-6.1",
    ]


@pytest.mark.parametrize("name", ["etc", "var", "usr"])
def test_the_trees_own_folders_may_be_no_links(tmp_path: Path, name: str) -> None:
    host = tmp_path / "host"
    (host / "etc").mkdir(parents=True)
    (host / "machine-id").write_text("host")
    root = tmp_path / "root"
    prepare_root(root)
    (root / name).rename(tmp_path / "moved")
    (root / name).symlink_to(host)
    with pytest.raises(TreeError, match=f"/{name} of the tree is a link; it must be a folder"):
        normalise(root, tmpfiles_name="strata-var-bootc.conf")
    (root / "etc").rename(tmp_path / "etc")
    if name == "usr":
        with pytest.raises(TreeError, match="/usr of the tree is a link"):
            reopen(root)
    assert sorted(os.listdir(host)) == ["etc", "machine-id"]


def test_an_overlay_follows_links_only_inside_the_root(tmp_path: Path) -> None:
    root, overlay = tmp_path / "root", tmp_path / "overlay"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "out").symlink_to("../../outside")
    (overlay / "bin").mkdir(parents=True)
    (overlay / "bin/tool").write_text("x")
    assert apply_overlay(root, overlay) == 1
    assert (root / "usr/bin/tool").read_text() == "x"
    # As in a chroot: /.. is /, a link's target may itself lead through links, absolute ones are
    # the tree's.
    (root / "through").symlink_to("/host/sub")
    (root / "host").symlink_to(tmp_path)
    for name in ("out", "through"):
        (overlay / name).mkdir()
        (overlay / name / "file").write_text("x")
    apply_overlay(root, overlay)
    assert (root / "outside/file").read_text() == "x"
    assert (root / str(tmp_path)[1:] / "sub/file").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["overlay", "root"]


def test_an_overlay_replaces_a_link_and_writes_through_none(tmp_path: Path) -> None:
    root, overlay = tmp_path / "root", tmp_path / "overlay"
    root.mkdir()
    overlay.mkdir()
    (tmp_path / "host").write_text("host")
    (root / "file").symlink_to(tmp_path / "host")
    (overlay / "file").write_text("x")
    apply_overlay(root, overlay)
    assert (root / "file").read_text() == "x"
    assert (tmp_path / "host").read_text() == "host"


def test_an_overlay_does_not_turn_a_folder_into_a_file(tmp_path: Path) -> None:
    root, overlay = tmp_path / "root", tmp_path / "overlay"
    (root / "etc/x").mkdir(parents=True)
    (overlay / "etc").mkdir(parents=True)
    (overlay / "etc/x").write_text("x")
    with pytest.raises(DefinitionError, match="has a file where the tree has a folder: /etc/x"):
        apply_overlay(root, overlay)


def test_an_overlay_does_not_turn_a_file_into_a_folder(tmp_path: Path) -> None:
    root, overlay = tmp_path / "root", tmp_path / "overlay"
    root.mkdir()
    (root / "x").write_text("x")
    (overlay / "x").mkdir(parents=True)
    with pytest.raises(DefinitionError, match="has a folder where the tree has a file: /x"):
        apply_overlay(root, overlay)


def test_paths_of_packages_are_the_trees() -> None:
    assert tree_path("/bin/sh") == "/usr/bin/sh"
    assert tree_path("/etc/passwd") == "/usr/etc/passwd"
    assert tree_path("/usr/share/x") == "/usr/share/x"


def test_what_a_target_stands_on_comes_first_and_once() -> None:
    project = load_project(SAMPLE)
    targets = [Target.parse("node/4.20"), Target.parse("node/4.19")]
    order = [str(target) for target in build_order(project, targets, base_given=False)]
    assert order == [
        "bootc/sample-12",
        "coreos/sample-12",
        "node/4.20@sample-12",
        "node/4.19@sample-12",
    ]
    alone = build_order(project, targets[:1], base_given=True)
    assert [str(target) for target in alone] == ["node/4.20@sample-12"]


def test_r0_1_every_copy_of_a_node_package_counts() -> None:
    installed = [NEVRA.parse("runc-1-1.x86_64"), NEVRA.parse("runc-2-1.x86_64")]
    with pytest.raises(PackageError) as caught:
        check_no_node_packages(
            installed, ["run*"], layer="coreos/s", origin=lambda nevra: "it is named at x:1"
        )
    assert caught.value.message == (
        "runc-1-1.x86_64 (and 1 more) belongs to the node layer and may not be in coreos/s: "
        "it is named at x:1"
    )
    check_no_node_packages(installed, ["crun"], layer="coreos/s", origin=str)


def test_remove_files_are_the_trees_own(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "run/x").mkdir(parents=True)
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    (root / "host").symlink_to(tmp_path)
    (tmp_path / "precious").write_text("host")
    (tmp_path / "m.yaml").write_text(
        "remove-files: [/var/run/x, ../precious, host/precious, host/../precious, absent/x]\n"
    )
    treefile = flatten(tmp_path / "m.yaml", variables={}, arch="x86_64")
    arrange(
        root,
        Definition(tmp_path, treefile, (), ()),
        run=partial(run_script, root),
        tell=partial(tell, root, 0),
        source_date_epoch=0,
        reporter=silent(),
    )
    assert not (root / "run/x").exists()
    assert (root / "run").is_dir()
    assert (tmp_path / "precious").read_text() == "host"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("#!/bin/sh 'x", "No closing quotation"),
        ("#!", "it names no interpreter"),
        ("#!/bin/s\0h", "it names no interpreter"),
    ],
)
def test_a_shebang_line_that_is_none_names_the_script(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        run_script(tmp_path, f"{line}\ntrue\n", source="m.yaml:7", env={})
    assert caught.value.message == (
        f"the postprocess script at m.yaml:7 starts with {line!r}, which cannot be run: {why}"
    )
