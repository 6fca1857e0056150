"""A machine of folders, on which the agent's overlay runs for real and is ended at every step.

Run it as `unshare --mount python fake_machine.py MODE FOLDER …`: mounts are made and taken away in
a namespace of its own. A *step* is one change of the disk or of the mounts, as Python's audit
events tell them; `mounts.py` goes through ctypes, so its calls are counted apart.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import strata.node.cli as agent
from strata.core.errors import StrataError
from strata.core.events import silent
from strata.core.files import mounts_under
from strata.core.process import Completed, run
from strata.node import etcapply, host, mounts, overlay, undo
from strata.node.config import NodeConfig

CHANGES = ("rename", "remove", "mkdir", "rmdir", "chmod", "chown", "link", "symlink", "utime")
KILLED = 137
ETC = {"passwd": "root\n", "shadow": "root:*\n", "same": "1", "mine": "my own", "gone": "1"}
BOOTED_ETC = {"passwd": "root\n", "same": "1", "mine": "1", "gone": "1", "old/file": "1"}
NODE_ETC = {"passwd": "root\n", "same": "2", "mine": "2", "new/deep/file": "n", "old": "a file now"}


class FakeMachine:
    """The folders of a machine that has pulled a node image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc, self.usr = root / "etc", root / "usr"
        self.checkout = root / "sysroot/ostree/node-image"
        host.STATE = root / "run/state.json"
        host.BACKUP = root / "run/etc-before"
        host.LOCK = root / "run/lock"
        host.JOURNAL, host.NOW = root / "run/journal.jsonl", root / "run/now"
        # As on a machine: /ostree is a link, and the kernel names mounts by their real path.
        host.CHECKOUT = root / "ostree/node-image"
        host.ETC, host.USR = str(self.etc), str(self.usr)
        host.require_booted = lambda: None
        mounts.join_machine = lambda: None
        vars(undo)["run"] = vars(overlay)["run"] = self.run

    def make(self) -> None:
        """Everything as it is after the pull."""
        # Nothing is ever removed through a mount.
        assert mounts_under(self.root) == []
        shutil.rmtree(self.root, ignore_errors=True)
        for top, files in (
            (self.etc, {**ETC, "old/file": "1"}),
            (self.usr / "etc", BOOTED_ETC),
            (self.checkout / "usr/etc", NODE_ETC),
            (self.usr, {"lib/modules/booted": "", "who": "booted"}),
            (self.checkout / "usr", {"lib/modules/.empty": "", "who": "node"}),
        ):
            for name, text in files.items():
                path = top / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        (self.etc / "shadow").chmod(0o640)
        (self.root / "ostree").symlink_to("sysroot/ostree")
        replace(host.State(), phase=host.PULLED).save()

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout_s: float | None = None
    ) -> Completed:
        """The commands an overlay runs: of them, systemd-sysusers changes /etc. A probe is run."""
        if argv[0].startswith("/"):
            return run(argv, check=check, timeout_s=timeout_s)
        tick()
        if argv[0] == "systemd-sysusers":
            (self.etc / ".pwd.lock").touch()
            for name in ("passwd", "shadow"):
                shutil.copy2(self.etc / name, self.etc / f"{name}-")
                with open(self.etc / name, "a") as stream:
                    stream.write("openvswitch\n")
        tick()
        return run(["true"])

    def look(self) -> dict[str, object]:
        """What an overlay may change, comparable."""
        return {
            "etc": {path: repr(entry) for path, entry in etcapply.read_tree(host.ETC).items()},
            "litter": [str(path) for path in self.etc.rglob("*.strata-new")],
            "usr": (self.usr / "who").read_text(),
            "mounts": sorted(mounts_under(self.root)),
            "phase": host.State.load().phase,
        }


_left = 0
_end: Callable[[], None] | None = None


def tick() -> None:
    """One step; the one that was asked for ends as asked."""
    global _left
    if _end is not None:
        _left -= 1
        if _left == 0:
            _end()


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    room, _, name = event.partition(".")
    changing = os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY  # a folder is opened to be made durable
    writes = event == "open" and int(str(arguments[2] or 0)) & changing
    if writes or (room == "os" and name in CHANGES):
        tick()


