"""An installer's files (units, the agent, its configuration) in a deployment's `/etc` and `/var`,
where Ignition would put them.
"""

from __future__ import annotations

import os
from pathlib import Path

from strata.bootimage.sysroot import Deployment
from strata.core.errors import MachineError


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
