"""Locks that definitions keep: made for machines that are not here, obeyed, and told when late."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rpmrepo import make_repository
from strata.cli.main import main
from strata.compose.context import BuildContext
from strata.compose.locks import lock_for
from strata.compose.lockupdate import definition_of, stream_variables_of
from strata.compose.workspace import Workspace
from strata.core.errors import DefinitionError
from strata.core.events import silent
from strata.rpm.lock import LockFile
from strata.rpm.nevra import NEVRA
from strata.treefile.project import load_project
from strata.treefile.target import Target

pytestmark = pytest.mark.tools

TOML = """\
schema = 1
repos = ["t.repo"]
[stream.s-1]
version = "1.0"
arches = ["x86_64", "aarch64"]
bootc = { treefile = "bootc.yaml" }
coreos = { treefile = "coreos.yaml" }
lock = "locks/s-1.lock"
[release."1".node.s-1]
primary = true
treefile = "node.yaml"
lock = "locks/node.lock"
"""
OS = {"kernel 1.0": "", "app 1.0": "Requires: lib", "lib 1.0": "", "unrelated 1.0": ""}


def line_of(path: Path, *texts: str) -> int:
    """The line on which the last of some texts stands, each behind the one before."""
    number, rest = 0, path.read_text().splitlines()
    for text in texts:
        at = next(at for at, line in enumerate(rest, 1) if text in line)
        number, rest = number + at, rest[at:]
    return number


class Lab:
    """Definitions of three layers over repositories for two architectures."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.definitions = folder, folder / "definitions"
        self.definitions.mkdir(parents=True)
        for arch in ("x86_64", "aarch64"):
            make_repository(folder / "os" / arch, OS)
            node = {"agent 1.0": "Requires: app\nRequires: helper", "helper 1.0": ""}
            make_repository(folder / "node" / arch, node)
        repo = "[{0}]\nname={0}\nbaseurl=file://{1}/{0}/$basearch\ngpgcheck=0\n"
        self.write("t.repo", "".join(repo.format(name, folder) for name in ("os", "node")))
        self.write("strata.toml", TOML)
        self.write("bootc.yaml", "repos: [os]\npackages: [kernel]\n")
        self.write("coreos.yaml", "repos: [os]\npackages: [app]\n")
        # The node layer does not name the repository that its base comes from.
        self.write("node.yaml", "repos: [node]\npackages: [agent]\n")

    def write(self, name: str, text: str) -> None:
        (self.definitions / name).write_text(text)

    def run(self, *arguments: str) -> int:
        where = ("-C", str(self.definitions), "--store", str(self.folder / "store"))
        return main([*where, *arguments])

    def locks(self, file: str) -> dict[tuple[str, str], list[str]]:
        locks = LockFile.load(self.definitions / "locks" / file).locks
        return {key: [str(one.nevra) for one in lock.packages] for key, lock in locks.items()}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab")


