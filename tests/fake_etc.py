"""A machine whose /etc has everything that stops a merge: names, mounts, pipes, immutable files.

Run it as `unshare --mount python fake_etc.py FOLDER POLICY`; it prints what an overlay did.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_machine import FakeMachine
from strata.core.process import run
from strata.node import cli, host, mounts, undo
from strata.node.config import NodeConfig

# Names that are cut, split, escaped or refused where names are not taken as bytes.
NAMES = [
    "with space",
    "two\nlines",
    "-dash",
    "quote'\"$(x)`",
    os.fsdecode(b"not-utf8-\xff\xfe"),
    "\x1b[2J",
    "ünïcode",
    "n" * 255,
]
KEY = "ssh/ssh_host_rsa_key"
IMMUTABLE, FROZEN, GROWING = "immutable", "frozen", "growing"


def make(machine: FakeMachine) -> None:
    """The base, the machine's and the image's /etc; the image changes every path."""
    machine.make()
    booted, node = machine.usr / "etc", machine.checkout / "usr/etc"
    for name in (*NAMES, IMMUTABLE, GROWING, "bound", "fifo", "dangling"):
        (booted / name).write_text("1")
        (node / name).write_text("2")
        if name not in ("fifo", "dangling"):
            (machine.etc / name).write_text("1")
    for top, text in ((booted, "1"), (machine.etc, "1"), (node, "2")):
        for folder in ("mounted", FROZEN):
            (top / folder).mkdir()
            (top / folder / "inside").write_text(text)
    (machine.etc / "ssh").mkdir()
    (machine.etc / KEY).write_text("private")
    (machine.etc / KEY).chmod(0o640)
    os.mkfifo(machine.etc / "fifo")
    os.symlink("nowhere", machine.etc / "dangling")
    os.symlink("nowhere", booted / "link")
    os.symlink("nowhere", machine.etc / "link")
    os.symlink("elsewhere", node / "link")
    other = machine.root / "other"
    other.mkdir()
    (other / "inside").write_text("another file system's")
    mounts.bind(str(other), str(machine.etc / "mounted"))
    mounts.bind(str(other / "inside"), str(machine.etc / "bound"))
    flags(machine, "+")


def flags(machine: FakeMachine, sign: str) -> None:
    """Set or clear what chattr can."""
    for flag, name in (("i", IMMUTABLE), ("a", GROWING), ("i", FROZEN)):
        run(["chattr", f"{sign}{flag}", str(machine.etc / name)])


def agent(*arguments: str) -> dict[str, Any]:
    """Run one command of the agent, in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.main(arguments)
        told = {"status": status, "out": out.getvalue(), "err": err.getvalue()}
        with os.fdopen(writing, "w") as stream:
            json.dump(told, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        found: dict[str, Any] = json.load(stream)
    os.waitpid(pid, 0)
    return found


def everything(machine: FakeMachine, policy: str) -> dict[str, Any]:
    """A dry run, an overlay, and its undoing: what each says, and how the machine looks."""
    config = replace(NodeConfig(), etc=policy)
    vars(cli)["NodeConfig"] = type("Fixed", (), {"load": staticmethod(lambda: config)})
    make(machine)
    try:
        before = machine.look()
        dry = agent("overlay", "--dry-run", "--json")
        untouched = machine.look() == before
        told = agent("overlay")
        return {
            "dry": dry,
            "untouched": untouched,
            "overlay": told,
            "state": agent("status", "--json"),
            "before": before,
            "after": machine.look(),
            "undo": agent("undo"),
            "undone": machine.look() == before,
        }
    finally:
        undo.take_back()
        flags(machine, "-")


if __name__ == "__main__":
    fake = FakeMachine(Path(sys.argv[1]))
    host.LIVE_MARK = fake.root / "no-live-system"
    sys.stdout.write("\n" + json.dumps(everything(fake, sys.argv[2])) + "\n")
