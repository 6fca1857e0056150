"""Manifest locks: which builds a system has, in the form of rpm-ostree and fedora-coreos-config.

`manifest-lock.ARCH.json` has a map from package name to `evra` (or `evr`, for any architecture),
with free metadata; `manifest-lock.overrides.yaml` and its kin for one architecture take the place
of some of its entries (requirement R1.23). Source: rpm-ostree's rust/src/lockfile.rs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from strata.core.clock import parse_rfc3339, rfc3339
from strata.core.errors import DefinitionError
from strata.core.files import pretty_json
from strata.rpm.evr import Evr
from strata.rpm.lock import Lock
from strata.rpm.nevra import NEVRA

MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Pin:
    """A build of a package. arch: empty for any. source: of its source package, or empty."""

    name: str
    evr: Evr
    arch: str
    source: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ManifestLock:
    """The pins of a file, by name. generated: seconds, 0 when it does not say."""

    pins: Mapping[str, Pin]
    generated: int = 0

    def under(self, overrides: Iterable[ManifestLock]) -> ManifestLock:
        """With the pins of overrides in the place of its own, the later ones first in rank."""
        pins, generated = dict(self.pins), self.generated
        for each in overrides:
            pins.update(each.pins)
            generated = max(generated, each.generated)
        return ManifestLock(dict(sorted(pins.items())), generated)

    def nevras(self, arch: str) -> tuple[NEVRA, ...]:
        """The builds, sorted; arch: of those that do not say."""
        found = [
            NEVRA(pin.name, pin.evr.epoch, pin.evr.version, pin.evr.release, pin.arch or arch)
            for pin in self.pins.values()
        ]
        return tuple(sorted(found))


def parse_manifest_lock(data: bytes, file: str) -> ManifestLock:
    """Read a manifest lock's JSON. Raises DefinitionError."""
    if len(data) > MAX_BYTES:
        raise DefinitionError(f"{file} is larger than {MAX_BYTES} bytes", context={"file": file})
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{file} is not JSON: {error}", context={"file": file}) from error
    return manifest_lock_of(document, file)


def manifest_lock_of(document: object, file: str) -> ManifestLock:
    """A manifest lock of plain values, as its JSON or YAML gives them. Raises DefinitionError."""
    if not isinstance(document, dict) or not isinstance(document.get("packages"), dict):
        raise _error(file, "it has no `packages`")
    pins = {name: _pin(str(name), entry, file) for name, entry in document["packages"].items()}
    metadata = document.get("metadata")
    generated = metadata.get("generated") if isinstance(metadata, dict) else None
    try:
        seconds = parse_rfc3339(generated) if isinstance(generated, str) else 0
    except ValueError as error:
        raise _error(file, f"`generated` is no time: {error}") from error
    return ManifestLock(dict(sorted(pins.items())), seconds)


def _pin(name: str, entry: object, file: str) -> Pin:
    if not isinstance(entry, dict) or ("evr" in entry) == ("evra" in entry):
        raise _error(file, f"{name} has neither `evr` nor `evra`, or both")
    text = entry.get("evra", entry.get("evr"))
    arch = ""
    if not isinstance(text, str):
        raise _error(file, f"{name}: its build is not text")
    if "evra" in entry:
        text, _, arch = text.rpartition(".")
    try:
        evr = Evr.parse(text)
    except ValueError as error:
        raise _error(file, f"{name}: {error}") from error
    metadata = entry.get("metadata", {})
    if not isinstance(metadata, dict):
        raise _error(file, f"{name}: its metadata is no mapping")
    return Pin(name, evr, arch, str(metadata.get("sourcerpm", "")), metadata)


def manifest_lock_bytes(lock: Lock) -> bytes:
    """A lock of ours as a manifest lock: what rpm-ostree's `--ex-lockfile` reads.

    Raises DefinitionError when it has two builds of one name, which the form cannot say.
    """
    packages: dict[str, object] = {}
    for package in lock.packages:
        nevra = package.nevra
        if nevra.name in packages:
            raise DefinitionError(
                f"the lock has several builds of {nevra.name}; a manifest lock has one"
            )
        packages[nevra.name] = {"evra": f"{nevra.evr}.{nevra.arch}"}
    metadata = {"generated": rfc3339(lock.generated)}
    return pretty_json({"packages": packages, "metadata": metadata})


def _error(file: str, problem: str) -> DefinitionError:
    return DefinitionError(f"{file} is no manifest lock: {problem}", context={"file": file})
