"""The agent on a live machine of folders: what it stores, what /usr is, what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, leftovers
from importlab import Lab, make_lab
from layertar import Tar
from strata.ostree.checkout import checkout
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

BIG = bytes(range(256)) * 4 * 1024  # 1 MiB
NEW = b"from the node layer\n"


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Lab, Path]:
    """A node image on a base, and a machine that booted that base with a kernel of its own."""
    lab = make_lab(tmp_path / "lab")
    layer = Tar().add("usr/bin/new", NEW).add("usr/lib/big", BIG).add("etc/hosts", b"node\n")
    layer.add("usr/lib/modules/6.1/vmlinuz", BIG * 4).add("usr/lib/pkg/.wh.a")
    lab.derive(layer.bytes())
    root = tmp_path / "machine"
    root.mkdir()
    medium = Repo.init(root / "medium")
    source = lab.root / "source"
    (source / "usr/lib/modules/6.1").mkdir(parents=True)
    (source / "usr/lib/modules/6.1/vmlinuz").write_text("the booted kernel")
    (source / "usr/share/doc/old").write_text("of an older base")
    (source / "usr/lib/pkg/b").write_text("of an older base")
    with writing(medium, sync=False) as writer:
        commit = commit_directory(medium, writer, str(source), timestamp=0)
    checkout(medium, Tree.load(medium, commit), str(root / "out"), link=False)
    (root / "out/usr").rename(root / "usr")
    subprocess.run(["cp", "-a", root / "usr/etc", root / "etc"], check=True)
    (root / "booted").write_text(commit)
    return lab, root


def run_live(lab: Lab, root: Path, available: int) -> dict[str, Any]:
    driver = str(ROOT / "tests/fake_live.py")
    argv = ["unshare", "--mount", sys.executable, driver, str(root), str(lab.reference())]
    done = subprocess.run([*argv, str(available)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert leftovers(root) == []
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_usr_is_the_node_images_and_only_what_differs_is_in_memory(
    machine: tuple[Lab, Path],
) -> None:
    lab, root = machine
    done = run_live(lab, root, 64 << 20)
    assert "error" not in done, done
    assert done["differences"] == []
    assert (done["phase"], done["hosts"], done["tool"]) == ("pulled", "node\n", NEW.decode())
    assert done["kernel"] == "the booted kernel"
    # The kernel of the node image, 4 MiB, is nowhere; the rest are small objects, a page each.
    assert len(BIG) < done["used"] < 1.4 * len(BIG)
    assert (done["tool after"], done["etc after"], done["mounts after"]) == (False, True, [])
    assert done["files"] > 8


def test_a_full_tmpfs_is_a_clear_refusal(machine: tuple[Lab, Path]) -> None:
    lab, root = machine
    done = run_live(lab, root, 600 << 10)
    assert done["error"]["code"] == "no-space"
    assert done["phase"] == "nothing"


def test_too_little_memory_is_refused_with_numbers(machine: tuple[Lab, Path]) -> None:
    lab, root = machine
    done = run_live(lab, root, -1)
    assert done["error"]["code"] == "no-space"
    assert "MB of memory beyond the booted system" in done["error"]["message"]
    assert "more memory" in done["error"]["hint"]
