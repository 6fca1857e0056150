"""A commit becomes a deployment in a sysroot of its own, as a machine's disk would hold it.

`ostree admin` does the deploying; this only says where, and puts an installer's files (units, the
agent, its configuration) into the deployment's `/etc` and `/var`, where Ignition would put them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import MachineError
from strata.core.files import remove_tree
from strata.core.process import run

STATEROOT = "strata"


@dataclass(frozen=True)
class Deployment:
    """A deployed commit. root: the deployment's folder; var: the stateroot's /var."""

    sysroot: Path
    root: Path
    commit: str

    @property
    def var(self) -> Path:
        """What the machine sees as /var."""
        return self.sysroot / "ostree/deploy" / STATEROOT / "var"


def deploy(repo: Path, commit: str, sysroot: Path) -> Deployment:
    """Make a new sysroot and deploy a commit of a repository into it.

    Objects are hard-linked when both are on one file system. Raises ToolFailedError, MachineError.
    """
    remove_tree(sysroot)
    sysroot.mkdir(parents=True)
    at = f"--sysroot={sysroot}"
    run(["ostree", "admin", "init-fs", str(sysroot)])
    run(["ostree", "admin", "os-init", at, STATEROOT])
    run(["ostree", f"--repo={sysroot}/ostree/repo", "pull-local", str(repo), commit])
    run(["ostree", "admin", "deploy", at, f"--os={STATEROOT}", "--karg=root=LABEL=root", commit])
    roots = sorted((sysroot / "ostree/deploy" / STATEROOT / "deploy").glob("*.[0-9]"))
    if len(roots) != 1:
        raise MachineError(f"{len(roots)} deployments where one was made", context={"at": sysroot})
    return Deployment(sysroot, roots[0], commit)


def put_file(deployment: Deployment, path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a machine's own file, under /etc or /var, before its first boot."""
    top, _, rest = path.strip("/").partition("/")
    base = {"etc": deployment.root / "etc", "var": deployment.var}.get(top)
    if base is None or ".." in rest.split("/"):
        raise MachineError(f"{path} is not under /etc or /var", hint="the rest is the image's")
    target = base / rest
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(mode)


def put_tree(deployment: Deployment, source: Path) -> None:
    """Copy a folder that holds `etc/` and `var/` onto the machine's own, modes kept."""
    for folder, _, files in os.walk(source):
        for name in files:
            path = Path(folder) / name
            where = str(path.relative_to(source))
            if path.is_symlink():
                top, _, rest = where.partition("/")
                base = deployment.root / "etc" if top == "etc" else deployment.var
                (base / rest).parent.mkdir(parents=True, exist_ok=True)
                (base / rest).symlink_to(os.readlink(path))
            else:
                put_file(deployment, where, path.read_bytes(), path.stat().st_mode & 0o7777)
