"""`strata-node switch` in a real sysroot: what boots next, with which /etc, origin and kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fake_disk import Disk, make_disk
from importlab import make_lab
from layertar import Tar
from strata.core.errors import StrataError, ToolFailedError, ToolMissingError
from strata.core.events import Noted, Reporter, silent
from strata.core.files import remove_tree
from strata.core.process import Completed, run
from strata.node import cli, host, switch
from strata.ostree import libostree
from strata.ostree.libostree import Deployed, deployments
from strata.ostree.repo import Repo

pytestmark = pytest.mark.tools

OS_RELEASE = b'ID=sample\nPRETTY_NAME="Sample"\n'


def bootable(kernel: str) -> Tar:
    """A layer with a kernel, as a deployment needs it."""
    tar = Tar().add(f"usr/lib/modules/{kernel}/vmlinuz", kernel.encode())
    tar.add(f"usr/lib/modules/{kernel}/initramfs.img", b"initramfs")
    return tar.add("usr/lib/os-release", OS_RELEASE)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A machine that booted a base, with files and kernel arguments of its own, and has pulled."""
    lab = make_lab(tmp_path / "lab")
    lab.derive(bootable("6.1").bytes(), tag="booted")
    lab.derive(bootable("6.1").bytes(), Tar().add("usr/bin/new", b"new").bytes())
    root = tmp_path / "machine"
    root.mkdir()
    at, stored = f"--sysroot={root}", f"--repo={root}/ostree/repo"
    run(["ostree", "admin", "init-fs", str(root)])
    run(["ostree", "admin", "os-init", at, "node"])
    run(["ostree", stored, "config", "set", "sysroot.bootloader", "none"])
    repo = Repo.open(root / "ostree/repo")
    base = lab.pull(repo, "booted").merge_commit
    run(["ostree", "admin", "deploy", at, "--os=node", "--karg=console=ttyS0", base])
    monkeypatch.setattr(host, "SYSROOT", root)
    monkeypatch.setattr(host, "BOOT", root / "boot")
    made = make_disk(lab, root, repo, monkeypatch)
    (folder(made, deployments(root)[0]) / "etc/mine").write_text("mine")
    yield made
    remove_tree(root)


def folder(disk: Disk, row: Deployed) -> Path:
    return disk.root / f"ostree/deploy/{row.stateroot}/deploy/{row.commit}.{row.serial}"


def boots_next(disk: Disk) -> str:
    """The boot loader's first entry."""
    entries = sorted((disk.root / "boot/loader/entries").glob("*.conf"))
    return entries[-1].read_text()


def booted_is(disk: Disk, monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    """Have a deployment count as the booted one, which a folder's cannot be."""
    real = libostree.deployments

    def marked(sysroot: Path) -> list[Deployed]:
        return [replace(row, is_booted=row.commit == commit) for row in real(sysroot)]

    monkeypatch.setattr(switch, "deployments", marked)
    monkeypatch.setattr(libostree, "deployments", marked)


def test_the_pulled_image_boots_next_with_etc_and_arguments(disk: Disk) -> None:
    base = deployments(disk.root)[0]
    state = disk.pull()
    said: list[object] = []
    done = switch.switch(Reporter(said.append))
    rows = deployments(disk.root)
    assert [row.commit for row in rows] == [state.merge_commit, base.commit]
    assert (done.deployment, done.kernel) == (rows[0], "6.1")
    deployed = folder(disk, rows[0])
    assert (deployed / "usr/bin/new").read_text() == "new"
    assert (deployed / "etc/mine").read_text() == "mine"
    # libostree empties a repository's tmp of what is old, and a checkout's times are 0.
    assert (host.CHECKOUT / "usr/bin/new").read_text() == "new"
    assert "console=ttyS0" in boots_next(disk)
    assert deployed.with_suffix(".0.origin").read_text().splitlines()[:2] == [
        "[origin]",
        f"container-image-reference=ostree-unverified-image:{disk.image}",
    ]
    notes = [event.message for event in said if isinstance(event, Noted)]
    assert notes == [f"kernel 6.1 takes effect with the next boot; {host.running_kernel()} runs"]


def test_a_second_switch_changes_nothing(disk: Disk) -> None:
    disk.pull()
    switch.switch(silent())
    before = deployments(disk.root)
    switch.switch(silent())
    assert deployments(disk.root) == before


def test_a_switch_is_rolled_back_and_done_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = deployments(disk.root)[0]
    node = disk.pull().merge_commit
    switch.switch(silent())
    booted_is(disk, monkeypatch, base.commit)
    # Before the reboot: what is booted boots next again.
    assert cli.main(["switch", "--rollback"]) == 0
    assert capsys.readouterr().out == f"{base.commit} boots next, kernel 6.1\n"
    assert [row.commit for row in deployments(disk.root)] == [base.commit, node]
    # And once more: what was rolled back.
    assert switch.roll_back(silent()).deployment.commit == node
    # After a reboot into the node image: the one before.
    booted_is(disk, monkeypatch, node)
    assert switch.roll_back(silent()).deployment.commit == base.commit
    assert (folder(disk, base) / "etc/mine").read_text() == "mine"


def test_there_must_be_something_to_go_to(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StrataError, match="no other deployment to go back to"):
        switch.roll_back(silent())
    with pytest.raises(StrataError, match="no pulled node image to switch to"):
        switch.switch(silent())
    monkeypatch.setattr(host, "is_live", lambda: True)
    with pytest.raises(StrataError, match="no next boot of its own"):
        switch.switch(silent())


def test_a_folder_that_is_no_sysroot_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError, match=r"reading the deployments of .*/nowhere failed: "):
        deployments(tmp_path / "nowhere")


def test_a_machine_without_bwrap_is_told_so(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.pull()
    before = deployments(disk.root)
    told = 'echo "error: Failed to execute child process /usr/bin/bwrap (No such file)" >&2; exit 1'

    def failing(argv: list[str], *, error: Callable[[str], StrataError | None]) -> Completed:
        return run(["sh", "-c", told], error=error)

    monkeypatch.setattr(switch, "run", failing)
    with pytest.raises(ToolMissingError, match="bwrap is not installed"):
        switch.switch(silent())
    assert deployments(disk.root) == before
