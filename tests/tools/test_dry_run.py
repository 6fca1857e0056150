"""A dry run says what would be done, and does nothing of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata, make_store
from strata.compose.workspace import Workspace

pytestmark = pytest.mark.tools


def snapshot(store: Path) -> dict[str, bytes | None]:
    """Every file of a store that says or holds something: images, commits, records, locks.

    Small files with their content; the rest is named by its digest.
    """
    found: dict[str, bytes | None] = {}
    for path in sorted(store.rglob("*")):
        top = path.relative_to(store).parts[0]
        if path.is_file() and top not in ("cache", "work", "sample", ".lock"):
            found[str(path)] = path.read_bytes() if path.stat().st_size < 1 << 16 else None
    return found


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    """A copy of the sample's definitions, to change."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))


@pytest.fixture
def empty_store(tmp_path: Path, sample_repos: Path) -> Path:
    """A store with nothing in it but the sample's repositories."""
    store = make_store(tmp_path / "store", sample_repos)
    Workspace.create(store)
    return store


def test_only_what_stands_on_a_target_would_be_built_with_it(
    definitions: Path, built_store: Path, strata: Strata
) -> None:
    path = definitions / "node/manifest.yaml"
    path.write_text(path.read_text().replace('VERSION="4.19"', 'VERSION="4.19.1"'))
    common = ("-C", str(definitions), "--store", str(built_store), "--json", "--dry-run")
    before = snapshot(built_store)
    told = json.loads(strata(*common, "build", "node/4.19", "node/4.20").stdout)
    assert {row["target"]: row["status"] for row in told} == {
        "bootc/sample-12": "up to date",
        "coreos/sample-12": "up to date",
        "node/4.19@sample-12": "would build",
        "node/4.20@sample-12": "up to date",
    }
    path = definitions / "coreos/manifest.yaml"
    path.write_text(path.read_text() + "\n# a change\n")
    told = json.loads(strata(*common, "build", "node/4.20").stdout)
    assert [row["status"] for row in told] == ["up to date", "would build", "would build"]
    assert snapshot(built_store) == before


def test_a_base_that_is_elsewhere_is_not_fetched(
    built_store: Path, empty_store: Path, strata: Strata
) -> None:
    base = f"oci:{built_store}:coreos/sample-12"
    common = ("-C", str(SAMPLE), "--store", str(empty_store))
    before = snapshot(empty_store)
    done = strata(*common, "build", "node/4.19", "--base", base, "--dry-run")
    assert f"its base {base} would be fetched, and then it would be built" in done.stderr
    assert "would build" in done.stdout
    assert snapshot(empty_store) == before
    done = strata(*common, "build", "node/4.19", "--base", base + "-not", "--dry-run", check=False)
    assert done.returncode == 11
    assert "has no tag coreos/sample-12-not" in done.stderr


def test_a_base_that_is_here_is_compared(built_store: Path, strata: Strata) -> None:
    # Under another name: its digest is what counts, and nothing is copied to find out.
    base = f"oci:{built_store}/../{built_store.name}:coreos/sample-12"
    before = snapshot(built_store)
    common = ("-C", str(SAMPLE), "--store", str(built_store), "--json", "--dry-run")
    told = json.loads(strata(*common, "build", "node/4.19", "--base", base).stdout)
    assert [(row["target"], row["status"]) for row in told] == [
        ("node/4.19@sample-12", "up to date")
    ]
    assert snapshot(built_store) == before


def test_a_run_builds_and_boots_nothing(
    built_store: Path, empty_store: Path, strata: Strata
) -> None:
    before = snapshot(empty_store)
    done = strata("-C", str(SAMPLE), "--store", str(empty_store), "run", "node/4.19", "--dry-run")
    assert "bootc/sample-12: would build\n" in done.stderr
    assert "node/4.19@sample-12: would build\n" in done.stderr
    assert f"and overlay oci:{empty_store}:node/4.19@sample-12\n" in done.stderr
    # Images need no definitions; they are looked up, and stay where they are.
    node, base = (f"oci:{built_store}:{tag}" for tag in ("node/4.19@sample-12", "coreos/sample-12"))
    done = strata("--store", str(empty_store), "run", node, "--base", base, "--dry-run")
    assert f"would boot {base} and overlay {node}\n" in done.stderr
    assert f"{node} is sha256:" in done.stderr
    assert snapshot(empty_store) == before
    assert not (empty_store / "machines").exists()


