"""`.repo` files, and what a repository says of itself: its repomd.xml's digest and revision."""

from __future__ import annotations

import configparser
import hashlib
import re
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import DefinitionError, RepositoryError

MAX_REPOMD_BYTES = 4 << 20
TIMEOUT_S = 30.0
CREDENTIALS = ("sslclientcert", "sslclientkey", "username", "password")
_REVISION = "{http://linux.duke.edu/metadata/repo}revision"


@dataclass(frozen=True)
class RepoConfig:
    """A repository: its id, where it is, and its order among others (a lower priority wins).

    gpgcheck: whether its file asks for signatures, of packages or of the index, to be checked.
    include: patterns of the only packages it has for us, none for all; exclude: of those it has
    not. credentials: the options by which its file lets one in who may.
    """

    id: str
    name: str
    baseurl: str
    priority: int
    gpgcheck: bool
    source: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()


@dataclass(frozen=True)
class RepoState:
    """What a repository holds at this moment. revision: seconds, or None when it has no number."""

    id: str
    repomd: str
    revision: int | None


def parse_repo_file(
    text: str, *, file: str, variables: Mapping[str, str]
) -> tuple[RepoConfig, ...]:
    """Read a `.repo` file. Variables (`$name`, `${name}`) in baseurl are replaced.

    Raises DefinitionError when it is malformed, a section has no baseurl, or a variable is unknown.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    try:
        parser.read_string(text, source=file)
    except configparser.Error as error:
        raise DefinitionError(str(error).replace("\n", " "), context={"file": file}) from error
    repos = []
    for section in parser.sections():
        values = parser[section]
        if "baseurl" not in values:
            raise DefinitionError(
                f"{file}: repository {section} has no baseurl",
                hint="mirrorlist and metalink are not followed: a build names one place",
                context={"file": file, "key": section},
            )
        try:
            priority = values.getint("priority", 99)
            gpgcheck = values.getboolean("gpgcheck", True)
            gpgcheck = values.getboolean("repo_gpgcheck", False) or gpgcheck
        except ValueError as error:
            raise DefinitionError(
                f"{file}: repository {section}: {error}", context={"file": file, "key": section}
            ) from error
        baseurl = _substitute(values["baseurl"].split()[0], variables, file, section)
        repos.append(
            RepoConfig(
                section,
                values.get("name", section),
                baseurl.rstrip("/"),
                priority,
                gpgcheck,
                file,
                include=_words(values.get("includepkgs", "")),
                exclude=_words(values.get("excludepkgs", "")) + _words(values.get("exclude", "")),
                credentials=tuple(key for key in CREDENTIALS if values.get(key)),
            )
        )
    return tuple(repos)


def load_repo_file(
    path: Path, *, variables: Mapping[str, str], arch: str
) -> tuple[RepoConfig, ...]:
    """Read a `.repo` file from disk; `$basearch` and `$arch` are the architecture."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} cannot be read: {error}", context={"file": path}) from error
    known = {"basearch": arch, "arch": arch, **variables}
    return parse_repo_file(text, file=path.name, variables=known)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


def _substitute(text: str, variables: Mapping[str, str], file: str, section: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in variables:
            raise DefinitionError(
                f"{file}: repository {section} uses ${name}, which is not set",
                hint=f"known: {', '.join('$' + known for known in sorted(variables))}",
                context={"file": file, "key": section},
            )
        return variables[name]

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, text)


def fetch(url: str, max_bytes: int) -> bytes:
    """Read a file:, http: or https: address whole. Raises OSError (URLError is one), ValueError."""
    if not url.startswith(("file:", "http:", "https:")):
        raise ValueError(f"{url} is neither a file: nor an http: address")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as stream:  # noqa: S310 -- checked above
        data: bytes = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"{url} is larger than {max_bytes} bytes")
    return data


def read_state(repo: RepoConfig) -> RepoState:
    """What the repository holds now. Raises RepositoryError when it cannot be reached or read."""
    url = f"{repo.baseurl}/repodata/repomd.xml"
    try:
        data = fetch(url, MAX_REPOMD_BYTES)
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ValueError("repomd.xml declares entities")
        root = ElementTree.fromstring(data)  # noqa: S314 -- no entities, bounded
    except (OSError, ValueError, ElementTree.ParseError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(why, OSError) and why.strerror:
            why = why.strerror
        raise RepositoryError(
            f"repository {repo.id} cannot be read at {repo.baseurl}: {why}",
            hint="check the address in its .repo file; "
            "`strata sample repos STORE/sample` makes the sample's",
            context={"repository": repo.id, "url": url, "file": repo.source},
        ) from error
    text = (root.findtext(_REVISION) or "").strip()
    digest = hashlib.sha256(data).hexdigest()
    return RepoState(repo.id, digest, int(text) if text.isdigit() else None)


def read_states(repos: Sequence[RepoConfig]) -> tuple[RepoState, ...]:
    """The states of several repositories, in their order."""
    return tuple(read_state(repo) for repo in repos)
