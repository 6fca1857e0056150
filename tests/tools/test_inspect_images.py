"""Looking at images, held against real tools: `umoci unpack`, `rpm`, `ostree`; and the commands on
the sample's images."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Strata
from layertar import Tar
from lookimages import looking, system, write
from strata.container.encapsulate import ComponentMap, Options, encapsulate
from strata.container.importer import import_image
from strata.container.layers import write_image
from strata.container.packing import Component
from strata.core.errors import ImageError
from strata.core.events import silent
from strata.core.process import run
from strata.inspect.entries import File
from strata.inspect.files import read_files
from strata.inspect.lintimage import lint_image
from strata.inspect.packages import read_base_packages, read_packages
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import LAYER_GZIP, ImageConfig, Manifest
from strata.oci.reference import ImageReference
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.writer import writing

pytestmark = pytest.mark.tools

NODE, OTHER, COREOS = "node/4.19@sample-12", "node/4.20@sample-12", "coreos/sample-12"
Seen = dict[str, tuple[object, ...]]


def on_disk(root: Path, *, skip: str = "", xattrs: bool = False) -> Seen:
    """What a tree on disk holds, as `seen` says it of a file list."""
    found: Seen = {}
    for folder, folders, names in os.walk(root):
        here = folder[len(str(root)) :]
        if skip and here == skip:
            folders.clear()
            continue
        for path in (f"{here}/{name}" for name in (*folders, *names)):
            if path == skip:
                continue
            disk = f"{root}{path}"
            status = os.lstat(disk)
            kind = {stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFDIR: "dir"}[
                stat.S_IFMT(status.st_mode)
            ]
            body = hashlib.sha256(Path(disk).read_bytes()).hexdigest() if kind == "file" else ""
            target = os.readlink(disk) if kind == "link" else ""
            attributes = (
                tuple(
                    (os.fsencode(name), os.getxattr(disk, name, follow_symlinks=False))
                    for name in sorted(os.listxattr(disk, follow_symlinks=False))
                )
                if xattrs
                else ()
            )
            mode = stat.S_IMODE(status.st_mode)
            found[path] = (kind, mode, status.st_uid, status.st_gid, body, target, attributes)
    return found


def seen(files: dict[str, File] | None, *, xattrs: bool = False) -> Seen:
    return {
        path: (
            file.kind,
            file.mode,
            file.uid,
            file.gid,
            file.digest,
            file.target,
            file.xattrs if xattrs else (),
        )
        for path, file in (files or {}).items()
        if path != "/"
    }


def tree(root: Path) -> None:
    """A small system with attributes on files, empty files and folders."""
    for name in ("usr/etc/ssh", "usr/bin", "usr/lib/py/__pycache__", "var", "sysroot", "boot"):
        (root / name).mkdir(parents=True)
    for name in ("dev", "proc", "run", "sys", "tmp"):
        (root / name).mkdir()
    (root / "usr/etc/ssh/config").write_text("Port 22\n")
    (root / "usr/bin/tool").write_bytes(b"\x7fELF" * 100)
    (root / "usr/bin/tool").chmod(0o4755)
    os.chown(root / "usr/bin/tool", 3, 4)
    (root / "usr/bin/sh").symlink_to("tool")
    (root / "usr/lib/empty").touch()
    (root / "usr/lib/gone").write_text("gone")
    (root / "usr/lib/os-release").write_text("ID=x\nVERSION_ID=1\n")
    (root / "usr/lib/py/a.py").write_text("a = 1\n")
    (root / "usr/lib/py/b.py").write_text("b = 1\n")
    for name in "ab":
        (root / f"usr/lib/py/__pycache__/{name}.cpython-39.pyc").write_bytes(name.encode() * 9)
    (root / "tmp").chmod(0o1777)
    for name in ("usr/bin/tool", "usr/lib/empty", "usr/lib/py"):
        os.setxattr(root / name, "user.strata", name.encode())


@pytest.fixture
def base(tmp_path: Path) -> tuple[Layout, Manifest, ImageConfig]:
    tree(tmp_path / "tree")
    repo = Repo.init(tmp_path / "origin")
    with writing(repo, sync=False) as writer:
        commit = commit_directory(repo, writer, str(tmp_path / "tree"), timestamp=1)
    names = ("etc", "bin", "lib")
    components = ComponentMap(
        {name: Component(name, name, name, 1, 0) for name in names},
        lambda path, checksum: path.split("/")[2],
    )
    layout = Layout.create(tmp_path / "layout")
    with silent().step("encapsulate") as step:
        made = encapsulate(repo, commit, layout, components, Options("x86_64"), step=step)
    layout.tag("base", made)
    manifest = Manifest.parse(layout.read(made))
    return layout, manifest, ImageConfig.parse(layout.read(manifest.config))


def derive(base: tuple[Layout, Manifest, ImageConfig], *tars: Tar) -> str:
    layout, manifest, config = base
    data = [tar.bytes() for tar in tars]
    layers = [layout.add(gzip.compress(tar, mtime=0), LAYER_GZIP) for tar in data]
    diff_ids = (*config.diff_ids, *(Digest.of(tar) for tar in data))
    new = ImageConfig("amd64", "linux", "", {"Labels": config.labels}, diff_ids)
    layout.tag("derived", write_image(layout, new, [*manifest.layers, *layers], {}))
    return f"oci:{layout.path}:derived"


def upper() -> Tar:
    tar = Tar().folder("usr", "usr/bin").add("usr/bin/more", b"more", xattrs={"user.x": "y"})
    tar.folder("etc").add("etc/new", b"1", mode=0o600, owner=(5, 6)).link(
        "usr/bin/less", "usr/bin/more"
    )
    return tar.folder("usr/lib").add("usr/lib/.wh.gone").link("usr/bin/copy", "usr/bin/tool")


def test_the_base_and_the_image_equal_what_ostree_checks_out(
    base: tuple[Layout, Manifest, ImageConfig], tmp_path: Path
) -> None:
    reference = derive(base, upper())
    with looking(reference) as image:
        files = read_files(*image)
        repo = Repo.init(tmp_path / "node")
        done = import_image(
            image[0], repo, reference=ImageReference.parse(reference), reporter=silent()
        )
    assert len(image[1].base) == len(base[1].layers)
    commits = {"base": (done.base_commit, files.base), "image": (done.merge_commit, files.files)}
    for name, (commit, listed) in commits.items():
        root = tmp_path / name
        run(["ostree", f"--repo={repo.path}", "checkout", "--fsync=no", commit, str(root)])
        (root / "usr/etc").rename(root / "etc")
        disk = on_disk(root, xattrs=True)
        mine = seen(dict(listed), xattrs=True)
        # The exporter's own folder, which the commit does not have.
        del mine["/var/tmp"]
        assert mine == disk
    assert files.files["/usr/lib/py"].xattrs == ((b"user.strata", b"usr/lib/py"),)
    assert files.files["/usr/lib/empty"].xattrs == ((b"user.strata", b"usr/lib/empty"),)


def test_r3_3_a_pyc_of_the_base_is_not_rewritten(
    base: tuple[Layout, Manifest, ImageConfig],
) -> None:
    cache = "usr/lib/py/__pycache__"
    rewritten = Tar().add(f"{cache}/a.cpython-39.pyc", b"other")
    with_module = Tar().add("usr/lib/py/b.py", b"b = 2\n").add(f"{cache}/b.cpython-39.pyc", b"b2")
    same = Tar().add(f"{cache}/a.cpython-39.pyc", b"a" * 9).add(f"{cache}/c.cpython-39.pyc", b"c")
    removed = Tar().add(f"{cache}/.wh.a.cpython-39.pyc")
    found = {}
    for name, tar in {"rewrites": rewritten, "with": with_module, "same": same}.items():
        with looking(derive(base, tar)) as image:
            outcomes = {of.rule.id: of for of in lint_image(*image, read_files(*image))}
            found[name] = [of.message for of in outcomes["base-pyc"].findings]
    with looking(derive(base, removed)) as image:
        outcomes = {of.rule.id: of for of in lint_image(*image, read_files(*image))}
        found["removes"] = [of.message for of in outcomes["base-pyc"].findings]
    path = f"/{cache}/a.cpython-39.pyc"
    assert found == {
        "rewrites": [f"a derived layer rewrites {path}, which the base compiled"],
        "with": [],
        "same": [],
        "removes": [f"a derived layer removes {path}, which the base compiled"],
    }


def test_r2_4_a_derived_layer_adds_the_products_version_to_os_release(
    base: tuple[Layout, Manifest, ImageConfig],
) -> None:
    found = {}
    for name, text in {
        "adds": "ID=x\nVERSION_ID='1'\nOPENSHIFT_VERSION=4.19\n",
        "changes": "ID=y\nVERSION_ID=1\nMORE=1\n",
    }.items():
        tar = Tar().add("usr/lib/os-release", text.encode())
        with looking(derive(base, tar)) as image:
            outcomes = {of.rule.id: of for of in lint_image(*image, read_files(*image))}
            assert outcomes["node-os-release"].skipped == ""
            found[name] = [of.message for of in outcomes["node-os-release"].findings]
    changed = "a derived layer changes os-release:"
    assert found == {
        "adds": [],
        "changes": [f"{changed} ID is 'y', in the base 'x'", f"{changed} MORE is added"],
    }


def test_a_commit_layer_without_its_commit_is_named(
    base: tuple[Layout, Manifest, ImageConfig],
) -> None:
    layout, manifest, config = base
    labels = {**config.labels, "ostree.commit": "0" * 64}
    new = ImageConfig("amd64", "linux", "", {"Labels": labels}, config.diff_ids)
    layout.tag("other", write_image(layout, new, manifest.layers, {}))
    with looking(f"oci:{layout.path}:other") as image:
        with pytest.raises(ImageError, match="does not hold the commit its label names"):
            read_files(*image)


# --- the sample's images ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpacked(built_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The node image as umoci unpacks it."""
    work = tmp_path_factory.mktemp("umoci")
    run(["skopeo", "copy", "-q", f"oci:{built_store}:{NODE}", f"oci:{work}/image:node"])
    run(["umoci", "unpack", "--image", f"{work}/image:node", f"{work}/bundle"])
    yield work / "bundle/rootfs"
    run(["rm", "-rf", str(work)])


