"""`rpms.lock.yaml`, the lock that Konflux prefetches packages by for builds without a network.

Of each architecture it has every package's address, checksum and repository. Source: the models of
hermeto (prefetch) and the writer of rpm-lockfile-prototype. As plain values here: YAML is read and
parsed by whoever calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strata.core.errors import DefinitionError
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./+~^%@$-]*(:[A-Za-z0-9_./+~^%@$-]+)*")
_WORDS = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null")


@dataclass(frozen=True)
class Prefetched:
    """A package of the file. sha256: empty when the file has no checksum for it."""

    nevra: NEVRA
    url: str
    sha256: str


def konflux_text(locks: Iterable[Lock], addresses: Mapping[str, Mapping[str, str]]) -> str:
    """Locks, one for each architecture, as rpms.lock.yaml.

    addresses: of repositories, by architecture and id.

    Raises DefinitionError when a repository has no address.
    """
    lines = ["---", "lockfileVersion: 1", "lockfileVendor: redhat", "arches:"]
    for lock in sorted(locks, key=lambda lock: lock.arch):
        lines += [f"- arch: {lock.arch}", "  packages:" if lock.packages else "  packages: []"]
        for package in lock.packages:
            lines += _entry(package, addresses[lock.arch])
        lines += ["  source: []", "  module_metadata: []"]
    return "\n".join(lines) + "\n"


def _entry(package: LockedPackage, addresses: Mapping[str, str]) -> list[str]:
    if package.repo not in addresses:
        raise DefinitionError(
            f"{package.nevra} is locked from repository {package.repo}, which is not defined"
        )
    values: dict[str, object] = {
        "url": f"{addresses[package.repo]}/{package.location}",
        "repoid": package.repo,
        "size": package.size_bytes,
        "checksum": f"sha256:{package.sha256}",
        "name": package.nevra.name,
        "evr": str(package.nevra.evr),
    }
    if package.sourcerpm:
        values["sourcerpm"] = package.sourcerpm
    texts = [f"{key}: {_scalar(value)}" for key, value in values.items()]
    return [f"  - {texts[0]}", *(f"    {text}" for text in texts[1:])]


def _scalar(value: object) -> str:
    """A YAML scalar: plain where nothing can take it for another type, quoted elsewhere."""
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and not _WORDS.fullmatch(value)):
        return json.dumps(value)
    return str(value)


def konflux_packages(document: object, file: str) -> dict[str, tuple[Prefetched, ...]]:
    """The packages of an rpms.lock.yaml, by architecture. Raises DefinitionError."""
    if not isinstance(document, dict) or str(document.get("lockfileVersion")) != "1":
        raise _error(file, "lockfileVersion is not 1")
    arches = document.get("arches")
    if not isinstance(arches, list) or not arches:
        raise _error(file, "it has no `arches`")
    found: dict[str, tuple[Prefetched, ...]] = {}
    for entry in arches:
        if not isinstance(entry, dict) or not isinstance(entry.get("arch"), str):
            raise _error(file, "an entry of `arches` has no `arch`")
        packages = entry.get("packages", [])
        if not isinstance(packages, list):
            raise _error(file, f"{entry['arch']}: `packages` is no list")
        found[entry["arch"]] = tuple(_prefetched(package, file) for package in packages)
    return found


def _prefetched(entry: Any, file: str) -> Prefetched:
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        raise _error(file, "a package has no `url`")
    # The architecture stands only in the file's name; name and evr, where given, say the rest.
    base = entry["url"].rpartition("/")[2]
    name, evr = entry.get("name"), entry.get("evr")
    stem, _, suffix = base.rpartition(".")
    try:
        if suffix != "rpm":
            raise ValueError(f"{base!r} is no package file")
        of_name = f"{name}-{evr}.{stem.rpartition('.')[2]}" if name and evr else stem
        nevra = NEVRA.parse(of_name)
    except ValueError as error:
        raise _error(file, f"{base}: {error}") from error
    kind, _, digest = str(entry.get("checksum") or "").partition(":")
    if digest and (kind != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", digest)):
        raise _error(file, f"{base}: its checksum is no sha256")
    return Prefetched(nevra, entry["url"], digest)


def _error(file: str, problem: str) -> DefinitionError:
    return DefinitionError(f"{file} is no rpms.lock.yaml: {problem}", context={"file": file})
