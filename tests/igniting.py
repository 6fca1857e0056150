"""Ignition itself, on a folder: what a first boot makes of a config, without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

IGNITION = "/usr/lib/dracut/modules.d/30ignition/ignition"


def ignite(config: bytes, root: Path) -> Path:
    """Have Ignition write a config's files and units below a folder; returns it.

    Users need a system to be added to: give a config without any.
    """
    work = root.with_name(f"{root.name}-ignition")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "config.ign").write_bytes(config)
    # Debian's build relabels, and does not start without a policy: one that says nothing, then.
    (work / "setfiles").write_text("#!/bin/sh\n")
    (work / "setfiles").chmod(0o755)
    selinux = root / "etc/selinux"
    selinux.mkdir(parents=True)
    (selinux / "config").write_text("SELINUX=disabled\nSELINUXTYPE=default\n")
    options = ["-platform", "file", "-log-to-stdout", "-root", str(root)]
    for option in ("config-cache", "state-file", "neednet"):
        options += [f"-{option}", str(work / option)]
    env = {
        "PATH": f"{work}:{os.environ['PATH']}",
        "IGNITION_CONFIG_FILE": str(work / "config.ign"),
    }
    for stage in ("fetch", "files"):
        argv = ["unshare", "--net", IGNITION, *options, "-stage", stage]
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
    shutil.rmtree(selinux)
    (root / "etc/.ignition-result.json").unlink()
    return root