def test_the_file_list_equals_what_umoci_unpacks(built_store: Path, unpacked: Path) -> None:
    with looking(f"oci:{built_store}:{NODE}") as image:
        files = read_files(*image).files
    mine, disk = seen(dict(files)), on_disk(unpacked, skip="/sysroot/ostree")
    assert len(mine) > 10_000
    assert {
        path: (mine.get(path), disk.get(path))
        for path in mine.keys() | disk.keys()
        if mine.get(path) != disk.get(path)
    } == {}


def test_packages_equal_rpms_own(built_store: Path, unpacked: Path, tmp_path: Path) -> None:
    form = "%{NAME} %{EPOCHNUM} %{VERSION} %{RELEASE} %{ARCH}\\n"
    command = ["rpm", "--root", str(unpacked), "--dbpath", "/usr/lib/sysimage/rpm", "-qa"]
    lines = run([*command, "--qf", form]).stdout.splitlines()
    theirs = sorted(line for line in lines if not line.startswith("gpg-pubkey "))
    with looking(f"oci:{built_store}:{NODE}") as image:
        found = read_packages(*image)
        base = read_base_packages(*image)
        listed = sorted(
            f"{of.name} {of.epoch} {of.version} {of.release} {of.arch}" for of in found.nevras
        )
        assert found.layer == image[1].layers[-1]
    assert listed == theirs
    with looking(f"oci:{built_store}:{COREOS}") as image:
        assert read_packages(*image).nevras == base
    assert set(base) < set(found.nevras)


