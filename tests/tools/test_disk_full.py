"""A disk that fills up, early or late in a build: told, nothing half-written, mended by room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Strata, leftovers, make_store
from strata.compose.kept import KeptSteps
from strata.compose.steps import INSTALL, Step
from strata.compose.workspace import Workspace
from strata.core.events import Event, Reporter, Warned
from strata.oci.layout import Layout
from strata.treefile.target import Target
from tinydist import TARGET, tiny_definitions

pytestmark = pytest.mark.tools


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def resize(folder: Path, megabytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", folder], check=True)


def test_a_disk_that_fills_up_at_any_time_leaves_nothing_half_written(
    small: Path, tmp_path: Path, sample_repos: Path, strata: Strata
) -> None:
    resize(small, 24)
    store = make_store(small / "store", sample_repos)
    build = ("-C", str(tiny_definitions(tmp_path / "tiny")), "--store", str(store), "build", TARGET)
    failed_in = set()
    # Room for a part of the downloads, for a part of the tree, for a part of the image.
    for megabytes in (30, 120, 480):
        resize(small, megabytes)
        done = strata(*build, check=False)
        assert done.returncode == 7, done.stderr[-3000:]
        told = done.stderr[done.stderr.rindex("strata: ") :]
        assert told.startswith("strata: no space left on the device while ")
        assert told.endswith("put the store on a larger disk with --store\n")
        failed_in.add(
            next(line for line in done.stderr.splitlines() if "FAILED in" in line).split()[0]
        )
        assert list((store / "work").iterdir()) == []
        assert not (store / f"records/{TARGET}.json").exists()
        assert TARGET not in Layout.open(store).tags()
        blobs = store / "blobs/sha256"
        assert [name for name in os.listdir(blobs) if len(name) != 64] == []
        assert leftovers(store) == []
    assert failed_in == {"fetch", "install", "encapsulate"}
    resize(small, 2000)
    assert strata(*build, check=False).returncode == 0
    subprocess.run(["ostree", "fsck", f"--repo={store}/repo", "--quiet"], check=True)


def test_what_does_not_fit_is_not_kept_and_the_build_goes_on(small: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    root = tmp_path / "root"
    root.mkdir()
    (root / "large").write_bytes(os.urandom(6_000_000))
    kept = KeptSteps(Workspace.create(small / "store"), Target("bootc", "tiny-1"))
    kept.keep(Step(INSTALL, ()), root, Reporter(seen.append))
    told = [event.message for event in seen if isinstance(event, Warned)]
    assert told == ["no space left on the device: the step install is not kept"]
    assert list((small / "store/cache/steps/bootc/tiny-1").iterdir()) == []
