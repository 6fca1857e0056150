"""What a node layer has beside its definitions: swapped components, overrides, hotfixes."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

from conftest import Strata
from importlab import CAPABILITY
from rpmrepo import make_repository
from strata.compose.amend import apply_swaps, make_swap
from strata.core.clock import today
from strata.core.errors import TreeError
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Manifest
from strata.rpm.lock import LockFile

pytestmark = pytest.mark.tools
NODE = "node/4.19@sample-12"


class Lab:
    """The sample's definitions and a store with its images, both to change."""

    def __init__(self, definitions: Path, store: Path, strata: Strata, folder: Path) -> None:
        self.definitions, self.store, self.strata, self.folder = definitions, store, strata, folder

    def build(self, *arguments: str, status: int = 0) -> str:
        """What a build prints (its errors, where it is meant to fail)."""
        where = ("-C", str(self.definitions), "--store", str(self.store), "build")
        done = self.strata(*where, *arguments, check=False)
        assert done.returncode == status, done.stderr[-3000:]
        return done.stderr

    def outputs(self, target: str) -> dict[str, object]:
        record = json.loads((self.store / f"records/{target}.json").read_text())
        found: dict[str, object] = record["outputs"]
        return found

    def config(self, target: str) -> ImageConfig:
        layout = Layout.open(self.store)
        digest = Digest.parse(str(self.outputs(target)["manifest"]))
        manifest = Manifest.parse(layout.read(layout.resolve(digest=digest)))
        return ImageConfig.parse(layout.read(manifest.config))

    def file(self, target: str, path: str) -> list[str]:
        """A file's line as `strata image ls` shows it; empty when it is not there."""
        done = self.strata("image", "ls", f"oci:{self.store}:{target}", path, check=False)
        return done.stdout.split() if done.returncode == 0 else []

    def toml(self, text: str) -> None:
        with open(self.definitions / "strata.toml", "a", encoding="utf-8") as stream:
            stream.write(text)

    def repository(self, packages: dict[str, str]) -> None:
        repo = make_repository(self.folder / "extra", packages)
        (self.definitions / "extra.repo").write_text(
            f"[extra]\nname=extra\nbaseurl={repo.baseurl}\ngpgcheck=0\n"
        )
        path = self.definitions / "strata.toml"
        path.write_text(
            path.read_text().replace('["sample.repo"]', '["sample.repo", "extra.repo"]')
        )
        path = self.definitions / "node/manifest.yaml"
        path.write_text(path.read_text().replace("repos:\n", "repos:\n  - extra\n"))


@pytest.fixture
def lab(definitions: Path, own_store: Path, strata: Strata, tmp_path: Path) -> Lab:
    return Lab(definitions, own_store, strata, tmp_path)


def test_a_file_is_swapped_and_the_image_says_so(lab: Lab) -> None:
    mine = lab.folder / "kubectl"
    mine.write_text("#!/bin/sh\necho mine\n")
    before = lab.outputs(NODE)
    lab.build("node/4.19", "--with", f"{mine}:/usr/bin/kubectl", "--with", f"{mine}:/usr/bin/new")
    after = lab.outputs(NODE)
    row = lab.file(NODE, "/usr/bin/kubectl")
    assert row[0] == "-rwxr-xr-x"
    assert "20" in row  # bytes
    titles = {layer["title"]: layer["digest"] for layer in after["node_layers"]}  # type: ignore[attr-defined]
    known = {layer["title"]: layer["digest"] for layer in before["node_layers"]}  # type: ignore[attr-defined]
    assert {title for title in titles if title not in known} == {
        "swapped /usr/bin/kubectl",
        "swapped /usr/bin/new",
    }
    # what is swapped is a layer of its own: of the others only the one that had the file moved
    assert {title for title in known if known[title] != titles[title]} == {"kubernetes-client"}
    label = json.loads(lab.config(NODE).labels["strata.with"])
    assert [(item["path"], item["file"], item["of"]) for item in label] == [
        ("/usr/bin/kubectl", "kubectl", "--with"),
        ("/usr/bin/new", "kubectl", "--with"),
    ]
    assert after["with"] == label
    replaced = after["replaced"]
    assert isinstance(replaced, dict)
    assert len(replaced["/usr/bin/kubectl"]) == 64
    assert replaced["/usr/bin/new"] == ""
    # without it the official image comes back
    assert "with /usr/bin/kubectl is gone" in lab.build("node/4.19")
    assert lab.outputs(NODE)["manifest"] == before["manifest"]