def test_inspect_shows_layers_and_packages(built_store: Path, strata: Strata) -> None:
    text = strata("image", "inspect", f"oci:{built_store}:{NODE}").stdout
    assert "packages     261, by the package list in layer 82" in text
    assert "kubernetes-client" in text
    document = json.loads(strata("image", "inspect", f"oci:{built_store}:{NODE}", "--json").stdout)
    record = json.loads((built_store / f"records/{NODE}.json").read_text())["outputs"]
    assert document["manifest_digest"] == record["manifest"]
    assert len(document["packages"]) == record["packages"]
    assert [of["kind"] for of in document["layers"]][: record["base_layers"]] == [
        "commit",
        *["chunk"] * (record["base_layers"] - 1),
    ]
    titles = [of["title"] for of in document["layers"] if of["kind"] == "derived"]
    assert titles == [of["title"] for of in record["node_layers"]]


def test_ls_shows_a_folder(built_store: Path, strata: Strata) -> None:
    lines = strata("image", "ls", f"oci:{built_store}:{NODE}", "/bin/kubectl").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("-rwxr-xr-x 0:0 ")
    assert lines[0].endswith("  /usr/bin/kubectl")
    done = strata("image", "ls", f"oci:{built_store}:{NODE}", "/nowhere/x", check=False)
    assert done.returncode == 11
    assert "has no /nowhere/x\n  hint: the nearest that is there is /" in done.stderr


def test_owner_names_layer_package_and_line(built_store: Path, strata: Strata) -> None:
    image = f"oci:{built_store}:{NODE}"
    node = json.loads(strata("image", "owner", image, "/usr/bin/kubectl", "--json").stdout)
    assert node["layer"]["title"] == "kubernetes-client"
    (package,) = node["packages"]
    assert package["nevra"].startswith("kubernetes-client-")
    assert package["from"] == "node"
    assert package["lock"] == f"locks/{NODE}.lock"
    assert "named at node/common.yaml:" in package["because"]
    text = strata("image", "owner", image, "/bin/dash").stdout
    assert "(base)" in text
    assert "by locks/bootc/sample-12.lock" in text
    assert "no package owns it" in strata("image", "owner", image, "/etc/motd").stdout