BUILD_ARGS = f"""\
ID=sample
NAME=sample
STREAM=sample-12
DESCRIPTION=Sample CoreOS 12
VERSION=12.9
MUTATE_OS_RELEASE=12
BUILDER_IMG=registry.example/bootc:12@sha256:{"ab" * 32}
MANIFEST=manifest.yaml
IMAGE_CONFIG=image.yaml
"""


def test_r1_18_a_stream_may_be_a_build_args_file(
    definitions: Path, built_store: Path, strata: Strata
) -> None:
    path = definitions / "strata.toml"
    by_treefile, by_args = '{ treefile = "coreos/manifest.yaml" }', "coreos/build-args.conf"
    assert by_treefile in path.read_text()
    path.write_text(path.read_text().replace(by_treefile, f'{{ build-args = "{by_args}" }}'))
    (definitions / by_args).write_text(BUILD_ARGS)
    (definitions / "coreos/image.yaml").write_text("include: default.yaml\n")
    (definitions / "coreos/default.yaml").write_text("size: 16\n")
    before = snapshot(built_store)
    common = ("-C", str(definitions), "--store", str(built_store), "--json", "--dry-run")
    told = json.loads(strata(*common, "build", "coreos/sample-12").stdout)
    coreos = next(row for row in told if row["target"] == "coreos/sample-12")
    assert coreos["status"] == "would build"
    changes = "\n".join(coreos["changes"])
    assert f"treefile {by_args} is new" in changes
    assert "treefile coreos/manifest.yaml" not in changes
    assert "treefile coreos/image.yaml changed" in changes
    assert "treefile coreos/default.yaml is new" in changes
    assert "lock" not in changes
    assert snapshot(built_store) == before
    (definitions / by_args).write_text(BUILD_ARGS.replace("12.9", "12.8"))
    done = strata(*common, "build", "coreos/sample-12", check=False)
    assert done.returncode == 3
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["message"] == (
        "coreos/build-args.conf is of version 12.8, stream sample-12 of 12.9"
    )


def test_ls_shows_who_shares_a_base_and_whose_base_moved_on(
    built_store: Path, tmp_path: Path, strata: Strata
) -> None:
    at = ("-C", str(SAMPLE), "--store", str(built_store), "ls", "node/*")
    rows = {row["target"]: row for row in json.loads(strata(*at, "--json").stdout)}
    assert rows["node/4.19@sample-12"]["shares"] == ["node/4.20@sample-12"]
    assert rows["node/4.19@sample-12"]["base_digest"] == rows["node/4.20@sample-12"]["base_digest"]
    assert not any(row["behind"] for row in rows.values())
    assert "base moved on" not in strata(*at).stdout
    # The same records, but for a base that was built again since.
    other = tmp_path / "other"
    shutil.copytree(built_store / "records", other / "records")
    path = other / "records/coreos/sample-12.json"
    record = json.loads(path.read_text())
    record["outputs"]["manifest"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(record))
    shown = strata(*at[:3], str(other), "ls", "--json").stdout
    behind = {row["target"] for row in json.loads(shown) if row["behind"]}
    assert behind == {"node/4.19@sample-12", "node/4.20@sample-12"}
    assert "base moved on" in strata(*at[:3], str(other), "ls").stdout


def test_ls_makes_no_store(tmp_path: Path, strata: Strata) -> None:
    at = ("-C", str(SAMPLE), "--store", str(tmp_path / "none"), "ls")
    assert len(json.loads(strata(*at, "--json").stdout)) == 5
    assert not (tmp_path / "none").exists()
    done = strata(*at, "x*", check=False)
    assert "no target is like x*" in done.stderr