def test_a_package_of_the_base_or_the_node_is_swapped_by_hand(lab: Lab) -> None:
    make_repository(lab.folder / "mine", {"jq 99.0": ""})
    rpm = next((lab.folder / "mine").glob("noarch/jq-*.rpm"))
    lab.build("node/4.19", "--with", str(rpm))
    lock = LockFile.load(lab.store / f"locks/{NODE}.lock").locks[NODE, "x86_64"]
    assert "jq-99.0-1.noarch" in {str(one.nevra) for one in lock.packages}
    assert lab.file(NODE, "/usr/share/jq/file")
    assert not lab.file(NODE, "/usr/bin/jq")  # the package that is there has none
    assert json.loads(lab.config(NODE).labels["strata.with"])[0]["package"] == "jq-99.0-1.noarch"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("kubectl", "is neither FILE:/PATH nor a package file"),
        ("nope:/usr/bin/x", "nope is no file"),
        ("FILE:/var/lib/x", "nothing can be put at /var/lib/x"),
        ("FILE:/usr/../etc/x", "nothing can be put at /usr/../etc/x"),
        ("FILE:/usr/etc/x", "nothing can be put at /usr/etc/x"),
        ("FILE.rpm", "is no package"),
    ],
)
def test_what_cannot_be_swapped_is_said(lab: Lab, argument: str, said: str) -> None:
    (lab.folder / "FILE").write_text("x")
    (lab.folder / "FILE.rpm").write_text("x")
    text = argument.replace("FILE", str(lab.folder / "FILE"))
    done = lab.build("node/4.19", "--with", text, status=2)
    assert said in done
    assert "hint" in done or "is no" in done


def test_a_folder_in_the_way_leaves_the_image_as_it_was(lab: Lab) -> None:
    mine = lab.folder / "x"
    mine.write_text("x")
    before = lab.outputs(NODE)
    said = lab.build("node/4.19", "--with", f"{mine}:/usr/bin", status=15)
    assert "/usr/bin is a folder of the tree" in said
    assert lab.outputs(NODE) == before
    assert "name node/ targets only" in lab.build(
        "coreos/sample-12", "--with", f"{mine}:/usr/bin/x", status=2
    )


@pytest.mark.parametrize("path", ["/usr/local/bin/x", "/etc/hostname"])
def test_what_no_layer_ships_is_not_swapped(lab: Lab, path: str) -> None:
    mine = lab.folder / "x"
    mine.write_text("x")
    before = lab.outputs(NODE)
    said = lab.build("node/4.19", "--with", f"{mine}:{path}", status=15)
    assert "which no layer ships" in said
    assert lab.outputs(NODE) == before


def test_r3_12_an_override_is_named_has_a_debt_and_becomes_redundant(lab: Lab) -> None:
    lab.repository({"jq 99.0": "", "less 900.0": "Requires: nope"})
    # R3.4: a newer candidate alone changes nothing
    lab.build("node/4.19")
    assert lab.file(NODE, "/usr/bin/jq")
    entry = '[[override]]\ntarget = "node/4.19"\npackages = ["{}"]\nreason = "BUG-1"\n'
    lab.toml(entry.format("jq-99.0-1"))
    said = lab.build("node/4.19")
    assert "jq-99.0-1 is ahead of the base's 1.6" in said
    assert not lab.file(NODE, "/usr/bin/jq")
    debts = lab.outputs(NODE)["overrides"]
    assert isinstance(debts, list)
    (debt,) = debts
    assert (debt["package"], debt["reason"], debt["state"]) == ("jq-99.0-1", "BUG-1", "ahead")
    assert debt["base"].startswith("1.6-")
    listed = lab.strata("-C", str(lab.definitions), "--store", str(lab.store), "ls").stdout
    assert f"{NODE}: jq-99.0-1 is ahead of the base's 1.6-" in listed
    path = lab.definitions / "strata.toml"
    path.write_text(path.read_text().replace("jq-99.0-1", "jq-1.0-1"))
    said = lab.build("node/4.19")
    assert "jq-1.0-1 is redundant now: the base has 1.6" in said
    assert lab.file(NODE, "/usr/bin/jq")
    path.write_text(path.read_text().replace("jq-1.0-1", "less-900.0-1"))
    assert "nothing provides nope" in lab.build("node/4.19", status=9)
    path.write_text(path.read_text().replace("less-900.0-1", "less"))
    assert "'less' is not name-version-release" in lab.build("node/4.19", status=3)


