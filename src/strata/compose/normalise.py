"""An installed root becomes an OSTree-shaped tree.

- `/etc` moves to `/usr/etc`, the defaults that a machine's own `/etc` is merged with.
- `/var` is a machine's own: the folders and links a package wanted there become a tmpfiles.d file,
  and the tree's `/var` is empty.
- The kernel of `/boot` moves to `/usr/lib/modules/<version>/`; `/boot` is empty.
- `/home`, `/root`, `/opt`, `/srv`, `/mnt` and `/usr/local` are links into `/var`, unless the
  treefile wants the latter's and `/opt`'s content shipped.
- What differs from one build to the next, or belongs to a running machine, is removed.

See ostree's "Adapting existing mainstream distributions" and rpm-ostree's composepost.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from strata.compose.treelayout import (
    MACHINE_ID,
    open_tmp,
    settle_files,
    settle_machine_id,
    settle_opt,
    settle_tmp,
)
from strata.compose.users import parse_ids
from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.files import mounts_under, remove_tree
from strata.core.text import shortened
from strata.treefile.layout import Layout

# What stands at the top of every tree before packages are installed: usr-merge, and folders whose
# owner is no package.
USR_MERGE = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "lib32": "usr/lib32",
    "lib64": "usr/lib64",
    "libx32": "usr/libx32",
}
LINKS = {
    "home": "var/home",
    "root": "var/roothome",
    "opt": "var/opt",
    "srv": "var/srv",
    "mnt": "var/mnt",
    "media": "run/media",
    "ostree": "sysroot/ostree",
    "usr/local": "../var/usrlocal",
}
NODE_TMPFILES = "strata-var-node.conf"
EMPTY = {"boot": 0o755, "dev": 0o755, "proc": 0o755, "run": 0o755, "sys": 0o755, "sysroot": 0o755}
# Folders that LINKS point to on a machine.
VAR_BASE = (
    "d /var/home 0755 root root -",
    "d /var/roothome 0700 root root -",
    "d /var/opt 0755 root root -",
    "d /var/srv 0755 root root -",
    "d /var/mnt 0755 root root -",
    "d /var/usrlocal 0755 root root -",
    *(
        f"d /var/usrlocal/{name} 0755 root root -"
        for name in ("bin", "etc", "lib", "sbin", "share", "src")
    ),
    "d /run/media 0755 root root -",
)
# Left-overs of tools: locks and backups differ from build to build and mean nothing on a machine.
LEFT_OVERS = (
    ".pwd.lock",
    "passwd-",
    "shadow-",
    "group-",
    "gshadow-",
    "subuid-",
    "subgid-",
    "resolv.conf",
    "hostname",
)


@dataclass(frozen=True)
class Normalised:
    """What normalising found. dropped: files under /var that no tree can ship. devices: how many
    device nodes were left out."""

    dropped: tuple[str, ...]
    devices: int = 0


def tree_path(path: str) -> str:
    """A package's path as the tree has it: usr-merged, and /etc as /usr/etc."""
    top, _, rest = path.lstrip("/").partition("/")
    merged = USR_MERGE.get(top)
    if merged:
        return f"/{merged}/{rest}"
    return f"/usr/etc/{rest}" if top == "etc" else path


def prepare_root(root: Path) -> None:
    """Make the top of an empty root, so that packages land where they belong."""
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    for target in USR_MERGE.values():
        (root / target).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, target in USR_MERGE.items():
        (root / name).symlink_to(target)
    for name in ("etc", "var", *EMPTY):
        (root / name).mkdir(mode=0o755, exist_ok=True)
    open_tmp(root)


def normalise(root: Path, *, tmpfiles_name: str, layout: Layout | None = None) -> Normalised:
    """Turn an installed root into an OSTree-shaped tree, in place.

    tmpfiles_name: the tmpfiles.d file that this layer's /var entries go to. layout: what the
    treefile says of it. Raises TreeError when /etc, /usr or /var is no folder, or a device is where
    the layout takes none.
    """
    layout = layout or Layout()
    for name in ("etc", "usr", "var"):
        rooted.real_folder(root, name)
    move_kernel(root)
    for name in LEFT_OVERS:
        rooted.remove(root, f"etc/{name}")
    settle_machine_id(root, layout)
    for name in ("var/cache/ldconfig", "usr/lib/sysimage/rpm/.rpm.lock"):
        rooted.remove(root, name)
    dropped = move_var_to_tmpfiles(root, tmpfiles_name)
    for name, mode in EMPTY.items():
        _empty(root / name, mode)
    settle_tmp(root, layout)
    settled = settle_opt(root, layout)
    for name, target in LINKS.items():
        if name not in settled:
            remove_tree(root / name)
            (root / name).symlink_to(target)
    remove_tree(root / "usr/etc")
    (root / "etc").rename(root / "usr/etc")
    return Normalised(dropped, settle_files(root, layout))


def clean_node(root: Path, reporter: Reporter) -> None:
    """Take away what tools left in a node layer's root, and give /var's content to tmpfiles.d.

    What is mounted below /run or /tmp stays. Raises TreeError when /var is no folder.
    """
    for name in LEFT_OVERS:
        # Container engines mount some of them, which leaves nothing in the image.
        if not mounts_under(rooted.resolve(root, f"etc/{name}", follow_last=False)):
            rooted.remove(root, f"etc/{name}")
    _forget_machine_id(root)
    dropped = move_var_to_tmpfiles(root, NODE_TMPFILES)
    warn_of_dropped(dropped, reporter)
    for name in ("run", "tmp"):
        for child in rooted.children(root, name):
            if not mounts_under(child):
                remove_tree(child)


