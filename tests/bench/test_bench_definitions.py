"""What a change of definitions costs: locks, a build of nothing, and the two engines."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata, copy_store
from strata.oci.layout import Layout

pytestmark = pytest.mark.bench

ROUNDS = 3
TARGET = "node/4.19@sample-12"


def report(what: str, figure: str, bound: str) -> None:
    print(f"\n{what:60} {figure:>28}   (bound: {bound})", end="")


def seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def medians(*calls: Callable[[], object]) -> list[float]:
    """The median time of each call, interleaved."""
    rounds = [[seconds(call) for call in calls] for _ in range(ROUNDS)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def test_a_lock_of_the_nodes_packages(own_store: Path, tmp_path: Path, strata: Strata) -> None:
    definitions = Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))
    path = definitions / "strata.toml"
    text = path.read_text().replace('base = "stream"\n', 'base = "stream"\nlock = "n.lock"\n')
    path.write_text(text.replace('tag = "coreos-', 'lock = "s.lock"\ntag = "coreos-', 1))
    command = ("-C", str(definitions), "--store", str(own_store), "lock", "update")
    strata(*command)
    (took,) = medians(lambda: strata(*command, "node/4.19"))
    report("lock of the sample's node layer, metadata cached", f"{took:.2f} s", "2 s")
    assert took <= 2


def test_a_build_of_nothing_writes_nothing(own_store: Path, strata: Strata) -> None:
    command = ("-C", str(SAMPLE), "--store", str(own_store), "build", "node/4.19")
    strata(*command)

    def files() -> dict[str, int]:
        # The lock names its holder.
        skipped = {"cache", ".lock"}
        found = (path for path in own_store.rglob("*") if not skipped & set(path.parts))
        return {str(path): path.lstat().st_mtime_ns for path in found if not path.is_dir()}

    before = files()
    (took,) = medians(lambda: strata(*command))
    report("three layers, nothing changed", f"{took:.2f} s", "1 s")
    assert files() == before
    assert took <= 1


@pytest.mark.parametrize("target", ["bootc/sample-12", "coreos/sample-12", "node/4.19"])
def test_one_line_of_a_script_against_a_build_from_nothing(
    target: str, definitions: Path, own_store: Path, strata: Strata
) -> None:
    folder = target.split("/")[0]
    manifest = definitions / folder / "manifest.yaml"
    command = ("-C", str(definitions), "--store", str(own_store), "build", target)
    strata(*command)

    def change(*, keep: bool) -> Callable[[], object]:
        def run() -> None:
            if not keep:
                shutil.rmtree(own_store / "cache/steps")
            manifest.write_text(manifest.read_text() + "  - |\n    #!/bin/sh\n    true\n")
            strata(*command)

        return run

    kept, full = medians(change(keep=True), change(keep=False))
    report(
        f"{target}: one more script, packages as installed before against again",
        f"{kept:.1f} / {full:.1f} s = {kept / full:.2f}",
        "1",
    )
    assert kept < full


def test_the_native_engine_against_buildah(
    definitions: Path, own_store: Path, tmp_path: Path, strata: Strata
) -> None:
    (tmp_path / "other").mkdir()
    other = copy_store(own_store, tmp_path / "other")

    def build(store: Path, engine: str) -> Callable[[], object]:
        def run() -> None:
            # Built from nothing: without a record, and without an image whose layers are known.
            for path in (store / "records/node").glob("*"):
                path.unlink()
            layout = Layout.open(store)
            if TARGET in layout.tags():
                layout.untag(TARGET)
            where = ("-C", str(definitions), "--store", str(store), "build", "node/4.19")
            strata(*where, "--engine", engine)

        return run

    native, buildah = medians(build(own_store, "native"), build(other, "buildah"))
    report(
        "node image, native engine against buildah's Containerfile",
        f"{native:.1f} / {buildah:.1f} s = {native / buildah:.2f}",
        "0.8",
    )
    assert native <= 0.8 * buildah
