"""`.repo` files: where repositories are, and whose signatures they have to have."""

from __future__ import annotations

import configparser
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import DefinitionError

CREDENTIALS = ("sslclientcert", "sslclientkey", "username", "password")


@dataclass(frozen=True)
class RepoConfig:
    """A repository: its id, where it is, and its order among others (a lower priority wins).

    gpgcheck, repo_gpgcheck: whether its packages, and its index, have to be signed. gpgkeys: the
    addresses of the keys, one of which has to have done it. source: its file's name. include:
    patterns of the only packages it has for us, none for all; exclude: of those it has not.
    credentials: the options by which its file lets one in who may.
    """

    id: str
    name: str
    baseurl: str
    priority: int
    gpgcheck: bool
    source: str
    repo_gpgcheck: bool = False
    gpgkeys: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether reading it takes no network."""
        return self.baseurl.startswith("file:")


def parse_repo_file(
    text: str, *, file: str, variables: Mapping[str, str], folder: Path = Path("/")
) -> tuple[RepoConfig, ...]:
    """Read a `.repo` file. Variables (`$name`, `${name}`) in baseurl and gpgkey are replaced.

    folder: what a gpgkey without a scheme is relative to. A repository whose file does not say
    gpgcheck has to have signed packages.

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
        if not values.get("baseurl", "").strip():
            raise DefinitionError(
                f"{file}: repository {section} has no baseurl",
                hint="mirrorlist and metalink are not followed: a build names one place",
                context={"file": file, "key": section},
            )
        try:
            priority = values.getint("priority", 99)
            gpgcheck = values.getboolean("gpgcheck", True)
            repo_gpgcheck = values.getboolean("repo_gpgcheck", False)
        except ValueError as error:
            raise DefinitionError(
                f"{file}: repository {section}: {error}", context={"file": file, "key": section}
            ) from error
        baseurl = _substitute(values["baseurl"].split()[0], variables, file, section)
        keys = _substitute(values.get("gpgkey", ""), variables, file, section)
        repos.append(
            RepoConfig(
                section,
                values.get("name", section),
                baseurl.rstrip("/"),
                priority,
                gpgcheck,
                file,
                repo_gpgcheck,
                tuple(_address(key, folder) for key in re.split(r"[\s,]+", keys) if key),
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
    folder = path.absolute().parent
    return parse_repo_file(text, file=path.name, variables=known, folder=folder)


def _address(text: str, folder: Path) -> str:
    """An address as it is; a path, which is relative to a folder, as the address of a file."""
    scheme = re.match(r"[a-z][a-z0-9+.-]*:", text)
    return text if scheme else "file://" + urllib.parse.quote(str(folder / text))


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
