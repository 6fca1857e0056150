"""Manifest locks, and two locks as a changelog."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from strata.cli.main import main
from strata.core.errors import DefinitionError
from strata.rpm.lock import Lock, LockedPackage, LockFile
from strata.rpm.manifestlock import (
    manifest_lock_bytes,
    manifest_lock_of,
    parse_manifest_lock,
)
from strata.rpm.nevra import NEVRA

pytestmark = pytest.mark.unit
DATA = Path(__file__).parents[1] / "data/lockfiles"


@pytest.fixture
def real(tmp_path: Path) -> tuple[Path, Path]:
    """The locks of two Fedora CoreOS releases, two weeks apart."""
    found = []
    for day in ("20241007", "20241021"):
        name = f"stable-{day}-manifest-lock.x86_64.json"
        path = tmp_path / name
        path.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
        found.append(path)
    return found[0], found[1]


def test_r1_23_two_releases_are_a_changelog(
    real: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = map(str, real)
    assert main(["lock", "diff", old, new, "--exit-code"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "changed:"
    kernel = "kernel, kernel-core, kernel-modules, kernel-modules-core"
    assert f"  kernel  6.10.10-200.fc40 → 6.10.12-200.fc40  ({kernel})" in lines
    assert "  podman  5:5.2.2-1.fc40 → 5:5.2.3-1.fc40" in lines
    assert lines[-1] == "24 changed, 0 added, 0 removed"
    assert len(lines) == 18
    assert main(["lock", "diff", old, old, "--exit-code"]) == 0
    assert capsys.readouterr().out == "0 changed, 0 added, 0 removed\n"
    assert main(["lock", "diff", new, old, "--json"]) == 0
    back = json.loads(capsys.readouterr().out)
    assert all(line["downgrade"] for line in back)
    assert sum(len(line["packages"]) for line in back) == 24


def test_r1_23_overrides_take_the_place_of_pins(real: tuple[Path, Path], tmp_path: Path) -> None:
    base = parse_manifest_lock(real[1].read_bytes(), "lock")
    assert len(base.pins) == 439
    assert base.generated == 1_728_172_800
    general = {"packages": {"podman": {"evr": "5:5.2.5-1.fc40"}, "new": {"evr": "1-1"}}}
    by_arch = {"packages": {"podman": {"evra": "5:5.2.9-1.fc40.x86_64"}}}
    effective = base.under([manifest_lock_of(general, "g"), manifest_lock_of(by_arch, "a")])
    nevras = {nevra.name: str(nevra) for nevra in effective.nevras("x86_64")}
    assert nevras["podman"] == "podman-5:5.2.9-1.fc40.x86_64"
    assert nevras["new"] == "new-1-1.x86_64"
    assert len(nevras) == 440
    assert base.pins["podman"].source == "podman"


def test_real_overrides_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("packages: {}\n")
    path = DATA / "testing-devel-manifest-lock.overrides.yaml"
    assert main(["lock", "diff", str(empty), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  podman  5:5.2.5-1.fc40" in lines
    assert lines[0] == "added:"


def locked(text: str) -> LockedPackage:
    return LockedPackage(NEVRA.parse(text), "r", f"{text}.rpm", "0" * 64, 1)


def test_a_lock_of_ours_goes_there_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = (locked("a-1:2-3.x86_64"), locked("b-1-1.noarch"))
    lock = Lock("x86_64", 1_700_000_000, {"r": "sha256:x"}, packages)
    path = tmp_path / "ours.lock"
    path.write_bytes(LockFile({}).with_lock("coreos/s", lock).to_bytes())
    text = manifest_lock_bytes(lock).decode()
    back = parse_manifest_lock(text.encode(), "exported")
    assert back.generated == lock.generated
    assert back.nevras("x86_64") == tuple(package.nevra for package in packages)
    (tmp_path / "theirs.json").write_text(text)
    diff = ["lock", "diff", str(path), str(tmp_path / "theirs.json"), "--exit-code"]
    assert main([*diff, "--arch", "x86_64"]) == 0
    assert main([*diff, "--arch", "s390x"]) == 3
    assert "it has: coreos/s x86_64" in capsys.readouterr().err
    twice = Lock("x86_64", 0, {}, (*packages, locked("a-1:4-3.x86_64")))
    with pytest.raises(DefinitionError, match="several builds of a"):
        manifest_lock_bytes(twice)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("[]", "it has no `packages`"),
        ('{"packages": []}', "it has no `packages`"),
        ('{"packages": {"a": {}}}', "a has neither `evr` nor `evra`, or both"),
        ('{"packages": {"a": {"evr": "1-1", "evra": "1-1.x"}}}', "or both"),
        ('{"packages": {"a": {"evr": 5}}}', "a: its build is not text"),
        ('{"packages": {"a": {"evr": "1"}}}', "a: '1' is not [epoch:]version-release"),
        ('{"packages": {"a": {"evr": "1-1", "metadata": 5}}}', "a: its metadata is no mapping"),
        ('{"packages": {}, "metadata": {"generated": "x"}}', "`generated` is no time"),
    ],
)
def test_what_is_no_lock_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert main(["lock", "diff", str(path), str(path)]) == 3
    assert problem in capsys.readouterr().err
