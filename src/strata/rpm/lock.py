"""A lock: exactly which packages a layer installs, from where, with which bytes, and why.

JSON, sorted by package, stable: the same packages give the same text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.core.errors import DefinitionError
from strata.core.files import canonical_json, pretty_json
from strata.rpm.nevra import NEVRA

LOCK_VERSION = 1


@dataclass(frozen=True)
class LockedPackage:
    """One package of a lock.

    location: relative to its repository. source: the treefile line that asked for it, or empty;
    required_by: the package that needs it, or empty.
    """

    nevra: NEVRA
    repo: str
    location: str
    sha256: str
    size_bytes: int
    source: str = ""
    required_by: str = ""


@dataclass(frozen=True)
class Lock:
    """The packages to install. generated: when the newest repository was made, in seconds."""

    arch: str
    generated: int
    repositories: Mapping[str, str]
    packages: tuple[LockedPackage, ...]

    def explain(self, nevra: NEVRA) -> str:
        """What brought a package in, as words: from the package up to the treefile line."""
        by_name = {str(package.nevra): package for package in self.packages}
        words: list[str] = []
        seen: set[str] = set()
        current = by_name.get(str(nevra))
        while current and str(current.nevra) not in seen:
            seen.add(str(current.nevra))
            if current.source:
                subject = "it is" if not words else f"{current.nevra.name} is"
                words.append(f"{subject} named at {current.source}")
                break
            words.append(f"{current.nevra.name} is required by {current.required_by}")
            current = by_name.get(current.required_by)
        return ", ".join(words) or "it was there before"

    def identity(self) -> str:
        """`sha256:…` of what decides an install: packages, their bytes, the time. Not the lines
        of a treefile that asked for them: those move."""
        rows = [[str(package.nevra), package.sha256] for package in self.packages]
        content = canonical_json([self.arch, self.generated, rows])
        return "sha256:" + hashlib.sha256(content).hexdigest()

    def to_bytes(self) -> bytes:
        """The lock as indented JSON."""
        return pretty_json(
            {
                "version": LOCK_VERSION,
                "arch": self.arch,
                "generated": self.generated,
                "repositories": dict(self.repositories),
                "packages": [_package_json(package) for package in self.packages],
            }
        )

    @staticmethod
    def load(path: Path) -> Lock:
        """Read a lock file. Raises DefinitionError."""
        try:
            return Lock.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise DefinitionError(f"{path} cannot be read: {error.strerror}") from error

    @staticmethod
    def parse(data: bytes, source: str = "lock") -> Lock:
        """Read a lock strictly. Raises DefinitionError naming the place."""
        try:
            document = json.loads(data)
            if document["version"] != LOCK_VERSION:
                raise ValueError(f"version is not {LOCK_VERSION}")
            packages = tuple(_parse_package(item) for item in document["packages"])
            return Lock(
                str(document["arch"]),
                int(document["generated"]),
                {str(key): str(value) for key, value in document["repositories"].items()},
                packages,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise DefinitionError(
                f"{source} is not a lock: {why}",
                hint="delete it and build again",
                context={"file": source},
            ) from error


def _package_json(package: LockedPackage) -> dict[str, object]:
    document: dict[str, object] = {
        "nevra": str(package.nevra),
        "repo": package.repo,
        "location": package.location,
        "sha256": package.sha256,
        "size": package.size_bytes,
    }
    if package.source:
        document["source"] = package.source
    if package.required_by:
        document["required-by"] = package.required_by
    return document


def _parse_package(item: Any) -> LockedPackage:
    location, sha256 = str(item["location"]), str(item["sha256"])
    if location.startswith("/") or ".." in location.split("/"):
        raise ValueError(f"location {location!r} leaves its repository")
    if len(sha256) != 64 or not all(character in "0123456789abcdef" for character in sha256):
        raise ValueError(f"{sha256!r} is not a sha256")
    return LockedPackage(
        NEVRA.parse(str(item["nevra"])),
        str(item["repo"]),
        location,
        sha256,
        int(item["size"]),
        str(item.get("source", "")),
        str(item.get("required-by", "")),
    )
