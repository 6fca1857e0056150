"""Images against their peers, on a made-up system tree of 2 GB and on the sample's node image.

Each measure is one run of all its peers, interleaved; medians are compared. The tree, its commit
and its image are kept in the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from test_bench import report, seconds

import systree
from conftest import SAMPLE, Strata, cache_folder, make_store, run_strata
from registry import ADDRESS, Registry
from strata.container import compress
from strata.container.encapsulate import Options, encapsulate
from strata.core.events import silent
from strata.core.files import mounts_under, remove_tree
from strata.core.streams import Writable
from strata.oci.layout import Layout
from strata.oci.model import Descriptor, Index, Manifest
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory
from strata.ostree.writer import writing

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

ROUNDS = 3
MIB = 1 << 20


@pytest.fixture(scope="module")
def tree(built_store: Path) -> Path:
    """A folder with `repo` (the commit `x`) and `layout` (its image, tagged `base`)."""
    key = hashlib.sha256(Path(systree.__file__).read_bytes() + repr(systree.FULL).encode())
    folder = cache_folder() / "tests" / f"systree-{key.hexdigest()[:16]}"
    if (folder / "done").exists():
        return folder
    remove_tree(folder)
    folder.mkdir(parents=True)
    files = sorted((built_store / "repo/objects").rglob("*.file"))
    sized = [p for p in files if not p.is_symlink() and 0 < p.stat().st_size < 30 * MIB]
    systree.make(folder / "root", systree.FULL, systree.pool_of(sized))
    repo = Repo.init(folder / "repo")
    with writing(repo) as writer:
        commit = commit_directory(repo, writer, str(folder / "root"), timestamp=1, subject="tree")
        writer.set_ref("x", commit)
    remove_tree(folder / "root")
    layout = Layout.create(folder / "layout")
    layout.tag("base", pack(repo, layout))
    (folder / "done").touch()
    return folder


def pack(repo: Repo, layout: Layout, *, compression: str = "gzip", threads: int = 2) -> Descriptor:
    """The image of the tree's commit."""
    commit = repo.resolve("x")
    assert commit is not None
    options = Options("x86_64", compression=compression, threads=threads)
    with silent().step("encapsulate") as step:
        return encapsulate(
            repo, commit, layout, systree.components(systree.FULL), options, step=step
        )


def layers_size(layout: Layout, image: Descriptor) -> int:
    return sum(layer.size_bytes for layer in Manifest.parse(layout.read(image)).layers)


# --- encapsulate ---------------------------------------------------------------------------------


class _Zlib:
    """What the standard library gives, in the place of our compressor."""

    def __init__(self, sink: Writable, level: int) -> None:
        self._write = sink.write
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31)

    def write(self, data: bytes, /) -> None:
        self._write(self._deflate.compress(data))

    def finish(self) -> None:
        self._write(self._deflate.flush())