def _forget_machine_id(root: Path) -> None:
    """An empty one is the base's own, by its treefile; a filled one came with this layer."""
    place = rooted.resolve(root, MACHINE_ID, follow_last=False)
    filled = place.is_symlink() or (place.is_file() and place.stat().st_size > 0)
    if filled and not mounts_under(place):
        rooted.remove(root, MACHINE_ID)


def warn_of_dropped(dropped: Sequence[str], reporter: Reporter) -> None:
    """Say which files under /var a layer does not ship."""
    if dropped:
        reporter.warn(f"not shipped, because /var is a machine's own: {shortened(dropped)}")


def reopen(root: Path) -> None:
    """Undo enough of `normalise` that packages can be installed again: the next layer's start.

    `/usr/etc` becomes `/etc`, and the folders in /var that links point to are there.
    Raises TreeError when /usr/etc is no folder.
    """
    rooted.real_folder(root, "usr/etc").rename(root / "etc")
    open_tmp(root)
    for target in LINKS.values():
        inside = target.lstrip("./")
        if inside.startswith("var/"):
            rooted.resolve(root, inside).mkdir(parents=True, exist_ok=True)


def kernels(root: Path) -> list[str]:
    """The versions of all kernels of a tree, sorted."""
    return [
        folder.name
        for folder in rooted.children(root, "usr/lib/modules")
        if rooted.resolve(root, f"usr/lib/modules/{folder.name}/vmlinuz").is_file()
    ]


def find_kernel(root: Path) -> str:
    """The version of the one kernel of a tree. Raises DefinitionError on none or several."""
    found = kernels(root)
    if len(found) != 1:
        what = "no kernel" if not found else f"{len(found)} kernels ({', '.join(found)})"
        raise DefinitionError(
            f"the tree has {what} in /usr/lib/modules; it must have exactly one",
            hint="name one kernel package in the treefile",
        )
    return found[0]


def move_kernel(root: Path) -> None:
    """The kernel that packages put into /boot goes where an OSTree tree has it, with its files."""
    boot = rooted.resolve(root, "boot")
    for image in rooted.children(root, "boot"):
        if not image.name.startswith("vmlinuz-"):
            continue
        version = image.name[len("vmlinuz-") :]
        modules = rooted.resolve(root, f"usr/lib/modules/{version}")
        modules.mkdir(parents=True, exist_ok=True)
        image.rename(modules / "vmlinuz")
        for name in ("System.map", "config"):
            extra = boot / f"{name}-{version}"
            if os.path.lexists(extra):
                extra.rename(modules / name)


def move_var_to_tmpfiles(root: Path, tmpfiles_name: str) -> tuple[str, ...]:
    """Write the folders and links under /var as tmpfiles.d lines and empty it.

    Returns the regular files that were dropped: /var is the machine's, a tree ships none of it.
    Raises TreeError when /var is no folder.
    Sources: tmpfiles.d(5); rpm-ostree's convert_var_to_tmpfiles_d.
    """
    var = rooted.real_folder(root, "var")
    names = _user_names(root)
    known = _paths_of_lower_layers(root, tmpfiles_name)
    lines = [line for line in VAR_BASE if line.split()[1] not in known]
    known |= {line.split()[1] for line in VAR_BASE}
    dropped = []
    for folder, subdirs, files in os.walk(var):
        subdirs.sort()
        for name in [*subdirs, *sorted(files)]:
            path = Path(folder) / name
            where = "/var/" + str(path.relative_to(var))
            status = path.lstat()
            if _escape(where) in known or where in ("/var/tmp", "/var/run", "/var/lock"):
                continue
            if stat.S_ISDIR(status.st_mode):
                owner = names.get(("u", status.st_uid), str(status.st_uid))
                group = names.get(("g", status.st_gid), str(status.st_gid))
                mode = stat.S_IMODE(status.st_mode)
                lines.append(f"d {_escape(where)} {mode:04o} {owner} {group} -")
            elif stat.S_ISLNK(status.st_mode):
                lines.append(f"L {_escape(where)} - - - - {_escape(os.readlink(path))}")
            else:
                dropped.append(where)
    for child in list(var.iterdir()):
        remove_tree(child)
    if lines:
        rooted.write_text(root, f"usr/lib/tmpfiles.d/{tmpfiles_name}", "\n".join(lines) + "\n")
    return tuple(dropped)


def _paths_of_lower_layers(root: Path, tmpfiles_name: str) -> set[str]:
    known = set()
    for path in rooted.children(root, "usr/lib/tmpfiles.d"):
        if fnmatchcase(path.name, "strata-var-*.conf") and path.name != tmpfiles_name:
            text = rooted.read_text(root, f"usr/lib/tmpfiles.d/{path.name}")
            rows = (line.split() for line in text.splitlines())
            known |= {row[1] for row in rows if len(row) > 1}
    return known


def _user_names(root: Path) -> dict[tuple[str, int], str]:
    names: dict[tuple[str, int], str] = {("u", 0): "root", ("g", 0): "root"}
    for kind, file in (("u", "passwd"), ("g", "group")):
        try:
            text = rooted.read_text(root, f"etc/{file}")
        except FileNotFoundError:
            continue  # numbers do as well
        for name, (number,) in parse_ids(text, 1).items():
            names.setdefault((kind, number), name)
    return names


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(" ", "\\x20").replace("%", "%%")


def _empty(path: Path, mode: int) -> None:
    if path.is_symlink():
        path.unlink()
    remove_tree(path)
    path.mkdir()
    path.chmod(mode)
