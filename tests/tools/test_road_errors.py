"""When things go wrong: one sentence with a hint, a status, and nothing that a second run minds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata, leftovers, make_store
from registry import ADDRESS, Registry
from strata.core.errors import DigestError, TransportError
from strata.oci.layout import Layout
from strata.oci.model import INDEX, Descriptor, Index, Manifest, Platform
from tinydist import TARGET as TINY
from tinydist import tiny_definitions

pytestmark = pytest.mark.tools


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    """A copy of the sample's definitions, to break."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "definitions", symlinks=True))


@pytest.fixture
def store(tmp_path: Path, sample_repos: Path) -> Path:
    """An empty store with the sample's repositories."""
    return make_store(tmp_path / "store", sample_repos)


def build(
    strata: Strata, definitions: Path, store: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A build that is meant to fail."""
    done = strata("-C", str(definitions), "--store", str(store), "build", *arguments, check=False)
    assert "Traceback" not in done.stderr
    assert not list((store / "work").iterdir()) if (store / "work").is_dir() else True
    return done


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """From the error's sentence on."""
    return done.stderr[done.stderr.rindex("strata: ") :]


def test_who_is_not_root_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, 65534, 65534)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    code = "import os; os.setuid(65534); from strata.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "-C", str(SAMPLE), "--store", str(store), "build"]
    done = subprocess.run([*command, "node/4.19"], capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert (
        "strata: building trees needs root\n  hint: run the same command with sudo" in done.stderr
    )


def test_a_missing_tool_is_named_with_its_install_line(definitions: Path, store: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _WITHOUT_DNF,
            "-C",
            str(definitions),
            "--store",
            str(store),
            "build",
            "bootc/sample-12",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "strata: dnf is not installed, which solves and installs packages" in done.stderr
    assert "apt install dnf   (or: dnf install dnf)" in done.stderr


_WITHOUT_DNF = """
import shutil, strata.core.tools
which = shutil.which
shutil.which = lambda name, **rest: None if name == "dnf" else which(name, **rest)
from strata.cli.main import main
raise SystemExit(main())
"""


def test_a_repository_that_is_not_there(definitions: Path, tmp_path: Path, strata: Strata) -> None:
    done = build(strata, definitions, tmp_path / "empty", "bootc/sample-12")
    assert done.returncode == 8
    text = last_lines(done)
    assert "repository sample-12-baseos cannot be read at file://" in text
    assert "No such file or directory" in text
    assert "strata sample repos" in text


def test_a_repository_that_refuses_connections(
    definitions: Path, store: Path, strata: Strata
) -> None:
    path = definitions / "sample.repo"
    path.write_text(path.read_text().replace("file://$store/sample", "http://127.0.0.1:9"))
    done = build(strata, definitions, store, "bootc/sample-12")
    assert done.returncode == 8
    assert "cannot be read at http://127.0.0.1:9" in last_lines(done)
    assert "Connection refused" in last_lines(done)


def test_a_package_that_does_not_exist_is_named_with_its_line(
    definitions: Path, store: Path, strata: Strata
) -> None:
    path = definitions / "bootc/manifest.yaml"
    path.write_text(path.read_text().replace("- rpm\n", "- rpm nonesuch\n"))
    line = next(
        number for number, text in enumerate(path.read_text().splitlines(), 1) if "nonesuch" in text
    )
    done = build(strata, definitions, store, "bootc/sample-12")
    assert done.returncode == 9
    expected = f"no package is or provides nonesuch, named at bootc/manifest.yaml:{line}\n"
    assert expected in last_lines(done)


def test_r0_1_a_node_package_in_the_base_names_the_line_that_brought_it(
    definitions: Path, store: Path, strata: Strata
) -> None:
    for path in (definitions / "bootc/manifest.yaml",):
        text = path.read_text().replace("  - sample-12-baseos\n", _BOTH_REPOS)
        path.write_text(text.replace("- rpm\n", "- rpm containerd\n"))
    done = build(strata, definitions, store, "bootc/sample-12")
    assert done.returncode == 9
    text = last_lines(done)
    assert "belongs to the node layer and may not be in bootc/sample-12" in text
    assert "it is named at bootc/manifest.yaml:" in text
    toml = definitions / "strata.toml"
    toml.write_text(toml.read_text().replace('node-only = ["containerd", ', "node-only = ["))
    done = build(strata, definitions, store, "bootc/sample-12")
    text = last_lines(done)
    assert "runc-" in text
    assert "runc is required by containerd-" in text
    assert ", containerd is named at bootc/manifest.yaml:" in text


_BOTH_REPOS = "  - sample-12-baseos\n  - sample-12-node-4.19\n"


def test_r1_3_r1_7_an_unknown_repository_fails_loudly(
    definitions: Path, store: Path, strata: Strata
) -> None:
    path = definitions / "bootc/manifest.yaml"
    path.write_text(path.read_text().replace("  - sample-12-baseos\n", "  - ENOEXIST\n"))
    done = build(strata, definitions, store, "bootc/sample-12")
    assert done.returncode == 3
    assert "no repository is called ENOEXIST" in last_lines(done)


def test_a_bad_strata_toml_is_named_with_its_line(
    definitions: Path, store: Path, strata: Strata
) -> None:
    path = definitions / "strata.toml"
    path.write_text(path.read_text().replace("marker", "markr"))
    done = build(strata, definitions, store, "node/4.19")
    assert done.returncode == 3
    assert "strata: strata.toml:5: markr is not a key of strata.toml" in done.stderr
    assert "hint: did you mean marker?" in done.stderr


def test_a_failing_script_shows_its_line_and_output(
    definitions: Path, store: Path, strata: Strata
) -> None:
    path = definitions / "bootc/manifest.yaml"
    path.write_text(path.read_text().replace("    ldconfig\n", "    echo lost >&2; exit 7\n"))
    done = build(strata, definitions, store, "bootc/sample-12")
    assert done.returncode == 3
    assert "the postprocess script at bootc/manifest.yaml:" in last_lines(done)
    assert "failed: lost" in last_lines(done)
    # The command that opens its sandbox is the one that was given, and more.
    asked = f"strata -C {definitions} --store {store} build bootc/sample-12 --shell\n"
    assert f"and run it again there: {asked}" in last_lines(done)
    shell = build(strata, definitions, store, "bootc/sample-12", "--shell")
    assert shell.returncode == 2
    assert "--shell needs a terminal" in last_lines(shell)
    # Nothing half-written stands in the way of the right one.
    path.write_text((SAMPLE / "bootc/manifest.yaml").read_text())
    assert build(strata, definitions, store, "bootc/sample-12").returncode == 0


def test_two_kernels_in_a_tree_are_named(tmp_path: Path, store: Path, strata: Strata) -> None:
    script = "cd /usr/lib/modules\nmkdir 0.0.0\ncp /boot/vmlinuz-* 0.0.0/vmlinuz"
    done = build(strata, tiny_definitions(tmp_path / "tiny", script), store, TINY)
    assert done.returncode == 3
    text = last_lines(done)
    assert "the tree has 2 kernels (0.0.0, " in text
    assert "in /usr/lib/modules; it must have exactly one\n" in text
    assert "hint: name one kernel package in the treefile" in text
    assert not (store / f"records/{TINY}.json").exists()
    assert TINY not in Layout.open(store).tags()


def test_a_package_whose_bytes_changed_is_refused(
    definitions: Path, store: Path, sample_repos: Path, strata: Strata
) -> None:
    (store / "sample").unlink()
    shutil.copytree(sample_repos, store / "sample")
    victim = next((store / "sample/sample-12-baseos").glob("bash-5*.rpm"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    done = build(strata, definitions, store, "bootc/sample-12")
    assert done.returncode == 10
    assert "is not the package that was locked" in last_lines(done)
    shutil.copyfile(sample_repos / "sample-12-baseos" / victim.name, victim)
    assert build(strata, definitions, store, "bootc/sample-12").returncode == 0


def test_a_full_disk_is_named_and_a_second_run_goes_through(
    definitions: Path, sample_repos: Path, tmp_path: Path, strata: Strata
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", small], check=True)
    try:
        store = make_store(small / "store", sample_repos)
        done = build(strata, definitions, store, "bootc/sample-12")
        assert done.returncode == 7, done.stderr[-2000:]
        assert "no space left on the device" in last_lines(done)
        assert "put the store on a larger disk with --store" in last_lines(done)
        subprocess.run(["mount", "-o", "remount,size=2g", small], check=True)
        assert build(strata, definitions, store, "bootc/sample-12").returncode == 0
    finally:
        subprocess.run(["umount", small], check=True)


def other_architecture(built_store: Path, into: Path) -> None:
    """A layout whose tag holds only a made-up arm64 image."""
    subprocess.run(["cp", "-al", built_store / "blobs", into / "blobs"], check=True)
    layout = Layout.create(into)
    source = Layout.open(built_store)
    index = Index.parse(source.read(source.resolve("coreos/sample-12")))
    entry = index.manifests[0]
    arm = Descriptor(
        entry.media_type, entry.digest, entry.size_bytes, {}, Platform("linux", "arm64")
    )
    layout.tag("coreos", layout.add(Index((arm,)).to_bytes(), INDEX))


def test_r3_11_an_image_for_another_architecture_is_refused(
    definitions: Path, built_store: Path, store: Path, tmp_path: Path, strata: Strata
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    other_architecture(built_store, foreign)
    done = build(strata, definitions, store, "node/4.19", "--base", f"oci:{foreign}:coreos")
    assert done.returncode == 11
    assert "the image is for arm64, not for amd64" in last_lines(done)


def test_a_base_that_is_not_there_names_the_tags(
    definitions: Path, built_store: Path, store: Path, strata: Strata
) -> None:
    base = f"oci:{built_store}:nope"
    done = build(strata, definitions, store, "node/4.19", "--base", base)
    assert done.returncode == 11
    assert "has no tag nope" in last_lines(done)
    assert "coreos/sample-12" in last_lines(done)


# --- interruption --------------------------------------------------------------------------------


def interrupted(command: list[str], when: str, store: Path) -> tuple[int, str]:
    """Run a command, press Ctrl-C when a line of its log shows up; returns status and log."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("strata")), *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if when in line:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            break
    seen += process.stderr.readlines()
    status = process.wait(timeout=60)
    process.stderr.close()
    assert leftovers(store) == []
    return status, "".join(seen)


@pytest.mark.parametrize("when", ["install packages …", "run the script", "write the node la"])
def test_ctrl_c_in_a_build_leaves_no_mounts_and_no_processes(
    definitions: Path, built_store: Path, store: Path, strata: Strata, when: str
) -> None:
    base = f"oci:{built_store}:coreos/sample-12"
    path = definitions / "node/common.yaml"
    path.write_text(path.read_text().replace("    ldconfig\n", "    ldconfig; sleep 1\n"))
    command = ["-C", str(definitions), "--store", str(store), "build", "node/4.19", "--base", base]
    status, log = interrupted(command, when, store)
    assert status == 130, log[-2000:]
    assert "strata: interrupted; nothing is left running" in log
    assert list((store / "work").iterdir()) == []
    assert build(strata, definitions, store, "node/4.19", "--base", base).returncode == 0


# --- a registry that goes away -------------------------------------------------------------------


def pull(registry: Registry, folder: Path, *, kill: int = 0) -> subprocess.CompletedProcess[str]:
    """Import the image from the registry into `folder/repo`; kill a pid after 60 MB."""
    config = folder / ".config/containers/registries.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[[registry]]\nlocation = "{ADDRESS}"\ninsecure = true\n')
    return subprocess.run(
        registry.inside(sys.executable, "-c", _PULL, str(folder / "repo"), str(kill)),
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(folder)},
        check=False,
    )


_PULL = """
import json, os, signal, sys
from pathlib import Path
from strata.container import importer
from strata.core.errors import StrataError
from strata.core.events import Reporter, Progress
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
pid = int(sys.argv[2])
def watch(event):
    if isinstance(event, Progress) and event.done > 60_000_000 and pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
reference = ImageReference.parse("docker://127.0.0.1:5000/sample/node:4.19")
try:
    with open_source(reference, architecture="x86_64") as source:
        result = importer.import_image(
            source, Repo.init(Path(sys.argv[1])), reference=reference, reporter=Reporter(watch)
        )
except StrataError as error:
    print(error.message)
    sys.exit(error.exit_status)
reused = sum(1 for layer in result.layers if not layer.fetched_bytes)
print(json.dumps({"reused": reused, "fetched": result.fetched_bytes}))
"""


def test_a_registry_that_dies_in_the_middle_of_a_pull(built_store: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        registry.push(f"oci:{built_store}:node/4.19@sample-12", "sample/node:4.19")
        done = pull(registry, tmp_path, kill=registry.pid)
        assert done.returncode == TransportError.exit_status, done.stderr[-3000:]
        assert "the registry " in done.stdout
        registry.stop()
        registry.start()
        done = pull(registry, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        told = json.loads(done.stdout)
        assert told["reused"] > 0
        assert told["fetched"] > 0
    subprocess.run(["ostree", "fsck", f"--repo={tmp_path}/repo", "--quiet"], check=True)
    assert os.listdir(tmp_path / "repo/tmp") == ["cache"]


def test_a_blob_damaged_in_the_registry_is_found(built_store: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.start()
        registry.push(f"oci:{built_store}:node/4.19@sample-12", "sample/node:4.19")
        layout = Layout.open(built_store)
        index = Index.parse(layout.read(layout.resolve("node/4.19@sample-12")))
        digest = Manifest.parse(layout.read(index.manifests[0])).layers[3].digest.hex
        blob = next((tmp_path / "registry/data").rglob(f"{digest}/data"))
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
        done = pull(registry, tmp_path)
    assert done.returncode in (DigestError.exit_status, TransportError.exit_status), done.stderr
    assert "damaged" in done.stdout or "does not have its digest" in done.stdout
