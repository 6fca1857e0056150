"""`strata clean` removes stores, and nothing that is none or that is in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.cli.main import main
from strata.compose.workspace import Workspace

pytestmark = pytest.mark.unit


def test_a_store_is_removed(tmp_path: Path) -> None:
    store = Workspace.create(tmp_path / "store").store
    (store / "records").mkdir()
    assert main(["clean", "--store", str(store), "--dry-run"]) == 0
    assert store.is_dir()
    assert main(["clean", "--store", str(store)]) == 0
    assert not store.exists()


def test_the_cache_alone_is_removed(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "store")
    (workspace.packages / "aa").mkdir(parents=True)
    (workspace.store / "records").mkdir()
    assert main(["clean", "--cache", "--store", str(workspace.store), "--dry-run"]) == 0
    assert workspace.packages.is_dir()
    assert main(["clean", "--cache", "--store", str(workspace.store)]) == 0
    assert not workspace.cache.exists()
    assert (workspace.store / "records").is_dir()


def test_a_folder_that_is_no_store_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("dear")
    for options in ([], ["--dry-run"]):
        assert main(["clean", "--store", str(tmp_path / "home"), *options]) == 2
        assert f"{tmp_path}/home is not a store: it has no oci-layout" in capsys.readouterr().err
    assert main(["clean", "--store", str(tmp_path / "home/letter")]) == 2
    assert (tmp_path / "home/letter").read_text() == "dear"


def test_where_nothing_is_there_is_nothing_to_remove(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        assert main(["clean", "--store", str(tmp_path / name)]) == 0
        assert f"there is no store in {tmp_path / name}" in capsys.readouterr().err
    assert not (tmp_path / "missing").exists()


def test_a_store_that_a_build_holds_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.create(tmp_path / "store")
    with workspace.locked():
        assert main(["clean", "--store", str(workspace.store)]) == 1
    assert "another process is using the store" in capsys.readouterr().err
    assert (workspace.store / "oci-layout").exists()
    assert main(["clean", "--store", str(workspace.store)]) == 0
