"""What several tiers share: the command itself, and one store built once for all of them.

The store is kept outside of the repository, under the cache, by the digest of the source and the
definitions it was built from: a second run, or another tier, finds it up to date.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from bootlab import BootLab, NodeImages
from importlab import Lab, make_lab
from registry import Registry
from strata.bootimage.build import FORMATS
from strata.core.files import locked
from strata.machine.guest import make_key
from strata.node.mounts import private_namespace

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "definitions" / "sample"
Strata = Callable[..., "subprocess.CompletedProcess[str]"]


def cache_folder() -> Path:
    """The cache that downloads and test stores are kept in."""
    return Path(os.environ.get("STRATA_CACHE") or Path.home() / ".cache" / "strata")


def run_strata(*arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    command = [str(Path(sys.executable).with_name("strata")), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **env}, check=False
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stderr[-6000:]}")
    return done


@pytest.fixture(scope="session")
def strata() -> Strata:
    """The command; keyword arguments are environment variables."""
    return run_strata


@pytest.fixture(scope="session")
def sample_repos() -> Path:
    """The sample's RPM repositories (release compose), shared between stores."""
    dest = cache_folder() / "tests" / "sample-release"
    run_strata("sample", "repos", str(dest))
    return dest


def make_store(store: Path, repos: Path) -> Path:
    """A store whose `$store/sample` is the shared repositories."""
    store.mkdir(parents=True, exist_ok=True)
    link = store / "sample"
    if not link.is_symlink():
        link.symlink_to(repos)
    return store


# --- two workers (make test) -------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """A worker sees no mount of the other's."""
    if hasattr(config, "workerinput"):
        private_namespace()


# What goes to one worker as a whole, longest first: all that uses a store to boot from.
SHARES = {
    "machine_store": ("tests/vm/", "tests/tools/test_bootimage_tools.py", "tests/bench/"),
    "container_store": ("tests/nspawn/",),
}


def share_of(nodeid: str) -> str:
    """The share a test is in; its file is one when it boots nothing."""
    found = (share for share, paths in SHARES.items() if nodeid.startswith(paths))
    return next(found, nodeid.partition("::")[0])


class Shares(LoadScopeScheduling):  # type: ignore[misc]  # xdist's has no types
    """Gives out shares, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Shares:
    """xdist's hook; its own groups do not work with pytest 9.2, whose names of tests are fixed."""
    return Shares(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What boots comes first, as it takes longest."""
    for item in items:
        stores = SHARES.keys() & set(getattr(item, "fixturenames", ()))
        if stores - {share_of(item.nodeid)}:
            raise pytest.UsageError(f"{item.nodeid} uses {stores}: see SHARES")
    if hasattr(config, "workerinput"):
        order = {share: place for place, share in enumerate(SHARES)}
        items.sort(key=lambda item: order.get(share_of(item.nodeid), len(order)))


# --- stores -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def built_store(sample_repos: Path) -> Path:
    """A store with all four sample targets built. Tests must not change its tags or records."""
    total = hashlib.sha256()
    for folder in (ROOT / "src", SAMPLE):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    stores = cache_folder() / "tests" / "stores"
    store = stores / total.hexdigest()[:16]
    with locked(stores / "lock", "the stores of the tests"):
        for old in stores.glob("*/"):
            if not old.name.startswith(store.name):
                run_strata("clean", "--store", str(old), check=False)
                shutil.rmtree(old, ignore_errors=True)
        make_store(store, sample_repos)
        targets = ("bootc/sample-12", "coreos/sample-12", "node/4.19", "node/4.20")
        run_strata("-C", str(SAMPLE), "--store", str(store), "build", *targets)
        for share in SHARES:
            copy = store.with_name(f"{store.name}-{share}")
            if not copy.exists():
                copy_store(store, stores / "new").rename(copy)
    return store


@pytest.fixture(scope="session")
def container_store(built_store: Path) -> Path:
    """A copy of the built store, in which systemd-nspawn's machines are mounted."""
    return built_store.with_name(f"{built_store.name}-container_store")


@pytest.fixture(scope="session")
def machine_store(built_store: Path) -> Path:
    """A copy of the built store, which gets boot images."""
    return built_store.with_name(f"{built_store.name}-machine_store")


@pytest.fixture(scope="session")
def boot_lab(machine_store: Path, tmp_path_factory: pytest.TempPathFactory) -> BootLab:
    """The machines' store with the sample's boot images in it."""
    targets = [f"bootimage/sample-12:{form}" for form in FORMATS]
    run_strata("-C", str(SAMPLE), "--store", str(machine_store), "build", *targets)
    return BootLab.open(SAMPLE, machine_store, make_key(tmp_path_factory.mktemp("ssh")))


@pytest.fixture(scope="session")
def node_images(
    machine_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeImages]:
    """A registry with node images on the base of the boot images and on a newer one."""
    repos = cache_folder() / "tests" / "sample-updates"
    run_strata("sample", "repos", str(repos), "--compose", "updates")
    store = make_store(tmp_path_factory.mktemp("newer") / "store", repos)
    run_strata("-C", str(SAMPLE), "--store", str(store), "build", "node/4.19")
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.start()
        yield NodeImages.push(registry, machine_store, store)


def copy_store(store: Path, folder: Path) -> Path:
    """A copy of a store in a folder, to build into: blobs and objects are hard links."""
    copy = folder / "store"
    folder.mkdir(exist_ok=True)
    subprocess.run(["cp", "-al", store, copy], check=True)
    # A lock that is the same file is held for both.
    for place in (".", "repo", "cache/metadata", "cache/packages"):
        (copy / place / ".lock").unlink(missing_ok=True)
    (copy / ".index.lock").unlink(missing_ok=True)
    for name in ("index.json", "records"):
        target = copy / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        subprocess.run(["cp", "-a", store / name, copy], check=True)
    return copy


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    """A copy of the sample's definitions, to change."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))


@pytest.fixture
def own_store(built_store: Path, tmp_path: Path) -> Path:
    """A copy of the built store (blobs and objects as hard links), to build into."""
    return copy_store(built_store, tmp_path)


@pytest.fixture(scope="session")
def nothing_left_running(container_store: Path) -> Iterator[None]:
    """After all tests that boot, no process and no mount of theirs is there."""
    yield
    assert leftovers(container_store) == []


def leftovers(folder: Path) -> list[str]:
    """Processes and mounts that belong to a folder, in whichever namespace they are.

    A machine's PID 1 carries no path on its command line; its mounts say where it came from.
    """
    found = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(folder) in line
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            mounts = (process / "mountinfo").read_text(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if process.name != str(os.getpid()) and (str(folder) in command or str(folder) in mounts):
            found.append(f"{process.name}: {command}")
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A base image to import, and a place for images derived from it."""
    return make_lab(tmp_path)
