"""Removing objects that no ref reaches, as `ostree prune --refs-only` does.

Mark and sweep under the repository's exclusive lock: what every ref, local and of remotes, reaches
is kept, parents of commits included as far as they are there. Commits go first and content last, so
that an interrupted prune leaves no commit without its objects. O(objects) in time; in memory one
set of the reachable ones' names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from strata.core.errors import ObjectError
from strata.core.process import os_error
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo

_ORDER = ("commit", "commitmeta", "dirtree", "dirmeta", "file", "filez")


@dataclass(frozen=True)
class Pruned:
    """What a prune did: how many objects went and stayed, and the bytes that went."""

    removed: int
    kept: int
    freed_bytes: int


def reachable(repo: Repo, commits: Iterable[Checksum]) -> set[str]:
    """The objects that commits reach, as `CHECKSUM.KIND`. Raises ObjectError on what is missing or
    malformed in a commit that is complete; of a partial one, what is there."""
    found: set[str] = set()
    queue = list(commits)
    while queue:
        checksum = queue.pop()
        if f"{checksum}.commit" in found or not repo.has(checksum, "commit"):
            continue
        found |= {f"{checksum}.commit", f"{checksum}.commitmeta"}
        commit = repo.commit(checksum)
        if commit.parent:
            queue.append(Checksum(commit.parent))
        found.add(f"{commit.root_meta}.dirmeta")
        _mark(repo, commit.root_contents, found, partial=not repo.is_complete(checksum))
    return found


def _mark(repo: Repo, contents: Checksum, found: set[str], *, partial: bool) -> None:
    queue = [contents]
    while queue:
        checksum = queue.pop()
        if f"{checksum}.dirtree" in found:
            continue
        found.add(f"{checksum}.dirtree")
        if partial and not repo.has(checksum, "dirtree"):
            continue
        tree = repo.dirtree(checksum)
        found.update(f"{file}.file" for _, file in tree.files)
        for _, inner, meta in tree.dirs:
            found.add(f"{meta}.dirmeta")
            queue.append(inner)


def prune(repo: Repo, *, dry_run: bool = False) -> Pruned:
    """Remove what no ref reaches. Raises ObjectError when a commit with a ref is incomplete: then
    nothing is removed; also when the repository is locked."""
    try:
        with repo.locked(exclusive=not dry_run):
            refs = {**repo.refs(), **repo.remote_refs()}
            keep = reachable(repo, refs.values())
            return _sweep(repo, keep, dry_run)
    except OSError as error:
        raise os_error(error, "pruning the OSTree repository") from error


def _sweep(repo: Repo, keep: set[str], dry_run: bool) -> Pruned:
    goners: dict[str, list[tuple[str, int]]] = {kind: [] for kind in _ORDER}
    kept = 0
    objects = repo.path / "objects"
    for folder in sorted(os.listdir(objects)):
        with os.scandir(objects / folder) as entries:
            for entry in entries:
                name, _, kind = entry.name.partition(".")
                if kind not in goners:
                    continue  # another tool's, or of a later libostree
                logical = "file" if kind == "filez" else kind
                if f"{folder}{name}.{logical}" in keep:
                    kept += 1
                else:
                    goners[kind].append((entry.path, entry.stat(follow_symlinks=False).st_size))
    removed = [item for kind in _ORDER for item in goners[kind]]
    if not dry_run:
        for path, _ in removed:
            os.unlink(path)
        _forget_partial(repo)
    return Pruned(len(removed), kept, sum(size for _, size in removed))


def _forget_partial(repo: Repo) -> None:
    """A commit that is gone is not partial any more."""
    for path in (repo.path / "state").glob("*.commitpartial"):
        try:
            gone = not repo.has(path.name.partition(".")[0], "commit")
        except ObjectError:
            continue
        if gone:
            path.unlink(missing_ok=True)
