"""Figures, against a peer where there is one, in the same run; `make bench` prints them.

These machines are noisy: what is compared is interleaved, and medians are taken.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata, cache_folder, make_store
from strata.compose.workspace import Workspace
from strata.core.events import silent
from strata.core.files import remove_tree
from strata.machine.session import booted, overlay, stored_images
from strata.oci.reference import ImageReference
from strata.ostree.checkout import checkout
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.tree import Tree
from strata.ostree.writer import writing
from strata.rpm.inventory import RPMDB_FOLDER
from strata.sample.packages import NODE

pytestmark = pytest.mark.bench

ROUNDS = 3


def report(what: str, figure: str, bound: str) -> None:
    print(f"\n{what:60} {figure:>28}   (bound: {bound})", end="")


def seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_sample_repositories_cold_and_warm(
    sample_repos: Path, tmp_path: Path, strata: Strata
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("debs", "apt"):
        subprocess.run(["cp", "-al", cache_folder() / name, cache / name], check=True)
    shutil.rmtree(cache / "apt")  # its configuration names the cache it was made for
    dest = tmp_path / "repos"

    def make() -> object:
        return strata("sample", "repos", str(dest), STRATA_CACHE=str(cache))

    cold, warm = seconds(make), seconds(make)
    report("sample repositories, downloads there, nothing converted", f"{cold:.1f} s", "90 s")
    report("sample repositories, again", f"{warm:.1f} s", "5 s")
    assert cold <= 90
    assert warm <= 5


def test_base_both_layers(sample_repos: Path, tmp_path: Path, strata: Strata) -> None:
    store = make_store(tmp_path / "store", sample_repos)
    took = seconds(
        lambda: strata("-C", str(SAMPLE), "--store", str(store), "build", "coreos/sample-12")
    )
    record = json.loads((store / "records/coreos/sample-12.json").read_text())
    dracut = next(s["seconds"] for s in record["steps"] if s["title"] == "build the initramfs")
    report("base, both layers", f"{took:.1f} s, dracut {dracut:.1f} s", "90 s")
    assert took <= 90


def test_node_image_against_dnf_tar_and_gzip(
    built_store: Path, tmp_path: Path, strata: Strata
) -> None:
    workspace = Workspace.create(built_store)
    record = json.loads((built_store / "records/coreos/sample-12.json").read_text())
    tree = Tree.load(workspace.repo(), record["outputs"]["commit"])
    home = tmp_path / "home"
    home.mkdir()
    (home / ".rpmmacros").write_text(f"%_dbpath /{RPMDB_FOLDER}\n")
    ours, peers = [], []
    for number in range(ROUNDS):
        (built_store / "records/node/4.19@sample-12.json").unlink()
        ours.append(
            seconds(
                lambda: strata("-C", str(SAMPLE), "--store", str(built_store), "build", "node/4.19")
            )
        )
        root = tmp_path / f"root-{number}"
        checkout(workspace.repo(), tree, str(root), link=False)
        (root / "usr/etc").rename(root / "etc")
        stamp = tmp_path / "stamp"
        time.sleep(0.05)
        stamp.touch()
        script = (
            f"dnf -q -y --installroot={root} --setopt=reposdir=/nonexistent --nogpgcheck "
            "--setopt=install_weak_deps=False --setopt=tsflags=nodocs --releasever=12 "
            f"--setopt=cachedir={tmp_path}/dnf --setopt=keepcache=0 "
            f"--repofrompath=b,file://{built_store}/sample/sample-12-baseos "
            f"--repofrompath=n,file://{built_store}/sample/sample-12-node-4.19 "
            f"install {' '.join(NODE)} >/dev/null && cd {root} && "
            f"find . -xdev ! -type d -cnewer {stamp} -print0 | "
            f"tar --null -T - -c | gzip > {tmp_path}/added.tar.gz"
        )
        env = {**os.environ, "HOME": str(home)}
        peers.append(
            seconds(
                lambda script=script, env=env: subprocess.run(  # type: ignore[misc]
                    ["bash", "-o", "pipefail", "-c", script], check=True, env=env
                )
            )
        )
        shutil.rmtree(root)
    assert (tmp_path / "added.tar.gz").stat().st_size > 50_000_000
    mine, theirs = statistics.median(ours), statistics.median(peers)
    figure = f"{mine:.1f} s / {theirs:.1f} s = {mine / theirs:.2f}"
    report("node image, against dnf --installroot; tar | gzip", figure, "1.5")
    assert mine <= 1.5 * theirs


def test_overlay_and_the_agents_memory(built_store: Path) -> None:
    workspace = Workspace.create(built_store)
    node = ImageReference("oci", str(built_store), "node/4.19@sample-12")
    images = stored_images(workspace, node, None, arch="x86_64", reporter=silent())
    took, peaks = [], []
    for number in range(ROUNDS):
        with booted(
            workspace, images, f"bench-{number}", marker="kubernetes-client", reporter=silent()
        ) as machine:
            done = overlay(machine, silent())
        took.append(done.seconds)
        peaks += [int(str(done.status[f"{name}_peak_bytes"])) for name in ("pull", "overlay")]
    report(
        "overlay, from the start of the pull to services active",
        f"{statistics.median(took):.1f} s",
        "15 s",
    )
    report("the agent's peak memory (VmHWM)", f"{max(peaks) / (1 << 20):.0f} MiB", "150 MiB")
    assert statistics.median(took) <= 15
    assert max(peaks) <= 150 << 20


def test_from_an_edited_line_to_a_booted_shell(
    built_store: Path, tmp_path: Path, strata: Strata
) -> None:
    definitions = Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))
    motd = definitions / "overlay.d/20node/etc/motd"
    motd.write_text("Hello from a test.\n")
    took = seconds(
        lambda: strata("-C", str(definitions), "--store", str(built_store), "run", "node/4.20")
    )
    report("an edited line of the node layer to the overlaid machine", f"{took:.1f} s", "60 s")
    assert took <= 60


def test_commit_against_ostree(built_store: Path, tmp_path: Path) -> None:
    workspace = Workspace.create(built_store)
    record = json.loads((built_store / "records/coreos/sample-12.json").read_text())
    tree = Tree.load(workspace.repo(), record["outputs"]["commit"])
    root = tmp_path / "root"
    checkout(workspace.repo(), tree, str(root), link=False)
    ours, adopted, peers = [], [], []
    for number in range(ROUNDS):
        repo = Repo.init(tmp_path / f"ours-{number}")
        with writing(repo) as writer:
            ours.append(seconds(lambda: commit_directory(repo, writer, str(root), timestamp=1)))
        peer = tmp_path / f"peer-{number}"
        subprocess.run(["ostree", f"--repo={peer}", "init", "--mode=bare"], check=True)
        command = ["ostree", f"--repo={peer}", "commit", "-b", "x", f"--tree=dir={root}"]
        peers.append(seconds(lambda: subprocess.run(command, check=True, capture_output=True)))
        copied = tmp_path / "copied"
        subprocess.run(["cp", "-a", root, copied], check=True)
        repo = Repo.init(tmp_path / f"adopted-{number}")
        with writing(repo) as writer:
            adopted.append(
                seconds(
                    lambda: commit_directory(
                        repo,
                        writer,
                        str(copied),
                        timestamp=1,
                        adopt=True,
                    )
                )
            )
        for path in (copied, peer, tmp_path / f"ours-{number}", tmp_path / f"adopted-{number}"):
            remove_tree(path)
    mine, linked = statistics.median(ours), statistics.median(adopted)
    theirs = statistics.median(peers)
    report(
        "commit the CoreOS tree, against ostree commit",
        f"{mine:.2f} s / {theirs:.2f} s = {mine / theirs:.2f}",
        "1.2",
    )
    report(
        "the same, adopting the files",
        f"{linked:.2f} s / {theirs:.2f} s = {linked / theirs:.2f}",
        "0.8",
    )
    assert mine <= 1.2 * theirs
    assert linked <= 0.8 * theirs
