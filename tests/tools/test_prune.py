"""Pruning a repository agrees with `ostree prune`; pruning a layout keeps what tags reach."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from conftest import Strata
from strata.core.errors import ObjectError
from strata.core.process import run
from strata.oci.layout import Layout
from strata.oci.model import CONFIG, INDEX, LAYER, MANIFEST, Descriptor, Index, Manifest
from strata.oci.prune import prune as prune_layout
from strata.ostree.objects import Checksum, FileHeader
from strata.ostree.prune import prune
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

PLAIN = FileHeader(0, 0, 0o100644)


def fill(repo: Repo) -> dict[str, Checksum]:
    """Commits a ← b on the ref `kept`, c on none, d on a remote's ref; all share a file."""
    commits: dict[str, Checksum] = {}
    with writing(repo, sync=False) as writer:
        for name in "abcd":
            files = {
                "shared": writer.content(PLAIN, b"shared"),
                name: writer.content(PLAIN, name.encode()),
                "link": writer.content(FileHeader(0, 0, 0o120777, name), None),
            }
            tree = Tree(dirs={"usr": Tree(files=files)})
            parent = commits["a"] if name == "b" else ""
            commits[name] = commit_tree(writer, tree, timestamp=1, parent=parent)
        writer.set_ref("kept", commits["b"])
        writer.set_ref("far:away", commits["d"])
    return commits


def objects(repo: Path) -> set[str]:
    return {f"{p.parent.name}{p.name}" for p in (repo / "objects").glob("??/*")}


@pytest.mark.parametrize("mode", ["bare", "archive"])
def test_what_goes_is_what_ostree_removes(tmp_path: Path, mode: str) -> None:
    ours = Repo.init(tmp_path / "ours", mode)
    commits = fill(ours)
    ours.mark_partial(commits["c"])
    shutil.copytree(ours.path, tmp_path / "theirs", symlinks=True)
    before = objects(ours.path)
    told = prune(ours, dry_run=True)
    assert objects(ours.path) == before
    done = prune(ours)
    assert done == told
    run(["ostree", "prune", "--refs-only", f"--repo={tmp_path / 'theirs'}"])
    assert objects(ours.path) == objects(tmp_path / "theirs")
    assert done.removed == len(before) - len(objects(ours.path)) > 0
    assert not ours.has(commits["c"], "commit")
    assert list((ours.path / "state").iterdir()) == []
    run(["ostree", "fsck", "-q", f"--repo={ours.path}"])


def test_of_a_partial_commit_with_a_ref_what_is_there_stays(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo")
    commits = fill(repo)
    gone = repo.dirtree(repo.commit(commits["b"]).root_contents).dirs[0][1]
    os.unlink(repo.object_path(gone, "dirtree"))
    with pytest.raises(ObjectError, match=f"the dirtree object {gone} is missing"):
        prune(repo)
    assert repo.has(commits["c"], "commit")  # nothing was removed
    repo.mark_partial(commits["b"])
    prune(repo)
    assert repo.has(commits["b"], "commit")
    assert not repo.has(commits["c"], "commit")


def image(layout: Layout, text: str) -> Descriptor:
    config = layout.add(json.dumps({"text": text}).encode(), CONFIG)
    layers = (layout.add(b"shared layer", LAYER), layout.add(text.encode(), LAYER))
    return layout.add(Manifest(config, layers).to_bytes(), MANIFEST)


def test_a_layout_keeps_what_its_tags_reach(tmp_path: Path, strata: Strata) -> None:
    layout = Layout.create(tmp_path / "layout")
    for name in ("one", "two"):
        manifest = image(layout, name)
        layout.tag(name, layout.add(Index((manifest,)).to_bytes(), INDEX))
    blobs = tmp_path / "layout/blobs/sha256"
    assert prune_layout(layout, grace_s=0).removed == 0
    layout.untag("two")
    assert prune_layout(layout).removed == 0  # too young: it may be of a build that goes on
    for path in blobs.iterdir():
        os.utime(path, (1, 1))
    told = json.loads(strata("image", "prune", f"oci:{layout.path}", "--dry-run", "--json").stdout)
    assert (told["removed"], told["dry_run"]) == (4, True)
    done = strata("image", "prune", f"oci:{layout.path}").stdout
    assert done.startswith("4 blobs went (")
    run(["skopeo", "inspect", "--raw", f"oci:{layout.path}:one"])
    assert len(list(blobs.iterdir())) == 5


def test_writing_a_blob_that_is_there_makes_it_young(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    blob = layout.blob_path(layout.add(b"text", LAYER).digest)
    os.utime(blob, (1, 1))
    inode = blob.stat().st_ino
    layout.add(b"text", LAYER)
    assert (blob.stat().st_ino, blob.stat().st_mtime > 1) == (inode, True)
    assert prune_layout(layout).kept == 1


def test_what_cannot_be_pruned_says_so(tmp_path: Path, strata: Strata) -> None:
    Layout.create(tmp_path / "layout")
    Repo.init(tmp_path / "repo")
    for arguments, status, text in (
        (["prune"], 2, "needs a layout or a repository"),
        (["prune", f"oci:{tmp_path}/nope"], 11, "is not an OCI layout"),
        (["prune", f"oci:{tmp_path}/layout", "--forget", "x"], 11, "has no tag x"),
        (["prune", "--repo", f"{tmp_path}/repo", "--forget", "oci:x:y"], 2, "stores no image"),
        (["prune", "--repo", f"{tmp_path}/layout"], 13, "is not an OSTree repository"),
    ):
        done = strata("image", *arguments, check=False)
        assert done.returncode == status, done.stderr
        assert text in done.stderr
