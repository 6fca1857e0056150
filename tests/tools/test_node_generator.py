"""The generator with the real rpm: what it makes of a package database (requirement R6.1)."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from strata.node.units import GENERATOR, GENERATOR_FOLDER, Installation, write_units

pytestmark = pytest.mark.tools

MARKER = "kubernetes-client"
DATABASE = "/usr/lib/sysimage/rpm"


@pytest.fixture(scope="module")
def database(sample_repos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package database that knows some packages of the sample, and not the marker."""
    folder = tmp_path_factory.mktemp("database")
    record(folder, *sorted((sample_repos / "sample-12-baseos").glob("lib*.rpm"))[:40])
    return folder


def record(folder: Path, *packages: Path) -> None:
    """Have packages in a database without installing them."""
    argv = ["rpm", "--dbpath", str(folder), "-i", "--justdb", "--nodeps", "--noscripts"]
    argv += ["--force-debian", "--nosignature", *map(str, packages)]
    subprocess.run(argv, check=True, capture_output=True)


def generate(folder: Path, database: Path) -> Path | None:
    """Run the generator; what the machine will boot to, or None when that is left alone."""
    write_units(folder, Installation(marker=MARKER))
    generator = folder / GENERATOR_FOLDER / GENERATOR
    text = generator.read_text()
    assert DATABASE in text
    generator.write_text(text.replace(DATABASE, str(database)))
    argv = [str(generator), *(str(folder / name) for name in ("normal", "early", "late"))]
    done = subprocess.run(argv, env={"PATH": "/usr/bin:/bin"}, check=False, capture_output=True)
    link = folder / "early/default.target"
    found = link.readlink() if link.is_symlink() else None
    assert found is None or done.returncode == 0
    return found


def copy(database: Path, folder: Path) -> Path:
    return Path(shutil.copytree(database, folder / "database"))


def test_without_the_marker_the_machine_boots_to_the_overlay(
    database: Path, tmp_path: Path
) -> None:
    link = generate(tmp_path, database)
    assert link == Path("/etc/systemd/system/node-image-overlay.target")


def test_with_the_marker_the_machine_is_left_alone(
    database: Path, sample_repos: Path, tmp_path: Path
) -> None:
    own = copy(database, tmp_path)
    record(own, *sample_repos.glob(f"*/{MARKER}-*.rpm"))
    assert generate(tmp_path, own) is None


def test_a_missing_database_is_not_an_absent_package(tmp_path: Path) -> None:
    assert generate(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["header", "cut", "pages", "empty"])
def test_a_damaged_database_is_not_an_absent_package(
    database: Path, tmp_path: Path, damage: str
) -> None:
    own = copy(database, tmp_path)
    path = own / "rpmdb.sqlite"
    # The rows are in the file itself, as on a machine: not in a journal beside it.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    data = path.read_bytes()
    half = len(data) // 2
    damaged = {
        "header": b"\xff" * 4096 + data[4096:],
        "cut": data[:half],
        "pages": data[:4096] + b"\xff" * (len(data) - 4096),
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    assert generate(tmp_path, own) is None
