"""A Debian package becomes an RPM: real files, versions and dependencies, no maintainer scripts.

The payload is usr-merged; regular files under /etc are %config(noreplace); documentation is marked
so that an install may leave it out. The same package gives the same bytes: build host and times
are fixed (the newest file of the package is its time).
"""

from __future__ import annotations

import grp
import gzip
import os
import pwd
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import PackageError, StrataError
from strata.core.files import remove_tree
from strata.core.process import run
from strata.sample.control import (
    Control,
    conflicts,
    parse_changelog,
    parse_control,
    provisions,
    requirements,
    rpm_version,
)

CHANGELOG_ENTRIES = 10
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Folders no package owns: they are the file system's.
_UNOWNED = frozenset(
    "/ /boot /dev /etc /home /media /mnt /opt /proc /root /run /srv /sys /tmp /usr /usr/bin "
    "/usr/lib /usr/lib64 /usr/local /usr/sbin /usr/share /var".split()
)

_MACROS = {
    "_binary_payload": "w1.zstdio",
    "_buildhost": "sample",
    "_build_id_links": "none",
    "_source_date_epoch_from_changelog": "0",
    "source_date_epoch_from_changelog": "0",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "build_mtime_policy": "clamp_to_source_date_epoch",
    "debug_package": "%{nil}",
    "__os_install_post": "%{nil}",
    "__check_files": "%{nil}",
    "_changelog_trimtime": "0",
    "_changelog_trimage": "0",
}


@dataclass(frozen=True)
class Payload:
    """What a package's files say: the %files lines and the newest time among them."""

    lines: tuple[str, ...]
    newest: int


def convert(deb: Path, into: Path, scratch: Path) -> Path:
    """Make an RPM of a Debian package in the folder `into`; returns its path.

    scratch: a folder of one's own for the unpacked files. Raises PackageError that names the
    package and says why.
    """
    try:
        return _convert(deb, into, scratch)
    except StrataError as error:
        output = str(error.context.get("output", "")).strip()
        said = [line for line in output.splitlines() if "error:" in line] or [error.message]
        why = said[0].partition("error:")[2].strip() or said[0]
        raise PackageError(
            f"{deb.name} could not be made into an RPM: {why}",
            hint=error.hint,
            context={"package": deb.name, "output": output},
        ) from error


def _convert(deb: Path, into: Path, scratch: Path) -> Path:
    tree, top = scratch / "tree", scratch / "rpmbuild"
    run(["dpkg-deb", "--raw-extract", str(deb), str(tree)])
    control = parse_control((tree / "DEBIAN/control").read_text(encoding="utf-8"))
    remove_tree(tree / "DEBIAN")
    _merge_usr(tree)
    payload = describe_payload(tree)
    spec = scratch / "package.spec"
    spec.write_text(spec_text(control, payload, _changelog(tree, control)), encoding="utf-8")
    arch = {"amd64": "x86_64", "all": "noarch"}.get(control["Architecture"])
    if arch is None:
        raise PackageError(f"architecture {control['Architecture']} is not supported")
    argv = ["rpmbuild", "-bb", "--quiet", "--noclean", "--target", arch, "--buildroot", str(tree)]
    for key, value in {**_MACROS, "_topdir": str(top), "_rpmdir": str(top)}.items():
        argv += ["--define", f"{key} {value}"]
    run([*argv, str(spec)], env={"SOURCE_DATE_EPOCH": str(payload.newest), "HOME": str(scratch)})
    built = list(top.rglob("*.rpm"))
    if len(built) != 1:
        raise PackageError(f"rpmbuild made {len(built)} packages of one")
    target = into / built[0].name
    shutil.move(built[0], target)
    return target


def _merge_usr(tree: Path) -> None:
    for name in _MERGED:
        source, target = tree / name, tree / "usr" / name
        if not source.is_dir() or source.is_symlink():
            continue
        _move_into(source, target)


def _move_into(source: Path, target: Path) -> None:
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    for child in source.iterdir():
        into = target / child.name
        if child.is_dir() and not child.is_symlink():
            _move_into(child, into)
        elif not os.path.lexists(into):
            child.rename(into)
        # else: the package ships both /lib/x and a compatibility link /usr/lib/x; one is enough
    remove_tree(source)


