"""The Debian archive as apt sees it, in a private state: the host's packages play no part.

apt solves the closure from nothing installed, checks the archive's signatures and downloads. The
mirror is the one the host's own apt is set up with.
"""

from __future__ import annotations

import calendar
import email.utils
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import PackageError, RepositoryError, StrataError
from strata.core.events import Reporter
from strata.core.files import atomic_write, locked
from strata.core.network import offline, require_network
from strata.core.process import run

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
INDEX_LIFETIME_S = 24 * 3600

# A compose is a set of pockets: (label of the archive, suffix of the suite).
COMPOSES = {
    "release": (("Debian", ""),),
    "updates": (("Debian", ""), ("Debian", "-updates"), ("Debian-Security", "-security")),
}


@dataclass(frozen=True, order=True)
class Deb:
    """A package file of the archive."""

    name: str
    file_name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Closure:
    """Packages with all they depend on. date: when the archive was released, in seconds."""

    debs: tuple[Deb, ...]
    date: int


class Archive:
    """One compose of the Debian archive, its indexes cached in `cache/apt/COMPOSE`."""

    def __init__(self, compose: str, cache: Path) -> None:
        self.compose = compose
        self.folder = cache / "apt" / compose
        self.debs = cache / "debs"
        self._config = self.folder / "apt.conf"

    def refresh(self, reporter: Reporter) -> None:
        """Fetch the indexes unless they are younger than a day; offline, take them as they are.

        Raises RepositoryError when the archive cannot be reached, OfflineError.
        """
        for folder in (self.folder / "lists/partial", self.debs / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        stamp = self.folder / "refreshed"
        if stamp.exists() and (offline() or time.time() - stamp.stat().st_mtime < INDEX_LIFETIME_S):
            return
        require_network(f"the indexes of the Debian archive ({self.compose})")
        with reporter.step("read the archive's indexes"):
            self._configure(_mirrors())
            self._apt("update", "--error-on=any")
            atomic_write(stamp, b"")

    def _configure(self, mirrors: dict[str, str]) -> None:
        lines = []
        for label, suffix in COMPOSES[self.compose]:
            if label not in mirrors:
                raise RepositoryError(
                    f"this host's apt has no source labelled {label}",
                    hint=f"add {SUITE}{suffix} to /etc/apt/sources.list and run apt-get update",
                )
            lines.append(f"deb [signed-by={KEYRING}] {mirrors[label]} {SUITE}{suffix} main")
        atomic_write(self.folder / "sources.list", ("\n".join(lines) + "\n").encode())
        atomic_write(self.folder / "status", b"")
        settings = {
            "Dir": self.folder,
            "Dir::State": self.folder,
            "Dir::State::status": self.folder / "status",
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder / "cache",
            "Dir::Cache::archives": self.debs,
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "APT::Sandbox::User": "root",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        text = "".join(f'{key} "{value}";\n' for key, value in settings.items())
        atomic_write(self._config, text.encode())
        (self.folder / "cache").mkdir(exist_ok=True)

    def _apt(self, *arguments: str) -> str:
        done = run(
            ["apt-get", "-q", "-y", *arguments],
            env={"APT_CONFIG": str(self._config), "DEBIAN_FRONTEND": "noninteractive"},
            error=_apt_error,
        )
        return done.stdout

    def closure(self, packages: Sequence[str]) -> Closure:
        """The packages with all they depend on, solved by apt from nothing installed.

        Raises PackageError naming a package that the archive does not have.
        """
        # apt names only what it would have to download: an empty archive folder makes that all.
        nothing = f"Dir::Cache::archives={self.folder / 'nothing'}"
        (self.folder / "nothing/partial").mkdir(parents=True, exist_ok=True)
        text = self._apt("-o", nothing, "install", "--print-uris", *packages)
        debs = []
        for line in text.splitlines():
            if line.startswith("'"):
                _, file_name, size, digest = shlex.split(line)
                name = file_name.partition("_")[0]
                debs.append(Deb(name, file_name, digest.removeprefix("SHA256:"), int(size)))
        return Closure(tuple(sorted(debs)), self._date())

    def _date(self) -> int:
        """The newest `Date:` of the pockets' Release files."""
        dates = []
        for path in (self.folder / "lists").glob("*InRelease"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("Date: "):
                    parsed = email.utils.parsedate(line[6:])
                    if parsed:
                        dates.append(calendar.timegm(parsed))
        if not dates:
            raise RepositoryError("the archive's Release file has no date")
        return max(dates)

    def download(self, packages: Sequence[str], debs: Sequence[Deb], reporter: Reporter) -> None:
        """Have every package file in the cache, its sha256 checked by apt. Raises OfflineError."""
        missing = [deb for deb in debs if not (self.debs / deb.file_name).exists()]
        if not missing:
            return
        require_network(f"{len(missing)} Debian packages ({missing[0].file_name}, …)")
        with reporter.step("download Debian packages") as step, locked(self.debs / "lock", "debs"):
            self._apt("install", "--download-only", *packages)
            amount = sum(deb.size_bytes for deb in missing) / 1e6
            step.detail(f"{len(missing)} packages, {amount:.0f} MB")


def _mirrors() -> dict[str, str]:
    """From an archive's label to its address, as the host's apt is set up."""
    layout = "$(LABEL) $(REPO_URI)"
    text = run(["apt-get", "indextargets", "--format", layout, "Created-By: Packages"]).stdout
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def _apt_error(output: str) -> StrataError | None:
    lines = [line[3:] for line in output.splitlines() if line.startswith("E: ")]
    for line in lines:
        if line.startswith("Unable to locate package "):
            name = line.rpartition(" ")[2]
            return PackageError(
                f"the Debian archive has no package {name}",
                hint="correct the name in strata's sample package lists",
            )
    if any("Failed to fetch" in line or "Could not resolve" in line for line in lines):
        return RepositoryError(
            "the Debian archive cannot be reached",
            hint="check the network and this host's apt sources",
            context={"output": "\n".join(lines)},
        )
    return None
