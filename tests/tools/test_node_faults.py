"""Pulls when the registry fails: away at first, away in the middle, slow, damaged. Each ends in
success by itself or in a clear refusal, and the next pull goes on. 3 MB are above the base."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT
from importlab import fsck, make_lab
from layertar import Tar
from pulling import PullingMachine
from registry import ADDRESS, Registry

pytestmark = pytest.mark.tools

DIGEST = 10
PORT = 5001
LAYERS = 6


def body(number: int) -> bytes:
    """Half a megabyte that does not compress."""
    return random.Random(number).randbytes(500_000)  # noqa: S311


class Site:
    """A machine that reaches its registry through a relay, whose mode is a file."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.registry, self.mode_file = registry, folder / "mode"
        self.machine = PullingMachine(folder, registry)
        lab = make_lab(folder / "lab")
        lab.derive(*(Tar().add(f"usr/share/doc/{n}", body(n)).bytes() for n in range(LAYERS)))
        registry.start()
        self.digest = registry.push(str(lab.reference()), "lab/node")
        manifest, _ = lab.image(lab.layout.resolve("image"))
        self.layers = manifest.layers[-LAYERS:]
        self.size = sum(layer.size_bytes for layer in self.layers)
        self.machine.set_up(
            *("--image", f"registry.example/lab/node@{self.digest}"),
            *("--mirror", f"registry.example=http://127.0.0.1:{PORT}"),
        )
        self.mode("well")

    def mode(self, text: str) -> None:
        """How the relay passes things on, from now on (tests/relay.py)."""
        fresh = self.mode_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.mode_file)

    def blob(self, number: int) -> Path:
        """The registry's file of a layer."""
        digest = str(self.layers[number].digest).partition(":")[2]
        return (
            self.registry.folder
            / f"data/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
        )

    @contextmanager
    def pulling(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A pull that runs beside the test; ended with the block."""
        argv = self.machine.command("pull", *options)
        env = {"PATH": os.environ["PATH"]}
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=env) as process:
            try:
                yield process
            finally:
                process.kill()

    def require_whole(self) -> None:
        """The image is there: every object, and the files as they were made."""
        fsck(self.machine.repo)
        for number in range(LAYERS):
            assert self.machine.checked_out(f"usr/share/doc/{number}") == body(number)

    def require_nothing_half_written(self) -> None:
        """No checkout, and a repository that is in order."""
        fsck(self.machine.repo)
        assert not (self.machine.root / "ostree/node-image").exists()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Registry(tmp_path / "registry") as registry:
        found = Site(tmp_path, registry)
        driver = str(ROOT / "tests/relay.py")
        to_port = ADDRESS.rpartition(":")[2]
        argv = registry.inside(sys.executable, driver, str(PORT), to_port, str(found.mode_file))
        with (
            open(tmp_path / "requests", "w") as requests,
            subprocess.Popen(argv, stdout=requests) as process,
        ):
            try:
                while "ready" not in (tmp_path / "requests").read_text():
                    time.sleep(0.02)
                yield found
            finally:
                process.kill()


def said_until(process: subprocess.Popen[str], text: str) -> str:
    """What the agent says, up to a line that has the text."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


def test_a_registry_that_comes_later_is_waited_for(site: Site) -> None:
    """R6.3: named at once, and tried again until it works."""
    site.registry.stop()
    with site.pulling() as process:
        said = said_until(process, "trying again in 2 s")
        assert "trying again in 1 s" in said
        assert site.digest in said
        site.registry.start()
        assert process.wait(60) == 0
    site.require_whole()


def test_a_name_that_is_known_later_is_waited_for(site: Site, tmp_path: Path) -> None:
    """DNS that is late: nothing answers, then it does not know the name, then it does."""
    (site.machine.root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    site.machine.set_up(
        *("--image", f"registry.late/lab/node@{site.digest}"),
        *("--mirror", f"registry.late=http://registry.late:{PORT}"),
    )
    names = site.registry.inside(sys.executable, str(ROOT / "tests/names.py"), str(tmp_path / "ip"))
    with site.pulling() as process:
        assert "no name server answers" in said_until(process, "trying again in 2 s")
        with subprocess.Popen(names) as server:
            try:
                assert "name is not known here" in said_until(process, "trying again in 4 s")
                (tmp_path / "ip").write_text("127.0.0.1")
                assert process.wait(60) == 0
            finally:
                server.kill()
    site.require_whole()


def test_a_registry_that_goes_away_half_way(site: Site, tmp_path: Path) -> None:
    """What arrived is kept: layers that were whole are not asked for again."""
    site.mode("stop 2400000")
    with site.pulling() as process:
        said_until(process, "trying again in 1 s")
        site.registry.stop()
        said_until(process, "trying again in 4 s")
        (tmp_path / "requests").write_text("")
        site.mode("well")
        site.registry.start()
        assert process.wait(60) == 0
    site.require_whole()
    asked = (tmp_path / "requests").read_text()
    assert 0 < sum(str(layer.digest) in asked for layer in site.layers) < LAYERS


def test_connections_that_break_are_made_again(site: Site) -> None:
    site.mode("cut 300000")
    with site.pulling() as process:
        said = said_until(process, "trying again in 4 s")
        assert "the registry broke off" in said
        site.mode("well")
        assert process.wait(60) == 0
    site.require_whole()


def test_a_slow_registry_is_waited_for_and_seen(site: Site) -> None:
    """90 kB a second for half a minute: it goes on, and says how far it is every 10 s."""
    site.mode("slow 90000")
    with site.pulling() as process:
        said = [said_until(process, "import derived layers: ") for _ in range(3)]
        assert "trying again" not in "".join(said)
        site.mode("well")
        assert process.wait(60) == 0
    site.require_whole()


@pytest.mark.parametrize(
    ("missing", "changed", "message"),
    [
        (1000, 0, "what the registry sent does not have its digest"),
        (0, 1000, "is damaged"),
    ],
)
def test_a_damaged_layer_is_refused_and_the_rest_is_kept(
    site: Site, missing: int, changed: int, message: str
) -> None:
    blob = site.blob(LAYERS - 1)
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) - missing - changed] + bytes(changed))
    done = site.machine.pull()
    assert done.returncode == DIGEST, done.stderr
    assert "Traceback" not in done.stderr
    assert message in done.stderr
    site.require_nothing_half_written()
    blob.write_bytes(whole)
    assert site.machine.pull().returncode == 0
    site.require_whole()


def test_a_manifest_with_another_digest_is_refused(site: Site) -> None:
    digest = site.digest.partition(":")[2]
    place = site.registry.folder / "data/docker/registry/v2/blobs/sha256" / digest[:2] / digest
    text = (place / "data").read_text()
    (place / "data").write_text(text.replace('"schemaVersion":2', '"schemaVersion": 2'))
    assert (place / "data").read_text() != text
    done = site.machine.pull()
    assert done.returncode == DIGEST, done.stderr
    site.require_nothing_half_written()