def describe_payload(tree: Path) -> Payload:
    """The %files lines of an unpacked tree, with owners and modes as the package has them.

    Raises PackageError on an owner without a name on this host.
    """
    lines, newest = [], 0
    for path, where in _walk(tree):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):  # a folder's time is when we unpacked into it
            newest = max(newest, int(status.st_mtime))
        if where in _UNOWNED:
            continue
        owner, group = _user(status.st_uid, where), _group(status.st_gid, where)
        mode = f"{stat.S_IMODE(status.st_mode):04o}" if not stat.S_ISLNK(status.st_mode) else "-"
        kind = ""
        if stat.S_ISDIR(status.st_mode):
            kind = "%dir "
        elif stat.S_ISREG(status.st_mode) and where.startswith("/etc/"):
            kind = "%config(noreplace) "
        elif where.startswith(("/usr/share/doc/", "/usr/share/man/", "/usr/share/info/")):
            kind = "%doc "
        lines.append(f'%attr({mode},{owner},{group}) {kind}"{_escape(where)}"')
    return Payload(tuple(lines), newest)


def _walk(tree: Path) -> Iterator[tuple[Path, str]]:
    for folder, subdirs, files in os.walk(tree):
        subdirs.sort()
        base = Path(folder)
        if base != tree:
            yield base, "/" + str(base.relative_to(tree))
        links = [name for name in subdirs if (base / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = base / name
            yield path, "/" + str(path.relative_to(tree))


def _escape(path: str) -> str:
    # rpm reads a backslash that stands before no pattern character as itself.
    return re.sub(r"([*?{}\"])", r"\\\1", path.replace("%", "%%"))


def _user(uid: int, where: str) -> str:
    try:
        return "root" if uid == 0 else pwd.getpwuid(uid).pw_name
    except KeyError:
        raise PackageError(f"{where} belongs to user {uid}, whom this host does not know") from None


def _group(gid: int, where: str) -> str:
    try:
        return "root" if gid == 0 else grp.getgrgid(gid).gr_name
    except KeyError:
        raise PackageError(
            f"{where} belongs to group {gid}, which this host does not know"
        ) from None


def _changelog(tree: Path, control: Control) -> str:
    folder = tree / "usr/share/doc" / control["Package"]
    for name in ("changelog.Debian.gz", "changelog.gz"):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    return ""


def spec_text(control: Control, payload: Payload, changelog: str) -> str:
    """The spec file. The main package carries the source's name, so that SOURCERPM is right."""
    name, version = control["Package"], rpm_version(control["Version"])
    source = control.get("Source", name)
    source_name, _, source_version = source.partition(" ")
    made_from = version  # a rebuild (`+b1`) has a version of its own, even under its source's name
    if source_version and source_name != name:
        made_from = rpm_version(source_version.strip("() "))
    summary = control.get("Description").splitlines()[0] if control.get("Description") else name
    about = [f"Summary: {_text(summary)}", f"License: see /usr/share/doc/{name}/copyright"]
    about += [f"URL: {control['Homepage']}"] if control.get("Homepage") else []
    lines = [f"Name: {source_name}", f"Version: {made_from.version}"]
    lines += [f"Release: {made_from.release}", *about, "AutoReqProv: no"]
    lines += [f"Epoch: {made_from.epoch}"] if made_from.epoch else []
    if source_name != name:
        lines += ["%description", _text(summary), "", f"%package -n {name}"]
        lines += [f"Version: {version.version}", f"Release: {version.release}", *about]
        lines += [f"Epoch: {version.epoch}"] if version.epoch or made_from.epoch else []
        lines += ["AutoReqProv: no"]
    wanted = requirements(
        ", ".join(filter(None, (control.get("Pre-Depends"), control.get("Depends"))))
    )
    lines += [f"Requires: {item}" for item in wanted]
    lines += [f"Provides: {item}" for item in provisions(control.get("Provides"))]
    lines += [f"Conflicts: {item}" for item in conflicts(control)]
    lines += [f"%description -n {name}" if source_name != name else "%description", _text(summary)]
    lines += ["", f"%files -n {name}" if source_name != name else "%files", *payload.lines, ""]
    lines += ["%changelog"]
    for entry in parse_changelog(changelog, CHANGELOG_ENTRIES):
        day = time.strftime("%a %b %d %Y", time.gmtime(entry.when))
        lines += [
            f"* {day} {_text(entry.author)} - {_text(entry.version)}",
            "- see changelog.Debian",
        ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ").strip()