def test_a_stream_and_its_node_are_locked_for_all_architectures_without_a_build(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.run("lock", "update") == 0
    for arch in ("x86_64", "aarch64"):
        locks = {**lab.locks("s-1.lock"), **lab.locks("node.lock")}
        assert locks["bootc/s-1", arch] == ["kernel-1.0-1.noarch"]
        assert locks["coreos/s-1", arch] == ["app-1.0-1.noarch", "lib-1.0-1.noarch"]
        # R3.4: what is in the base is not locked again, though `agent` needs it
        assert locks["node/1@s-1", arch] == ["agent-1.0-1.noarch", "helper-1.0-1.noarch"]
    out = capsys.readouterr().out
    assert "coreos/s-1 aarch64: 2 packages locked\n" in out
    assert "written: locks/s-1.lock\n" in out
    before = (lab.definitions / "locks/s-1.lock").read_bytes()
    assert lab.run("lock", "update") == 0
    assert (lab.definitions / "locks/s-1.lock").read_bytes() == before
    assert "0 changed, 0 added, 0 removed" in capsys.readouterr().out
    text = before.decode()
    assert text.count('"nevra"') == len([line for line in text.splitlines() if '"nevra"' in line])


def test_one_package_moves_and_the_others_stay(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run("lock", "update")
    newer = {"app 2.0": "Requires: lib", "lib 2.0": ""}
    make_repository(lab.folder / "os/x86_64", newer, 1_700_000_100)
    make_repository(lab.folder / "os/aarch64", {"app 2.0": "Requires: lib"}, 1_700_000_100)
    capsys.readouterr()
    assert lab.run("lock", "update", "coreos/s-1", "app", "--dry-run") == 0
    assert "  app  1.0-1 → 2.0-1\n" in capsys.readouterr().out
    assert lab.locks("s-1.lock")["coreos/s-1", "x86_64"][0] == "app-1.0-1.noarch"
    assert lab.run("lock", "update", "coreos/s-1", "app") == 0
    assert lab.locks("s-1.lock")["coreos/s-1", "x86_64"] == [
        "app-2.0-1.noarch",
        "lib-1.0-1.noarch",
    ]
    assert lab.run("lock", "update", "nope") == 2
    assert "no package called nope is locked" in capsys.readouterr().err
    # everything moves: what aarch64 does not have yet makes it late
    assert lab.run("lock", "update", "coreos/s-1") == 0
    capsys.readouterr()
    assert lab.run("lock", "check", "coreos/s-1") == 1
    late = "fault  coreos/s-1: lib is at 2.0-1, but aarch64 is late with 1.0-1\n"
    assert late in capsys.readouterr().out


def test_a_check_tells_what_is_asked_gone_changed_and_newer(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run("lock", "update")
    assert lab.run("lock", "check") == 0
    assert "3 targets checked: 0 faults, 0 newer builds" in capsys.readouterr().out
    one = lab.folder / "os/x86_64"
    for path in one.glob("noarch/lib-*.rpm"):
        path.unlink()
    make_repository(one, {"lib 3.0": "", "app 1.0": "Requires: lib >= 1"})  # app: other bytes
    lab.write("bootc.yaml", "repos: [os]\npackages: [kernel, unrelated]\n")
    capsys.readouterr()
    assert lab.run("lock", "check", "--arch", "x86_64", "--json") == 1
    found = {(item["target"], item["kind"]): item for item in json.loads(capsys.readouterr().out)}
    assert found["bootc/s-1", "asked"]["text"] == "package unrelated is new"
    assert "no longer has lib-1.0-1" in found["coreos/s-1", "gone"]["text"]
    assert "has app-1.0-1.noarch with other bytes" in found["coreos/s-1", "changed"]["text"]
    assert found["coreos/s-1", "newer"]["text"] == "lib 1.0-1 could be 3.0-1"
    assert not found["coreos/s-1", "newer"]["fault"]


def test_a_check_tells_what_no_longer_goes_with_the_layer_below(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run("lock", "update")
    make_repository(lab.folder / "os/x86_64", {"helper 2.0": ""}, 1_700_000_100)
    lab.write("coreos.yaml", "repos: [os]\npackages: [app, helper]\n")
    assert lab.run("lock", "update", "coreos/s-1", "--arch", "x86_64") == 0
    capsys.readouterr()
    assert lab.run("lock", "check", "node/1", "--arch", "x86_64") == 1
    below = "helper-1.0-1.noarch is locked, the layer below has helper-2.0-1.noarch"
    assert f"fault  node/1@s-1 x86_64: {below}\n" in capsys.readouterr().out


def test_no_lock_leads_out_of_the_cache(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.run("lock", "update")
    path = lab.definitions / "locks/s-1.lock"
    path.write_text(path.read_text().replace('"kernel-1.0', '"../../x/kernel-1.0'))
    capsys.readouterr()
    assert lab.run("build", "bootc/s-1", "--dry-run") == 3
    assert "is not a lock: " in capsys.readouterr().err


def test_a_build_obeys_the_lock_and_refuses_one_that_no_longer_matches(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.run("build", "bootc/s-1", "--dry-run") == 3
    assert "hint: make it: strata lock update bootc/s-1 --arch" in capsys.readouterr().err
    lab.run("lock", "update")
    make_repository(lab.folder / "os/x86_64", {"kernel 2.0": ""}, 1_700_000_100)
    capsys.readouterr()
    assert lab.run("build", "bootc/s-1", "--dry-run", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    lab.write("bootc.yaml", "repos: [os]\npackages: [kernel, unrelated]\n")
    assert lab.run("build", "bootc/s-1", "--dry-run") == 3
    line = line_of(lab.definitions / "locks/s-1.lock", "bootc/s-1", "x86_64", '"asked"')
    message = "no longer matches what bootc/s-1 asks for on x86_64: package unrelated is new"
    err = capsys.readouterr().err
    assert f"strata: locks/s-1.lock:{line}: the lock {message}" in err
    assert "hint: strata lock update bootc/s-1" in err
    assert first[0]["status"] == "would build"
    assert lab.locks("s-1.lock")["bootc/s-1", "x86_64"] == ["kernel-1.0-1.noarch"]


def test_a_lock_that_does_not_go_with_the_layer_below_is_told_with_its_line(lab: Lab) -> None:
    lab.run("lock", "update")
    project, target = load_project(lab.definitions), Target("bootc", "s-1")
    context = BuildContext(project, Workspace.create(lab.folder / "store"), "x86_64", 1)
    definition = definition_of(context, target, stream_variables_of(project, target), silent())
    below = [NEVRA.parse("kernel-0.9-1.noarch")]
    with pytest.raises(DefinitionError) as caught:
        lock_for(context, target, definition, None, silent(), there=below)
    place = line_of(lab.definitions / "locks/s-1.lock", "bootc/s-1", "x86_64", '"nevra": "kernel-')
    assert caught.value.message == (
        f"locks/s-1.lock:{place}: the lock does not go with what bootc/s-1 stands on: "
        "kernel-1.0-1.noarch is locked, the layer below has kernel-0.9-1.noarch"
    )
    same = [NEVRA.parse("kernel-1.0-1.noarch")]
    assert lock_for(context, target, definition, None, silent(), there=same).packages == ()


def test_r1_23_a_manifest_lock_with_overrides_decides(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_repository(
        lab.folder / "os/x86_64", {"lib 2.0": "", "lib 3.0": "", "app 9.0": ""}, 1_700_000_100
    )
    theirs = tmp_path / "fcos"
    theirs.mkdir()
    pins = {"app": {"evra": "1.0-1.noarch"}, "lib": {"evra": "1.0-1.noarch"}}
    (theirs / "manifest-lock.x86_64.json").write_text(json.dumps({"packages": pins}))
    (theirs / "manifest-lock.overrides.yaml").write_text("packages: {lib: {evr: 2.0-1}}\n")
    stronger = "packages: {lib: {evra: 3.0-1.noarch}}\n"
    (theirs / "manifest-lock.overrides.x86_64.yaml").write_text(stronger)
    lab.run("lock", "update", "bootc/s-1")
    take = ("lock", "import", "coreos/s-1", "--format", "fcos", "--arch", "x86_64")
    # builds that do not say their architecture are of the lock's: there is no lib.x86_64
    (theirs / "manifest-lock.overrides.x86_64.yaml").unlink()
    assert lab.run(*take, str(theirs)) == 9
    (theirs / "manifest-lock.overrides.x86_64.yaml").write_text(stronger)
    assert lab.run(*take, str(theirs)) == 0
    wanted = ["app-1.0-1.noarch", "lib-3.0-1.noarch"]
    assert lab.locks("s-1.lock")["coreos/s-1", "x86_64"] == wanted
    capsys.readouterr()
    assert lab.run("lock", "export", "coreos/s-1", "--arch", "x86_64") == 0
    assert json.loads(capsys.readouterr().out)["packages"]["lib"] == {"evra": "3.0-1.noarch"}
    # R2.13: strictly what the lock has
    del pins["lib"]
    (theirs / "manifest-lock.x86_64.json").write_text(json.dumps({"packages": pins}))
    only = str(theirs / "manifest-lock.x86_64.json")
    assert lab.run(*take, only) == 9
    assert "needs packages that the imported lock does not have: lib-" in capsys.readouterr().err


def test_konflux_locks_go_there_and_back(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run("lock", "update")
    capsys.readouterr()
    assert lab.run("lock", "export", "coreos/s-1", "--format", "konflux") == 0
    text = capsys.readouterr().out
    assert "- arch: aarch64\n  packages:\n  - url: file:/" in text
    path = tmp_path / "rpms.lock.yaml"
    path.write_text(text)
    before = (lab.definitions / "locks/s-1.lock").read_bytes()
    make_repository(lab.folder / "os/x86_64", {"lib 2.0": ""}, 1_700_000_100)
    take = ("lock", "import", "coreos/s-1", "--format", "konflux", str(path))
    assert lab.run(*take) == 0
    after = LockFile.load(lab.definitions / "locks/s-1.lock").locks
    kept = LockFile.parse(before).locks
    assert {key: lock.packages for key, lock in after.items()} == {
        key: lock.packages for key, lock in kept.items()
    }
    digest = kept["coreos/s-1", "x86_64"].packages[0].sha256
    path.write_text(text.replace(digest, "0" * 64))
    assert lab.run(*take) == 10
    assert "other bytes than the imported lock" in capsys.readouterr().err
    path.write_text(text.replace("lockfileVersion: 1", "lockfileVersion: 7"))
    assert lab.run(*take) == 3
    assert "lockfileVersion is not 1" in capsys.readouterr().err


def test_r1_8_only_locked_packages_come_from_a_lockfile_repository(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.write("coreos.yaml", "repos: [os]\nlockfile-repos: [node]\npackages: [app, helper]\n")
    lab.run("lock", "update", "bootc/s-1")
    assert lab.run("lock", "update", "coreos/s-1", "--arch", "x86_64") == 9
    assert "no package is or provides helper" in capsys.readouterr().err
    pins = {name: {"evra": "1.0-1.noarch"} for name in ("app", "lib", "helper")}
    path = tmp_path / "manifest-lock.x86_64.json"
    path.write_text(json.dumps({"packages": pins}))
    take = ("lock", "import", "coreos/s-1", "--format", "fcos", "--arch", "x86_64")
    assert lab.run(*take, str(path)) == 0
    assert "helper-1.0-1.noarch" in lab.locks("s-1.lock")["coreos/s-1", "x86_64"]


def test_a_package_comes_from_the_repository_it_has_to(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    make_repository(lab.folder / "node/x86_64", {"lib 9.0": ""}, 1_700_000_100)
    wanted = "repo-packages: [{repo: os, packages: [lib]}]\n"
    lab.write("coreos.yaml", f"repos: [os, node]\npackages: [app]\n{wanted}")
    lab.run("lock", "update", "bootc/s-1")
    assert lab.run("lock", "update", "coreos/s-1", "--arch", "x86_64") == 0
    found = LockFile.load(lab.definitions / "locks/s-1.lock").locks["coreos/s-1", "x86_64"]
    assert [(one.nevra.version, one.repo) for one in found.packages if one.nevra.name == "lib"] == [
        ("1.0", "os")
    ]
    lab.write("coreos.yaml", "repos: [os, node]\npackages: [app]\n")
    capsys.readouterr()
    assert lab.run("lock", "check", "coreos/s-1", "--arch", "x86_64") == 1
    assert "package lib from os is gone" in capsys.readouterr().out


def test_no_lock_file_is_said(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write("strata.toml", TOML.replace('lock = "locks/node.lock"\n', ""))
    assert lab.run("lock", "update", "node/1") == 2
    assert "strata.toml names no lock file for node/1@s-1" in capsys.readouterr().err
    lab.write("strata.toml", TOML.replace("locks/node.lock", "../node.lock"))
    assert lab.run("lock", "update") == 3
    assert "leads out of the definitions" in capsys.readouterr().err
    assert not list(lab.folder.glob("*.lock"))


def test_r1_23_local_overrides_are_above_every_lock(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run("lock", "update")
    make_repository(lab.folder / "mine", {"kernel 1.0.1": "", "foreign 1.0": ""})
    folder = lab.definitions / "overrides/rpm"
    folder.mkdir(parents=True)
    for path in (lab.folder / "mine").glob("noarch/*.rpm"):
        path.rename(folder / path.name)
    (lab.definitions / "overrides/rootfs/usr").mkdir(parents=True)
    (lab.definitions / "overrides/rootfs/usr/mine").write_text("mine\n")
    capsys.readouterr()
    assert lab.run("build", "bootc/s-1", "--dry-run", "--json") == 0
    told = capsys.readouterr()
    # only what the layer has: nothing is added
    assert "overrides/rpm replaces kernel-1.0.1-1.noarch\n" in told.err
    assert lab.locks("s-1.lock")["bootc/s-1", "x86_64"] == ["kernel-1.0-1.noarch"]
    (folder / "kernel-1.0.1-1.noarch.rpm").write_text("no package")
    assert lab.run("build", "bootc/s-1", "--dry-run") == 2
    assert "is no package" in capsys.readouterr().err
