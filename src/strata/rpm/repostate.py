"""What a repository says of itself: its repomd.xml, verified before anything in it is believed.

An index that was solved with is kept, with its signature, beside dnf's cache of the rest: an
offline run reads and verifies it there. dnf fetches its own copy; `solve` holds the two against
each other.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.core.errors import OfflineError, RepositoryError, SignatureError
from strata.core.files import atomic_write
from strata.core.network import HINT, offline
from strata.rpm.download import FetchError, fetch
from strata.rpm.keys import load_keys
from strata.rpm.repofile import RepoConfig
from strata.rpm.signatures import verify_index

MAX_REPOMD_BYTES = 4 << 20
MAX_SIGNATURE_BYTES = 1 << 20
_REVISION = "{http://linux.duke.edu/metadata/repo}revision"


@dataclass(frozen=True)
class RepoState:
    """What a repository holds at this moment. repomd: its index's sha256. revision: seconds, or
    None when it has no number. index, signature: the bytes; no signature where none is asked for.
    """

    id: str
    repomd: str
    revision: int | None
    index: bytes = b""
    signature: bytes = b""


def read_states(repos: Sequence[RepoConfig], kept: Path) -> tuple[RepoState, ...]:
    """The states of several repositories, in their order. kept: the folder of `keep_states`.

    Raises RepositoryError, SignatureError, OfflineError.
    """
    return tuple(read_state(repo, kept) for repo in repos)


def read_state(repo: RepoConfig, kept: Path) -> RepoState:
    """What the repository holds now; offline, what it held when it was last solved with.

    Raises RepositoryError when it cannot be reached or read, SignatureError, OfflineError.
    """
    near = repo.is_local or not offline()
    index, signature = (_fetch(repo), b"") if near else _kept(repo, kept)
    if repo.repo_gpgcheck:
        # After the index: a repository that is not there at all is told before its keys, which
        # may be made with it.
        keys = load_keys(repo)
        if near:
            signature = _fetch_signature(repo)
        verify_index(keys, index, signature)
    try:
        text = index.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("repomd.xml declares entities")
        root = ElementTree.fromstring(text)  # noqa: S314 -- no entities, bounded
    except (ValueError, LookupError, ElementTree.ParseError) as error:
        raise _unreadable(repo, error) from error
    revision = (root.findtext(_REVISION) or "").strip()
    seconds = int(revision) if re.fullmatch(r"[0-9]{1,11}", revision) else None
    digest = hashlib.sha256(index).hexdigest()
    return RepoState(repo.id, digest, seconds, index, signature)


def keep_states(repos: Sequence[RepoConfig], states: Sequence[RepoState], kept: Path) -> None:
    """Keep the states of repositories that an offline run cannot read, each in one file."""
    for repo, state in zip(repos, states, strict=True):
        path = _kept_path(repo, kept)
        data = state.index + b"\0" + state.signature  # no XML holds a NUL
        if not repo.is_local and (not path.exists() or path.read_bytes() != data):
            atomic_write(path, data)


def _kept_path(repo: RepoConfig, kept: Path) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", repo.id)
    return kept / "index" / f"{name}-{hashlib.sha256(repo.baseurl.encode()).hexdigest()[:16]}"


def _kept(repo: RepoConfig, kept: Path) -> tuple[bytes, bytes]:
    try:
        index, _, signature = _kept_path(repo, kept).read_bytes().partition(b"\0")
    except FileNotFoundError:
        raise OfflineError(
            f"repository {repo.id} ({repo.baseurl}) was never read into this store, and this is "
            "an offline run",
            hint=HINT,
            context={"repository": repo.id, "url": repo.baseurl, "file": repo.source},
        ) from None
    return index, signature


def _fetch(repo: RepoConfig) -> bytes:
    try:
        return fetch(f"{repo.baseurl}/repodata/repomd.xml", MAX_REPOMD_BYTES)
    except FetchError as error:
        raise _unreadable(repo, error) from error


def _fetch_signature(repo: RepoConfig) -> bytes:
    url = f"{repo.baseurl}/repodata/repomd.xml.asc"
    try:
        return fetch(url, MAX_SIGNATURE_BYTES)
    except FetchError as error:
        raise SignatureError(
            f"the index of repository {repo.id} has to be signed, but its signature cannot be "
            f"read at {url}: {error}",
            hint=f"have the index signed, or set repo_gpgcheck=0 in {repo.source} to do without",
            context={"repository": repo.id, "url": url, "file": repo.source},
        ) from error


def _unreadable(repo: RepoConfig, why: Exception) -> RepositoryError:
    return RepositoryError(
        f"repository {repo.id} cannot be read at {repo.baseurl}: {why}",
        hint=f"its address is in {repo.source}, and has to have repodata/repomd.xml, which "
        "createrepo_c makes; `strata sample repos STORE/sample` makes the sample's",
        context={"repository": repo.id, "url": repo.baseurl, "file": repo.source},
    )
