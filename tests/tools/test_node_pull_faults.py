"""A pull that is killed, finds the disk full, or a wrong clock: the next one goes through."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake_disk import Disk, make_disk
from importlab import fsck, make_lab
from layertar import Tar
from strata.core.errors import NoSpaceError
from strata.node import host, journal, preflight
from strata.node import pull as pulling
from strata.node.status import Status
from strata.ostree.repo import Repo

pytestmark = pytest.mark.tools

MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A machine whose disk has 64 MB, and an image of about 3 MB."""
    lab = make_lab(tmp_path / "lab")
    layers = [Tar().add(f"usr/lib/big{number}", os.urandom(MB)).bytes() for number in range(3)]
    lab.derive(*layers)
    root = tmp_path / "machine"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", root], check=True)
    try:
        yield make_disk(lab, root, Repo.init(root / "repo"), monkeypatch)
    finally:
        subprocess.run(["umount", root], check=True)


def killed(call: Callable[[], object]) -> int:
    """Do something in a process of its own; returns its id when SIGKILL ended it."""
    pid = os.fork()
    if pid == 0:
        call()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return pid


def die(*arguments: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("where", "name", "phase"),
    [
        (preflight, "look", "preflight"),
        (pulling, "import_image", "pull"),
        (Repo, "clear_partial", "pull"),
        (pulling, "checkout", "checkout"),
        (os, "link", "checkout"),
    ],
)
def test_a_pull_that_is_killed_is_told_and_gone_through_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, where: object, name: str, phase: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(where, name, die)
        pid = killed(disk.pull)
    status = Status.load()
    assert (status.state.phase, status.running) == (host.NOTHING, None)
    assert status.interrupted is not None
    assert (status.interrupted.phase, status.interrupted.pid) == (phase, pid)
    state = disk.pull()
    assert state.phase == host.PULLED
    assert Status.load().interrupted is None
    assert (host.CHECKOUT / "usr/lib/big2").stat().st_size == MB
    fsck(disk.repo)
    if phase == "checkout":
        assert state.fetched_bytes == 0, "what was imported was fetched again"


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
def test_a_pull_may_be_killed_at_any_moment(disk: Disk, seed: int) -> None:
    pid = os.fork()
    if pid == 0:
        disk.pull()
        os._exit(0)
    time.sleep(random.Random(seed).uniform(0, 0.8))  # noqa: S311
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    fsck(disk.repo)
    assert disk.pull().phase == host.PULLED
    assert Status.load().interrupted is None
    assert (host.CHECKOUT / "usr/lib/big2").stat().st_size == MB
    fsck(disk.repo)


def test_a_disk_that_fills_up_is_told_and_the_next_pull_goes_on(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = disk.root / "filler"
    with open(filler, "wb") as stream:
        status = os.statvfs(disk.root)
        os.posix_fallocate(stream.fileno(), 0, status.f_bavail * status.f_frsize - 2 * MB)
    with pytest.raises(NoSpaceError, match=r"needs about \d+ MB of disk below "):
        disk.pull()
    # And where the forecast was wrong: the disk itself says so.
    with monkeypatch.context() as patched:
        patched.setattr(preflight, "free_in", lambda path: (1 << 40, 1 << 40))
        with pytest.raises(NoSpaceError):
            disk.pull()
    assert journal.read()[-1].event == journal.FAILED
    filler.unlink()
    assert disk.pull().phase == host.PULLED
    fsck(disk.repo)


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_a_clock_that_is_wrong_by_years_does_not_matter(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: clock)
    assert disk.pull().phase == host.PULLED
    assert {entry.time_s for entry in journal.read()} == {clock}
    assert Status.load().interrupted is None