def test_r3_13_a_hotfix_has_a_name_of_its_own_and_says_where_it_stands(lab: Lab) -> None:
    lab.repository({"jq 99.0": ""})
    fixed = lab.definitions / "hotfix-kubectl"
    fixed.write_text("#!/bin/sh\necho fixed\n")
    fixed.chmod(0o755)
    later = today() + datetime.timedelta(days=30)
    lab.toml(
        '[[hotfix]]\nname = "case-0042"\ntarget = "node/4.19"\n'
        'files = { "/usr/bin/kubectl" = "hotfix-kubectl" }\npackages = ["jq-99.0-1"]\n'
        f'expires = {later}\nreason = "customer case 42"\n'
    )
    official = lab.outputs(NODE)["manifest"]
    said = lab.build("hotfix/case-0042", "--json")
    assert "/usr/bin/kubectl is still needed: it replaces the same file as before" in said
    assert "jq-99.0-1 is still needed: 1.6" in said
    assert lab.outputs(NODE)["manifest"] == official
    outputs = lab.outputs("hotfix/case-0042")
    assert outputs["hotfix"]["expires"] == str(later)  # type: ignore[index]
    labels = lab.config("hotfix/case-0042").labels
    assert labels["strata.hotfix"] == "case-0042"
    assert labels["strata.target"] == "hotfix/case-0042"
    listed = lab.strata("-C", str(lab.definitions), "--store", str(lab.store), "ls").stdout
    line = f"hotfix/case-0042 of {NODE} expires on {later}: customer case 42\n"
    assert line in listed
    # nothing changed: nothing is built
    assert "up to date" in lab.build("hotfix/case-0042", "--log", "plain")
    # what it replaces changed
    overlay = lab.definitions / "overlay.d/20node/usr/bin"
    overlay.mkdir()
    (overlay / "kubectl").write_text("another one\n")
    assert "/usr/bin/kubectl is conflicting" in lab.build("hotfix/case-0042")
    # what it brings is there
    (overlay / "kubectl").write_bytes(fixed.read_bytes())
    assert "/usr/bin/kubectl is superseded: the node layer has this very file" in lab.build(
        "hotfix/case-0042"
    )
    path = lab.definitions / "strata.toml"
    path.write_text(path.read_text().replace(str(later), str(today())))
    said = lab.build("hotfix/case-0042", status=3)
    lines = path.read_text().splitlines()
    place = f"strata.toml:{lines.index(f'expires = {today()}') + 1}"
    assert f"strata: {place}: hotfix case-0042 expired on {today()}: customer case 42" in said
    assert "there is no hotfix nope" in lab.build("hotfix/nope", status=2)


def test_r3_14_a_replaced_kernel_is_the_only_one_and_has_its_own_initramfs(lab: Lab) -> None:
    lock = LockFile.load(lab.store / "locks/bootc/sample-12.lock").locks[
        "bootc/sample-12", "x86_64"
    ]
    old = next(one.nevra for one in lock.packages if one.nevra.name.startswith("linux-image-6"))
    name = old.name
    kernel = "/usr/lib/modules/99.0-test/vmlinuz"
    provides = {f"{name} 99.0": f"Provides: {name} = {old.evr}"}  # the package that names it asks
    make_repository(lab.folder / "mine", provides, files={name: kernel})
    rpm = next((lab.folder / "mine").glob(f"noarch/{name}-*.rpm"))
    before = lab.config(NODE).labels["ostree.linux"]
    lab.build("node/4.19", "--with", str(rpm))
    assert lab.config(NODE).labels["ostree.linux"] == "99.0-test" != before
    listed = lab.strata("image", "ls", f"oci:{lab.store}:{NODE}", "/usr/lib/modules", "--json")
    files = json.loads(listed.stdout)["files"]
    assert {path.split("/")[4] for path in files if path.count("/") > 3} == {"99.0-test"}
    assert files["/usr/lib/modules/99.0-test/initramfs.img"]["size"] > 1_000_000
    assert "/boot/vmlinuz" not in files
    # the import side takes the image for one system: a commit with one kernel
    done = lab.strata("image", "lint", f"oci:{lab.store}:{NODE}", check=False)
    assert "kernels" not in done.stdout


def test_a_swapped_file_keeps_owner_and_mode(lab: Lab) -> None:
    mine = lab.folder / "shadow"
    mine.write_text("root:*::\n")
    mine.chmod(0o755)
    lab.build("node/4.19", "--with", f"{mine}:/etc/gshadow")
    done = lab.strata("image", "ls", f"oci:{lab.store}:{NODE}", "/etc/gshadow", "--json").stdout
    entry = json.loads(done)["files"]["/etc/gshadow"]
    assert (entry["mode"], entry["gid"], entry["size"]) == ("0640", 42, 9)


def test_a_swapped_file_keeps_its_capabilities(tmp_path: Path) -> None:
    root, mine = tmp_path / "root", tmp_path / "mine"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/ping").write_text("old")
    os.setxattr(root / "usr/bin/ping", "security.capability", CAPABILITY)
    mine.write_text("new")
    before = apply_swaps(root, [make_swap(mine, "/usr/bin/ping", "--with")])
    assert len(before["/usr/bin/ping"]) == 64
    assert (root / "usr/bin/ping").read_text() == "new"
    assert os.getxattr(root / "usr/bin/ping", "security.capability") == CAPABILITY
    (root / "usr/lib").write_text("a file")
    with pytest.raises(TreeError, match="of the tree is a file"):
        apply_swaps(root, [make_swap(mine, "/usr/lib/x/y", "--with")])
