"""An import that leaves a folder's files out: for a machine that keeps its own there."""

from __future__ import annotations

import pytest

from importlab import Lab
from layertar import Tar
from strata.container.importer import import_image
from strata.container.importplan import ImportResult
from strata.core.events import silent
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

pytestmark = pytest.mark.tools

WITHOUT = "usr/lib/pkg"


def pull(lab: Lab, repo: Repo, without: str) -> ImportResult:
    with open_source(lab.reference(), architecture="x86_64") as source:
        return import_image(
            source, repo, reference=lab.reference(), without=without, reporter=silent()
        )


def stored(repo: Repo, commit: str) -> dict[str, bool]:
    return {path: repo.has(of, "file") for path, of in Tree.load(repo, commit).walk_files()}


def test_the_commits_are_the_same_and_the_folder_is_not_stored(lab: Lab) -> None:
    lab.derive(Tar().add("usr/lib/pkg/new", b"module").add("usr/bin/new", b"tool").bytes())
    whole, part = lab.repo("whole"), lab.repo("part")
    wanted = pull(lab, whole, "")
    done = pull(lab, part, WITHOUT)
    assert (done.merge_commit, done.base_commit) == (wanted.merge_commit, wanted.base_commit)
    assert all(stored(whole, wanted.merge_commit).values())
    missing = {path for path, there in stored(part, done.merge_commit).items() if not there}
    assert missing == {f"/usr/lib/pkg/{name}" for name in ("a", "b", "inner/c", "new")}
    assert not part.is_complete(done.base_commit)
    # What was left out is fetched when somebody wants all of it.
    again = pull(lab, part, "")
    assert again.merge_commit == wanted.merge_commit
    assert all(stored(part, again.merge_commit).values())
    assert part.is_complete(again.base_commit)


def test_a_second_import_fetches_nothing(lab: Lab) -> None:
    lab.derive(Tar().add("usr/lib/pkg/new", b"module").add("usr/bin/new", b"tool").bytes())
    part = lab.repo("part")
    pull(lab, part, WITHOUT)
    again = pull(lab, part, WITHOUT)
    assert [layer.kind for layer in again.layers if layer.fetched_bytes] == []
