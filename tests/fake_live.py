"""A live machine of folders: a medium that cannot be written, a tmpfs, the agent run for real.

Run as `unshare --mount python fake_live.py FOLDER IMGREF`. FOLDER holds `medium` (a repository),
`usr` and `etc` of the booted commit, whose checksum is in `booted`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from strata.core.errors import StrataError
from strata.core.events import silent
from strata.core.files import mounts_under
from strata.core.process import Completed, run
from strata.node import etcapply, host, live, mounts, overlay, undo
from strata.node.config import NodeConfig
from strata.node.pull import pull
from strata.node.verify import verify
from strata.node.wanted import Wanted
from strata.oci.reference import SignedReference
from strata.ostree.objects import Checksum


def set_up(root: Path) -> None:
    """The agent's places in the folder; the medium read-only."""
    for name in ("STATE", "LOCK", "JOURNAL", "NOW", "BACKUP", "LIVE"):
        setattr(host, name, root / "run" / name.lower())
    host.LIVE_MARK = root / "booted"
    host.REPO, host.USR, host.ETC = root / "medium", str(root / "usr"), str(root / "etc")
    host.booted_commit = lambda: Checksum((root / "booted").read_text())
    host.require_booted = lambda: None
    mounts.join_machine = mounts.private_namespace = lambda: None
    vars(undo)["run"] = vars(overlay)["run"] = nothing
    for path in (root / "medium", root / "usr"):
        mounts.bind(str(path), str(path))
        mounts.make_read_only(str(path))


def nothing(argv: list[str], *, check: bool = True) -> Completed:
    """The commands of an overlay do nothing here."""
    return run(["true"])


def used_bytes() -> int:
    """What the tmpfs holds."""
    status = os.statvfs(host.LIVE)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def through(reference: SignedReference, root: Path) -> dict[str, object]:
    """Pull, overlay, verify, undo."""
    before = etcapply.read_tree(host.ETC)
    state = pull(Wanted(NodeConfig(), reference), retry_for_s=0, reporter=silent())
    overlay.overlay(silent())
    done = verify(silent())
    shown = {
        "phase": state.phase,
        "fetched": state.fetched_bytes,
        "used": used_bytes(),
        "differences": [[item.path, item.what] for item in done.differences],
        "files": done.files,
        "hosts": (root / "etc/hosts").read_text(),
        "tool": (root / "usr/bin/new").read_text(),
        "kernel": (root / "usr/lib/modules/6.1/vmlinuz").read_text(),
    }
    undo.undo(silent())
    return {
        **shown,
        "tool after": (root / "usr/bin/new").exists(),
        "etc after": etcapply.read_tree(host.ETC) == before,
        "mounts after": [point for point in mounts_under(root) if "node-image" in point],
    }


if __name__ == "__main__":
    top = Path(sys.argv[1])
    set_up(top)
    available = int(sys.argv[3])
    host.available_memory_bytes = lambda: available + live.RESERVE_BYTES
    try:
        found = through(SignedReference.parse_pullspec(sys.argv[2]), top)
    except StrataError as error:
        found = {"error": error.to_json(), "phase": host.State.load().phase}
    sys.stdout.write("\n" + json.dumps(found) + "\n")