def test_diff_leads_with_packages_and_says_what_is_fetched(
    built_store: Path, strata: Strata
) -> None:
    old, new = f"oci:{built_store}:{COREOS}", f"oci:{built_store}:{NODE}"
    document = json.loads(strata("image", "diff", old, new, "--json").stdout)
    assert document["added"]["kubernetes-client"].startswith("1.20.5")
    assert document["changed"] == document["removed"] == {}
    assert {of["from"] for of in document["packages"]} == {"node"}
    record = json.loads((built_store / f"records/{NODE}.json").read_text())["outputs"]
    layers = record["node_layers"]
    assert document["fetch"]["size_bytes"] == sum(of["size"] for of in layers)
    changes = {of["path"]: of["change"] for of in document["files"]}
    assert changes["/usr/bin/kubectl"] == "added"
    assert "removed" not in changes.values()
    text = strata("image", "diff", old, new, "--fetch").stdout
    assert text.index("kubernetes-client.x86_64") < text.index("a client that has")
    assert "files:" not in text


def test_who_has_to_have_signed_an_image_may_be_said(built_store: Path, strata: Strata) -> None:
    plain = strata("image", "inspect", f"oci:{built_store}:{NODE}", "--json").stdout
    shown = strata(
        "image", "inspect", f"ostree-unverified-image:oci:{built_store}:{NODE}", "--json"
    )
    named, signed = json.loads(plain), json.loads(shown.stdout)
    assert signed["layers"] == named["layers"]
    done = strata(
        "image", "inspect", f"ostree-remote-image:r:oci:{built_store}:{NODE}", check=False
    )
    assert "sign commits, not images" in done.stderr


def test_layers_that_only_say_they_are_the_same_differ(tmp_path: Path, strata: Strata) -> None:
    """Two images with the same diff-ids and other files: what was read counts."""
    layer = system().add("usr/bin/tool", b"one").bytes()
    other = system().add("usr/bin/tool", b"two").bytes()
    one, two = (write(tmp_path / name, tar) for name, tar in (("a", layer), ("b", other)))
    layout = Layout.open(tmp_path / "b")
    manifest = Manifest.parse(layout.read(layout.resolve("image")))
    config = ImageConfig.parse(layout.read(manifest.config))
    liar = ImageConfig(config.architecture, "linux", "", {}, (Digest.of(layer),))
    layout.tag("liar", write_image(layout, liar, manifest.layers, {}))
    done = strata("image", "diff", one, f"oci:{tmp_path}/b:liar", "--exit-code", check=False)
    assert done.returncode == 1
    assert "1 changed" in done.stdout
    assert strata("image", "diff", two, two, "--exit-code").returncode == 0


def test_exit_codes_of_diff(built_store: Path, strata: Strata) -> None:
    node, other = f"oci:{built_store}:{NODE}", f"oci:{built_store}:{OTHER}"
    same = strata("image", "diff", node, node, "--squashed", "--exit-code")
    assert same.stdout.endswith("are the same system\n")
    done = strata("image", "diff", node, other, "--squashed", "--exit-code", check=False)
    assert done.returncode == 1
    assert "os-release: OPENSHIFT_VERSION 4.19 → 4.20" in done.stdout
    assert "differ in 1 thing" in done.stdout
    assert strata("image", "diff", node, other, "--fetch").returncode == 0
    assert (
        strata("image", "diff", node, other, "--fetch", "--exit-code", check=False).returncode == 1
    )
    assert strata("image", "diff", node, node, "--fetch", "--exit-code").returncode == 0


def test_the_sample_keeps_the_rules(built_store: Path, strata: Strata) -> None:
    patterns = ("--node-only", "containerd", "kubernetes-client", "openvswitch-*")
    done = strata("image", "lint", f"oci:{built_store}:{NODE}", "--json", *patterns)
    document = json.loads(done.stdout)
    assert document["ok"]
    broken = {of["rule"] for of in document["rules"] if of["findings"] or of["skipped"]}
    assert broken == {"baseimage-composefs"}  # a warning: the sample's libostree has no composefs
    done = strata(
        "image", "lint", f"oci:{built_store}:{COREOS}", "--node-only", "podman", check=False
    )
    assert done.returncode == 1
    assert "fatal    base-node-package: podman-" in done.stdout
