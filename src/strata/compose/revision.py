"""Which revision of the definitions a layer was built from: two labels (requirement R3.10).

The revision is the last commit of the git checkout that changed what the layer is made of (its
treefiles, overlays, files), not the one that is checked out: a commit to something else changes no
image. A checkout with changes of theirs says so, and claims no clean revision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from strata.core.process import run
from strata.core.record import Input
from strata.treefile.project import Project

REVISION = "org.opencontainers.image.revision"
SOURCE = "org.opencontainers.image.source"
DIRTY = "-dirty"
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def revision_labels(project: Project, folder: Path, paths: Sequence[Path]) -> dict[str, str]:
    """The labels of a layer; none where strata.toml does not ask for them, or its treefile is in no
    git checkout.

    folder: the treefile's. paths: what the layer is made of, files and folders; those of another
    checkout are not of this revision and do not count.
    """
    root = _checkout(folder.resolve()) if project.revision_labels else None
    if root is None:
        return {}
    inside = sorted({str(path.resolve()) for path in paths if root in path.resolve().parents})
    revision = _git(folder, "log", "-1", "--format=%H", "--", *inside)
    if not _COMMIT.fullmatch(revision):
        return {}  # nothing of it was ever committed
    dirty = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *inside)
    labels = {REVISION: revision + (DIRTY if dirty else "")}
    source = without_password(_git(folder, "config", "--get", "remote.origin.url"))
    return {**labels, SOURCE: source} if source else labels


def without_revision(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of a layer below, as one above inherits them."""
    return {key: value for key, value in labels.items() if key not in (REVISION, SOURCE)}


def revision_inputs(labels: Mapping[str, str]) -> tuple[Input, ...]:
    """The labels as inputs of the build: the image's bytes have them."""
    return tuple(Input("source", key, value) for key, value in sorted(labels.items()))


def without_password(url: str) -> str:
    """A remote's address as anyone may read it; empty for a folder of this machine."""
    if re.match(r"[^/:]+@[^/:]+:", url):
        return url  # git@host:path has no password
    parts = urlsplit(url)
    if not parts.hostname:
        return ""
    host = parts.hostname + (f":{parts.port}" if parts.port else "")
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _checkout(folder: Path) -> Path | None:
    return next((one for one in (folder, *folder.parents) if (one / ".git").exists()), None)


def _git(folder: Path, *arguments: str) -> str:
    """What git says, empty when it does not know. Whose checkout it is does not matter here."""
    argv = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    argv += ["-C", str(folder)]
    return run([*argv, *arguments], check=False).stdout.strip()