def _counted(call: Callable[..., None]) -> Callable[..., None]:
    def counted(*arguments: object, **options: object) -> None:
        tick()
        call(*arguments, **options)

    return counted


def _kill() -> None:
    os._exit(KILLED)  # as SIGKILL: nothing is cleaned up


def _full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _interrupt() -> None:
    raise KeyboardInterrupt


def child(call: Callable[[], object], step: int = 0, end: Callable[[], None] = _kill) -> int:
    """Do something in a process of its own, ended at a step; returns 0 when it came through."""
    pid = os.fork()
    if pid == 0:
        global _left, _end
        _left, _end = step, end if step else None
        try:
            call()
        except (StrataError, OSError, KeyboardInterrupt):
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _through() -> None:
    overlay.overlay(silent())


def end_everywhere(machine: FakeMachine) -> dict[str, object]:
    """End an overlay at each of its steps, in each way; what the next run makes of it."""
    machine.make()
    before = machine.look()
    assert child(_through) == 0
    after = machine.look()
    child(undo.take_back)
    wrong: list[str] = []

    def expect(what: str, wanted: dict[str, object]) -> None:
        found = machine.look()
        wrong.extend(
            f"{what}: {key} is {found[key]}, not {wanted[key]}"
            for key in wanted
            if found[key] != wanted[key]
        )

    steps = failed = 0
    while True:
        machine.make()
        if child(_through, steps + 1) == 0:
            break
        steps += 1
        if host.State.load().phase != host.OVERLAID:
            assert child(undo.take_back) == 0
            expect(f"taken back after a kill at step {steps}", before)
            machine.make()
            child(_through, steps)
        assert child(_through) == 0
        expect(f"run again after a kill at step {steps}", after)
        child(undo.take_back)
        for end in (_full_disk, _interrupt):
            machine.make()
            # A step may be one whose failure does not matter: removing what is rubbish.
            ended = child(_through, steps, end) != 0
            failed += ended
            expect(f"{end.__name__} at step {steps}", before if ended else after)
            child(undo.take_back)
    child(undo.take_back)
    undone = 0
    while True:
        machine.make()
        child(_through, steps - 4)  # before the state is saved: everything else is done
        assert host.State.load().phase == host.PULLED
        if child(undo.take_back, undone + 1) == 0:
            break
        undone += 1
        assert child(undo.take_back) == 0
        expect(f"an undoing killed at step {undone}", before)
    found = {"steps": steps, "failed": failed, "undone": undone, "wrong": wrong}
    return {**found, "after": after, "before": before}


def imports(machine: FakeMachine) -> dict[str, object]:
    """Modules that an overlay, one that works and one that does not, imports after it preloaded."""
    machine.make()
    late: list[str] = []
    preload = undo.preload

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import":
            late.append(str(arguments[0]))

    def preload_and_watch() -> None:
        preload()
        sys.addaudithook(hook)

    undo.preload = preload_and_watch
    told = [agent.main(["overlay"])]
    undo.take_back()
    machine.make()
    broken = ["sh", "-c", "echo broken >&2; exit 3"]
    vars(overlay)["run"] = lambda argv, check: run(broken, check=check)
    told.append(agent.main(["overlay"]))
    return {"late": late, "statuses": told, "after": machine.look()}


def probe(machine: FakeMachine, command: Sequence[str]) -> dict[str, object]:
    """An overlay with a health probe, and what it leaves."""
    machine.make()
    before = machine.look()
    told: dict[str, object] = {"status": 0}
    try:
        overlay.overlay(silent(), NodeConfig(probe=tuple(command), probe_timeout_s=0.5))
    except StrataError as error:
        told = error.to_json()
    after = machine.look()
    undo.take_back()
    return {"told": told, "as before": after == before, "after": after}


if __name__ == "__main__":
    fake = FakeMachine(Path(sys.argv[2]))
    mounts._mount = _counted(mounts._mount)
    mounts.unmount = _counted(mounts.unmount)
    if sys.argv[1] == "imports":
        result = imports(fake)
    elif sys.argv[1] == "probe":
        result = probe(fake, sys.argv[3:])
    else:
        sys.addaudithook(_audit)
        result = end_everywhere(fake)
    sys.stdout.write("\n" + json.dumps(result) + "\n")
