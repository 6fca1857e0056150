"""Offline means offline: in a network namespace without a route, and without a single attempt."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata
from rpmrepo import Server, make_repository, serving
from strata.core import network
from strata.core.errors import OfflineError
from strata.oci import skopeo
from strata.sample.signing import signing

pytestmark = pytest.mark.tools

# Definitions, from their files to the packages: what a build does before it installs anything.
_SOLVE_AND_FETCH = """
import json, sys
from pathlib import Path
from strata.compose.definitions import load_definition
from strata.compose.workspace import Workspace
from strata.core.errors import StrataError
from strata.core.events import silent
from strata.rpm.cache import PackageCache
from strata.treefile.project import load_project
folder, store = map(Path, sys.argv[1:])
workspace = Workspace.create(store)
try:
    definition = load_definition(
        load_project(folder), "m.yaml", variables={}, arch="x86_64", store=store, reporter=silent()
    )
    lock = definition.lock(arch="x86_64", workspace=workspace)
    paths = PackageCache(workspace.packages).fetch(lock, definition.repos)
    print(json.dumps({"lock": lock.identity(), "packages": sorted(map(str, paths))}))
except StrataError as error:
    print(json.dumps(error.to_json()))
"""
_PROJECT = """\
schema = 1
repos = ["test.repo"]
[stream.s]
version = "1.0"
arches = ["x86_64"]
coreos = { treefile = "m.yaml" }
"""


def definitions(folder: Path, served: Server, local: Path) -> Path:
    """A project with one repository over HTTP and one on the disk."""
    folder.mkdir()
    (folder / "strata.toml").write_text(_PROJECT)
    (folder / "m.yaml").write_text("repos: [far, near]\npackages: [app]\n")
    (folder / "test.repo").write_text(
        f"[far]\nbaseurl={served.url}\ngpgcheck=0\n[near]\nbaseurl=file://{local}\ngpgcheck=0\n"
    )
    return folder


def solve_and_fetch(folder: Path, store: Path, *within: str, **env: str) -> dict[str, object]:
    done = subprocess.run(
        [*within, sys.executable, "-c", _SOLVE_AND_FETCH, str(folder), str(store)],
        env={**os.environ, "no_proxy": "*", **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_packages_and_metadata_come_from_the_store(tmp_path: Path) -> None:
    make_repository(tmp_path / "far", {"app 1.0": "Requires: lib", "extra 1.0": ""})
    make_repository(tmp_path / "near", {"lib 1.0": ""})
    offline = {network.VARIABLE: "1"}
    isolated = ("unshare", "-n")  # not even a loopback that is up
    with serving(tmp_path / "far") as server:
        folder = definitions(tmp_path / "definitions", server, tmp_path / "near")
        store = tmp_path / "store"

        missing = solve_and_fetch(folder, store, **offline)
        assert missing["code"] == "offline"
        assert missing["message"] == (
            f"repository far ({server.url}) was never read into this store, and this is an "
            "offline run"
        )
        assert missing["hint"] == "run once without --offline"
        assert server.asked == []

        first = solve_and_fetch(folder, store)
        assert first["packages"] == ["app-1.0-1.noarch", "lib-1.0-1.noarch"]
        server.asked.clear()
        # The server is there and has something else: nothing asks it.
        make_repository(tmp_path / "far", {"app 2.0": ""})
        assert solve_and_fetch(folder, store, **offline) == first
        assert server.asked == []
    assert solve_and_fetch(folder, store, *isolated, **offline) == first

    (folder / "m.yaml").write_text("repos: [far, near]\npackages: [app, extra]\n")
    more = solve_and_fetch(folder, store, *isolated, **offline)
    assert more["message"] == (
        "a package is not in this store, and this is an offline run: extra-1.0-1.noarch"
    )

    # A repository on the disk is read as it is now.
    (folder / "m.yaml").write_text("repos: [far, near]\npackages: [app]\n")
    make_repository(tmp_path / "near", {"lib 2.0": ""})
    newer = solve_and_fetch(folder, store, *isolated, **offline)
    assert newer["packages"] == ["app-1.0-1.noarch", "lib-2.0-1.noarch"]


def test_metadata_that_is_gone_is_told_and_an_index_that_was_changed_is_refused(
    tmp_path: Path,
) -> None:
    make_repository(tmp_path / "far", {"app 1.0": "", "lib 1.0": ""})
    make_repository(tmp_path / "near", {"other 1.0": ""})
    with serving(tmp_path / "far") as server:
        folder = definitions(tmp_path / "definitions", server, tmp_path / "near")
        store = tmp_path / "store"
        solve_and_fetch(folder, store)
    (kept,) = (store / "cache/metadata/index").glob("far-*")
    good = kept.read_bytes()
    kept.write_bytes(good.replace(b"1700000000", b"1700000001"))
    changed = solve_and_fetch(folder, store, "unshare", "-n", STRATA_OFFLINE="1")
    assert changed["message"] == "what dnf has of repository far is not what was read last"
    assert changed["hint"] == "run once without --offline"
    kept.write_bytes(good)
    (cached,) = (store / "cache/metadata").glob(f"far-{'?' * 16}")
    shutil.rmtree(cached)
    gone = solve_and_fetch(folder, store, "unshare", "-n", STRATA_OFFLINE="1")
    assert gone["code"] == "offline"
    assert "Cache-only enabled but no cache for 'far'" in str(gone["message"])


def test_a_signed_index_is_verified_again_offline(tmp_path: Path) -> None:
    """Turning repo_gpgcheck on later does not let what was cached before it pass."""
    make_repository(tmp_path / "far", {"app 1.0": "", "lib 1.0": ""})
    make_repository(tmp_path / "near", {"other 1.0": ""})
    with serving(tmp_path / "far") as server:
        folder = definitions(tmp_path / "definitions", server, tmp_path / "near")
        store = tmp_path / "store"
        solve_and_fetch(folder, store)
    with signing(tmp_path) as signer:
        (folder / "key.asc").write_bytes(signer.public)
    text = (folder / "test.repo").read_text()
    (folder / "test.repo").write_text(
        text.replace("gpgcheck=0", "gpgcheck=0\nrepo_gpgcheck=1\ngpgkey=key.asc", 1)
    )
    refused = solve_and_fetch(folder, store, "unshare", "-n", STRATA_OFFLINE="1")
    assert refused["code"] == "signature"
    assert refused["message"] == (
        "the index of repository far is not signed, and test.repo wants it to be"
    )


def test_the_sample_builds_without_a_network(built_store: Path, strata: Strata) -> None:
    targets = ("bootc/sample-12", "coreos/sample-12", "node/4.19", "node/4.20")
    build = ("build", *targets)
    command = [str(Path(sys.executable).with_name("strata")), "-C", str(SAMPLE)]
    done = subprocess.run(
        ["unshare", "-n", *command, "--store", str(built_store), "--json", "--offline", *build],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in json.loads(done.stdout)} == {"up to date"}


@pytest.mark.parametrize("verb", ["inspect", "ls"])
def test_no_command_asks_a_registry(strata: Strata, verb: str) -> None:
    name = "docker://registry.example/a:1"
    done = strata("image", verb, name, "--offline", check=False)
    assert done.returncode == OfflineError.exit_status
    assert done.stderr.startswith(
        f"strata: {name} would have to be fetched, but this is an offline run\n"
    )


def test_the_door_to_registries_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(network.VARIABLE, "1")
    name = "docker://registry.example/a:1"
    for knock in (
        lambda: skopeo.inspect_raw(name),
        lambda: skopeo.copy(name, "oci:/nowhere:x"),
        lambda: skopeo.copy("oci:/nowhere:x", name),
        lambda: skopeo.Proxy(name),
    ):
        with pytest.raises(OfflineError):
            knock()


def test_the_samples_repositories_are_made_of_what_is_cached(
    sample_repos: Path, strata: Strata, tmp_path: Path
) -> None:
    command = str(Path(sys.executable).with_name("strata"))
    repos = ("sample", "repos", str(tmp_path / "repos"))
    done = subprocess.run(
        ["unshare", "-n", command, "--offline", "--json", *repos],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {row["converted"] for row in json.loads(done.stdout)} == {0}
    done = strata(
        *("--offline", "sample", "repos", str(tmp_path / "more")),
        check=False,
        STRATA_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == OfflineError.exit_status
    assert "the indexes of the Debian archive (release) would have to be fetched" in done.stderr
