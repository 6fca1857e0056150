"""A lock: exactly which packages a layer installs, from where, with which bytes, and why.

A lock file holds the locks of several targets and architectures. It is JSON with a line for each
package, sorted and stable: the same packages give the same text, and a change of one is one line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.core.errors import DefinitionError
from strata.core.files import canonical_json
from strata.rpm.nevra import NEVRA

LOCK_VERSION = 2
MAX_LOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class LockedPackage:
    """One package of a lock.

    location: relative to its repository. source: the treefile line that asked for it, or empty;
    required_by: the package that needs it, or empty. sourcerpm: the source package's file, or
    empty.
    """

    nevra: NEVRA
    repo: str
    location: str
    sha256: str
    size_bytes: int
    source: str = ""
    required_by: str = ""
    sourcerpm: str = ""


@dataclass(frozen=True)
class Asked:
    """What a lock was solved for. packages and exclude are sorted; repos are in their order."""

    packages: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    recommends: bool = False

    def changes(self, now: Asked) -> tuple[str, ...]:
        """How what is asked now differs, as words; empty when it does not."""
        words = [
            *_moved("package", self.packages, now.packages),
            *_moved("repository", self.repos, now.repos),
            *_moved("excluded package", self.exclude, now.exclude),
        ]
        if self.recommends != now.recommends:
            words.append(f"recommends is {str(now.recommends).lower()} now")
        if not words and self != now:
            words.append("the order of the repositories changed")
        return tuple(words)


def _moved(what: str, before: Sequence[str], now: Sequence[str]) -> list[str]:
    added = [f"{what} {name} is new" for name in now if name not in before]
    return added + [f"{what} {name} is gone" for name in before if name not in now]


@dataclass(frozen=True)
class Lock:
    """The packages to install. generated: when the newest repository was made, in seconds.

    repositories: from a repository's id to its index's digest.
    """

    arch: str
    generated: int
    repositories: Mapping[str, str]
    packages: tuple[LockedPackage, ...]
    asked: Asked = Asked()

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


@dataclass(frozen=True)
class LockFile:
    """Locks by target and architecture."""

    locks: Mapping[tuple[str, str], Lock]

    def with_lock(self, target: str, lock: Lock) -> LockFile:
        """With a target's lock for its architecture in the place of the one before."""
        return LockFile({**self.locks, (target, lock.arch): lock})

    def arches(self, target: str) -> tuple[str, ...]:
        """The architectures a target is locked for, sorted."""
        return tuple(sorted(arch for name, arch in self.locks if name == target))

    def to_bytes(self) -> bytes:
        """The file: JSON, a line for each package."""
        targets = [
            f"    {json.dumps(target)}: {{\n"
            + ",\n".join(
                f"      {json.dumps(arch)}: {_lock_text(self.locks[target, arch])}"
                for arch in self.arches(target)
            )
            + "\n    }"
            for target in sorted({target for target, _ in self.locks})
        ]
        head = f'{{\n  "version": {LOCK_VERSION},\n  "targets": {{\n'
        return (head + ",\n".join(targets) + "\n  }\n}\n").encode()

    @staticmethod
    def load(path: Path) -> LockFile:
        """Read a lock file. Raises DefinitionError."""
        try:
            with open(path, "rb") as stream:
                data = stream.read(MAX_LOCK_BYTES + 1)
        except OSError as error:
            raise DefinitionError(f"{path} cannot be read: {error.strerror}") from error
        return LockFile.parse(data, str(path))

    @staticmethod
    def parse(data: bytes, source: str = "lock") -> LockFile:
        """Read a lock file strictly. Raises DefinitionError naming the place."""
        try:
            if len(data) > MAX_LOCK_BYTES:
                raise ValueError(f"it is larger than {MAX_LOCK_BYTES} bytes")
            document = json.loads(data)
            if document["version"] != LOCK_VERSION:
                raise ValueError(f"version is not {LOCK_VERSION}")
            locks = {
                (str(target), str(arch)): _parse_lock(arch, values)
                for target, arches in document["targets"].items()
                for arch, values in arches.items()
            }
            return LockFile(dict(sorted(locks.items())))
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise DefinitionError(
                f"{source} is not a lock: {why}",
                hint="make it anew: strata lock update, or strata build for the store's own",
                context={"file": source},
            ) from error


def find_line(text: str, target: str, arch: str, nevra: NEVRA | None = None) -> int:
    """The line of a lock file's text on which a lock's package stands, or what it was asked for;
    the nearest one that can be found."""
    last = f'"nevra": {json.dumps(str(nevra))}' if nevra else '"asked":'
    found, left = 1, [json.dumps(target), json.dumps(arch), last]
    for number, line in enumerate(text.splitlines(), 1):
        if left and left[0] in line:
            found = number
            left.pop(0)
    return found


def _lock_text(lock: Lock) -> str:
    asked = {
        "packages": lock.asked.packages,
        "repos": lock.asked.repos,
        "exclude": lock.asked.exclude,
        "recommends": lock.asked.recommends,
    }
    fields = [
        f'"generated": {lock.generated}',
        f'"repositories": {json.dumps(dict(lock.repositories), sort_keys=True)}',
        f'"asked": {json.dumps(asked)}',
    ]
    rows = [json.dumps(_package_json(package)) for package in lock.packages]
    packages = ",\n".join(f"          {row}" for row in rows)
    fields.append(f'"packages": [\n{packages}\n        ]' if rows else '"packages": []')
    return "{\n" + ",\n".join(f"        {item}" for item in fields) + "\n      }"


def _parse_lock(arch: str, values: Any) -> Lock:
    asked = values["asked"]
    return Lock(
        arch,
        int(values["generated"]),
        {str(key): str(value) for key, value in values["repositories"].items()},
        tuple(sorted(map(_parse_package, values["packages"]), key=lambda item: item.nevra)),
        Asked(
            _texts(asked["packages"]),
            _texts(asked["repos"]),
            _texts(asked["exclude"]),
            bool(asked["recommends"]),
        ),
    )


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{values!r} is no list of texts")
    return tuple(map(str, values))


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
    if package.sourcerpm:
        document["sourcerpm"] = package.sourcerpm
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
        str(item.get("sourcerpm", "")),
    )
