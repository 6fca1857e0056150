"""Recorded repository metadata: an index of packages that are only names, enough to solve and lock.

createrepo_c needs packages; for the hundreds that real treefiles name, the index is written itself.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

_PIN = re.compile(r"(.+)-([0-9][^-]*)-([0-9][^-]*)")
_AT_LEAST = re.compile(r"(\S+) >?= (?:([0-9]+):)?([^\s-]+)(?:-(\S+))?")
_METADATA = "http://linux.duke.edu/metadata"


@dataclass(frozen=True)
class Recorded:
    """A package. provides: beside its name."""

    name: str
    version: str = "1.0"
    release: str = "1"
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    epoch: str = "0"


def recorded(text: str) -> Recorded:
    """The package that a treefile's entry can be satisfied by.

    The entry is a name, a pin (`name-1.2-3`), a version (`name >= 1.2`) or a virtual provide.
    """
    version = _AT_LEAST.fullmatch(text)
    if version:
        return Recorded(version[1], version[3], version[4] or "1", epoch=version[2] or "0")
    pin = _PIN.fullmatch(text)
    if pin:
        return Recorded(pin[1], pin[2], pin[3])
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-")
    return Recorded(plain, provides=() if plain == text else (text,))


def record(folder: Path, packages: Iterable[Recorded], *, arch: str, revision: int) -> None:
    """Write a repository's index into a folder."""
    rows = [_package(package, arch) for package in packages]
    primary = (
        f'<metadata xmlns="{_METADATA}/common" xmlns:rpm="{_METADATA}/rpm" packages="{len(rows)}">'
        + "".join(rows)
        + "</metadata>"
    )
    filelists = f'<filelists xmlns="{_METADATA}/filelists" packages="0"></filelists>'
    (folder / "repodata").mkdir(parents=True, exist_ok=True)
    data = ""
    for kind, text in (("primary", primary), ("filelists", filelists)):
        packed = gzip.compress(text.encode(), mtime=0)
        (folder / "repodata" / f"{kind}.xml.gz").write_bytes(packed)
        data += (
            f'<data type="{kind}"><location href="repodata/{kind}.xml.gz"/>'
            f'<checksum type="sha256">{hashlib.sha256(packed).hexdigest()}</checksum>'
            f"<size>{len(packed)}</size><timestamp>{revision}</timestamp></data>"
        )
    repomd = f'<repomd xmlns="{_METADATA}/repo"><revision>{revision}</revision>{data}</repomd>'
    (folder / "repodata" / "repomd.xml").write_text(repomd)


def _package(package: Recorded, arch: str) -> str:
    version = (
        f'epoch="{package.epoch}" ver={quoteattr(package.version)} rel={quoteattr(package.release)}'
    )
    label = f"{package.name}-{package.version}-{package.release}"
    own = f'<rpm:entry name={quoteattr(package.name)} flags="EQ" {version}/>'
    provides = own + "".join(f"<rpm:entry name={quoteattr(one)}/>" for one in package.provides)
    requires = "".join(f"<rpm:entry name={quoteattr(one)}/>" for one in package.requires)
    return (
        f'<package type="rpm"><name>{package.name}</name><arch>{arch}</arch><version {version}/>'
        f'<checksum type="sha256" pkgid="YES">{hashlib.sha256(label.encode()).hexdigest()}'
        "</checksum><summary/><description/><packager/><url/>"
        '<time file="0" build="0"/><size package="1" installed="1" archive="1"/>'
        f'<location href="Packages/{label}.{arch}.rpm"/><format>'
        f"<rpm:sourcerpm>{label}.src.rpm</rpm:sourcerpm>"
        f"<rpm:provides>{provides}</rpm:provides><rpm:requires>{requires}</rpm:requires>"
        "</format></package>"
    )