def test_encapsulate_against_one_thread_and_zlib(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo.open(tree / "repo")
    times: dict[str, list[float]] = {"gzip": [], "gzip-fast": [], "zlib": []}
    sizes: dict[str, int] = {}

    def measure(name: str, compression: str, threads: int) -> None:
        layout = Layout.create(tmp_path / name)
        image: list[Descriptor] = []
        times[name].append(
            seconds(
                lambda: image.append(pack(repo, layout, compression=compression, threads=threads))
            )
        )
        sizes[name] = layers_size(layout, image[0])
        shutil.rmtree(tmp_path / name)

    for _ in range(ROUNDS):
        measure("gzip", "gzip", 2)
        measure("gzip-fast", "gzip-fast", 2)
        with monkeypatch.context() as patched:
            patched.setattr(compress, "Gzip", _Zlib)
            measure("zlib", "gzip", 1)
    peer = statistics.median(times["zlib"])
    for name, bound in (("gzip", 0.6), ("gzip-fast", 0.3)):
        mine = statistics.median(times[name])
        size = sizes[name] / sizes["zlib"]
        figure = f"{mine:.1f} s / {peer:.1f} s = {mine / peer:.2f}, size x {size:.3f}"
        report(f"encapsulate ({name}), against one thread of zlib -6", figure, str(bound))
        assert mine <= bound * peer
    assert sizes["gzip"] <= 1.05 * sizes["zlib"]


def test_encapsulating_again_writes_nothing(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    shutil.copytree(tree / "layout", folder, copy_function=os.link)
    before = {path.name: path.stat().st_ino for path in (folder / "blobs/sha256").iterdir()}
    pack(Repo.open(tree / "repo"), Layout.open(folder))
    after = {path.name: path.stat().st_ino for path in (folder / "blobs/sha256").iterdir()}
    report("encapsulate again, nothing changed", f"{len(after) - len(before)} new blobs", "0")
    assert after == before


# --- import --------------------------------------------------------------------------------------

_IMPORT = """
import resource, sys, time
from strata.cli.main import main
sys.argv = ["strata", "image", "import", sys.argv[1], "--repo", sys.argv[2], "--log", "plain"]
started = time.monotonic()
status = main()
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
print("measured", time.monotonic() - started, peak)
sys.exit(status)
"""

_PLAIN = """
set -eu
skopeo copy -q --src-tls-verify=false docker://$1 dir:$2/dir
ostree init --repo=$2/repo --mode=bare
mkdir $2/root
cat >$2/layers.py <<END
import json
for layer in json.load(open("$2/dir/manifest.json"))["layers"]:
    print(layer["digest"][7:])
END
for digest in $(python3 $2/layers.py); do
    gunzip <$2/dir/$digest | ostree commit --repo=$2/repo -b layer/$digest --tree=tar=/dev/stdin \
        --tar-autocreate-parents >/dev/null
    ostree checkout --repo=$2/repo -H --union --whiteouts layer/$digest $2/root
done
ostree commit --repo=$2/repo -b merged --tree=dir=$2/root --link-checkout-speedup >/dev/null
sync -f $2/repo
"""


class Peers:
    """A registry with one image, and the ways to bring it to a machine."""

    def __init__(self, registry: Registry, folder: Path, name: str) -> None:
        self.registry, self.folder, self.name = registry, folder, name
        self.home = folder / "home"
        conf = self.home / ".config/containers"
        conf.mkdir(parents=True)
        (conf / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{ADDRESS}"\ninsecure = true\n'
        )
        (conf / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (conf / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/store"\n'
            f'runroot = "{folder}/run"\n'
        )
        self.env = {
            **os.environ,
            "HOME": str(self.home),
            "CONTAINERS_STORAGE_CONF": str(conf / "storage.conf"),
        }

    def _run(self, *command: str) -> str:
        inside = self.registry.inside(*command)
        done = subprocess.run(inside, env=self.env, check=True, capture_output=True, text=True)
        return done.stdout

    def podman(self) -> float:
        took = seconds(lambda: self._run("podman", "pull", "-q", f"{ADDRESS}/{self.name}"))
        for mount in mounts_under(self.folder):
            subprocess.run(["umount", mount], check=True)
        remove_tree(self.folder / "store")
        remove_tree(self.folder / "run")
        return took

    def plain(self) -> float:
        work = self.folder / "plain"
        work.mkdir()
        name = f"{ADDRESS}/{self.name}"
        took = seconds(lambda: self._run("bash", "-c", _PLAIN, "plain", name, str(work)))
        shutil.rmtree(work)
        return took

    def ours(self, *, keep: bool = False) -> tuple[float, int]:
        """Seconds, and the process's VmHWM in bytes."""
        repo = self.folder / "repo"
        Repo.init(repo)
        image = f"docker://{ADDRESS}/{self.name}"
        out = self._run(sys.executable, "-c", _IMPORT, image, str(repo))
        words = next(line for line in out.splitlines() if line.startswith("measured")).split()
        if not keep:
            shutil.rmtree(repo)
        return float(words[1]), int(words[2]) << 10


@pytest.mark.parametrize("image", ["tree", "sample"])
def test_import_against_podman_and_the_plain_way(
    tree: Path, built_store: Path, tmp_path: Path, image: str
) -> None:
    source = (
        f"oci:{tree}/layout:base" if image == "tree" else f"oci:{built_store}:node/4.19@sample-12"
    )
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        registry.push(source, f"bench/{image}:1")
        peers = Peers(registry, tmp_path, f"bench/{image}:1")
        podman: list[float] = []
        plain: list[float] = []
        ours: list[float] = []
        peaks: list[int] = []
        for _ in range(ROUNDS):
            for settle in (peers.podman, peers.plain):
                os.sync()
                (podman if settle == peers.podman else plain).append(settle())
            os.sync()
            took, peak = peers.ours()
            ours.append(took)
            peaks.append(peak)
        peers.ours(keep=True)
        again = statistics.median(peers.ours(keep=True)[0] for _ in range(ROUNDS))
    mine = statistics.median(ours)
    for name, times, bound in (("podman pull", podman, 0.7), ("the plain way", plain, 0.4)):
        peer = statistics.median(times)
        figure = f"{mine:.1f} s / {peer:.1f} s = {mine / peer:.2f}"
        report(f"import of the {image}, against {name}", figure, str(bound))
        assert mine <= bound * peer
    report(f"import of the {image}: peak memory", f"{max(peaks) / MIB:.0f} MiB", "120 MiB")
    report(f"import of the {image} again", f"{again:.2f} s", "0.5 s")
    assert max(peaks) <= 120 * MIB
    assert again <= 0.5


# --- an update of the node layer -----------------------------------------------------------------


def test_an_updated_package_moves_its_layer_only(
    sample_repos: Path, tmp_path: Path, strata: Strata
) -> None:
    store = make_store(tmp_path / "store", sample_repos)
    common = ("-C", str(SAMPLE), "--store", str(store))
    strata(*common, "build", "coreos/sample-12", "node/4.19")
    before, _, packages = node_layers(store)
    updates = cache_folder() / "tests" / "sample-updates"
    run_strata("sample", "repos", str(updates), "--compose", "updates")
    (store / "sample").unlink()
    (store / "sample").symlink_to(updates)
    base = f"oci:{store}:coreos/sample-12"
    strata(*common, "build", "node/4.19", "--base", base)
    after, titles, new_packages = node_layers(store)
    fetched = {digest: size for digest, size in after.items() if digest not in before}
    # What changed is what the two package lists say, not what moved.
    updated = {name for name, version in new_packages.items() if packages.get(name) != version}
    due = (*updated, "rpmdb", "package list")
    least = sum(size for digest, size in after.items() if titles[digest] in due)
    total = sum(fetched.values())
    assert len(updated) == 1
    figure = f"{total / 1e6:.1f} MB / {least / 1e6:.1f} MB = {total / least:.2f}"
    report(f"node image, {', '.join(updated)} updated: bytes to fetch", figure, "1.2")
    assert total <= 1.2 * least


def node_layers(store: Path) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
    """Sizes and titles of the node image's own layers, by digest; versions by package."""
    record = json.loads((store / "records/node/4.19@sample-12.json").read_text())
    layout = Layout.open(store)
    index = Index.parse(layout.read(layout.resolve("node/4.19@sample-12")))
    layers = Manifest.parse(layout.read(index.manifests[0])).layers
    own = layers[record["outputs"]["base_layers"] :]
    titles = {str(of.digest): of.annotations["org.opencontainers.image.title"] for of in own}
    sizes = {str(of.digest): of.size_bytes for of in own}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layout.read(own[-1])))) as tar:
        listed = tar.extractfile("usr/share/openshift/base/meta.json")
        assert listed is not None
        rows = json.load(listed)["rpmdb.pkglist"]
    return sizes, titles, {name: "-".join(version) for name, *version in rows}
