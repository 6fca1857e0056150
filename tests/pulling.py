"""A machine of folders that pulls: a root, mounts and processes of its own, the host's programs, a
registry's network. The agent is the one that its Ignition config brought."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from conftest import run_strata
from igniting import ignite
from registry import Registry
from strata.ostree.repo import Repo

# As the unit starts it: PID 1 is somebody else, and its environment file is read.
_INSIDE = """
set -eu
root=$1 machine=$2
shift 2
mount -t tmpfs machine "$root"
for top in /*; do
    case $top in /etc | /run | /proc | /ostree | /sysroot) continue ;; esac
    if [ -L "$top" ]; then
        cp -P "$top" "$root$top"
    elif [ -d "$top" ]; then
        mkdir "$root$top"
        mount --rbind "$top" "$root$top"
    fi
done
mkdir "$root/etc" "$root/run" "$root/proc" "$root/ostree" "$root/sysroot"
mount -t overlay overlay -o "lowerdir=$machine/etc:/etc" "$root/etc"
mount -t tmpfs run "$root/run"
touch "$root/run/ostree-booted"
mount -t proc proc "$root/proc"
mount --bind "$machine/ostree" "$root/ostree"
chroot "$root" sh -c '
    if [ -e /etc/strata/environment ]; then set -a; . /etc/strata/environment; set +a; fi
    exec "$@"
' sh "$@" || exit $?
"""


class PullingMachine:
    """Its files are below `folder`, and its repository stays from one pull to the next."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder, self.registry = folder, registry
        self.root = folder / "machine"
        for path in (self.root / "ostree", self.root / "etc", folder / "root"):
            path.mkdir(parents=True)
        self.repo = Repo.init(self.root / "ostree/repo")

    def set_up(self, *options: str) -> None:
        """Have Ignition do what `strata ignition bootstrap` writes; earlier files stay."""
        config = self.folder / "config.ign"
        run_strata("ignition", "bootstrap", *options, "-o", str(config))
        ignite(config.read_bytes(), self.root)

    def command(self, *arguments: str) -> list[str]:
        """The agent's command line, on the machine."""
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSIDE, "sh"]
        agent = str(self.root / "usr/local/bin/strata-node.pyz")
        folders = (str(self.folder / "root"), str(self.root))
        return self.registry.inside(*argv, *folders, agent, *arguments)

    def pull(self, *, retry_for_s: float = 0) -> subprocess.CompletedProcess[str]:
        """`strata-node pull`, as its unit runs it but for the patience."""
        argv = self.command("pull", "--retry-for", str(retry_for_s))
        env = {"PATH": os.environ["PATH"]}
        return subprocess.run(argv, capture_output=True, text=True, env=env, check=False)

    def checked_out(self, path: str) -> bytes:
        """A file of the pulled image, as the overlay would show it."""
        return (self.root / "ostree/node-image" / path).read_bytes()
