"""Import that is killed goes on in the next; its memory has a bound."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from importlab import Lab, fsck, leftovers
from layertar import Tar
from strata.core.process import run

pytestmark = pytest.mark.tools


_SLOWLY = """
import sys, time
from pathlib import Path
from contextlib import contextmanager
from strata.container.importer import import_image
from strata.core.events import silent
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo

class Slow:
    def __init__(self, stream): self.stream = stream
    def read(self, size=-1):
        time.sleep(0.002)
        return self.stream.read(200)

class Source:
    def __init__(self, source): self.source = source
    def __getattr__(self, name): return getattr(self.source, name)
    @contextmanager
    def open_layer(self, layer):
        with self.source.open_layer(layer) as stream:
            yield Slow(stream)

reference = ImageReference.parse(sys.argv[2])
print("begin", flush=True)
with open_source(reference, architecture="x86_64") as source:
    repo = Repo.open(Path(sys.argv[1]))
    import_image(Source(source), repo, reference=reference, reporter=silent())
print("end", flush=True)
"""
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.soak)])
def test_an_import_killed_at_any_time_goes_on_in_the_next(lab: Lab, times: int) -> None:
    body = random.Random(5).randbytes(60_000)  # noqa: S311
    lab.derive(*(Tar().add(f"usr/bin/new{n}", body + b"%d" % n).bytes() for n in range(3)))
    whole = lab.pull(lab.repo("whole"))
    repo = lab.repo()
    chance = random.Random(11)  # noqa: S311
    killed = 0
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", _SLOWLY, str(repo.path), str(lab.reference())],
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        time.sleep(0.05 + chance.random() * 0.9)
        if process.poll() is None:
            killed += 1
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        fsck(repo)
    assert killed >= times // 3
    result = lab.pull(repo)
    assert (result.base_commit, result.merge_commit) == (whole.base_commit, whole.merge_commit)
    assert result.fetched_bytes < whole.fetched_bytes
    assert leftovers(repo) == []
    assert repo.refs() == lab.repo("whole").refs()
    assert list((repo.path / "state").iterdir()) == []
    fsck(repo)


_MEASURED = """
import sys
from pathlib import Path
from strata.container.importer import import_image
from strata.core.events import silent
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.ostree.writer import writing
reference = ImageReference.parse(sys.argv[2])
with open_source(reference, architecture="x86_64") as source:
    import_image(source, Repo.open(Path(sys.argv[1])), reference=reference, reporter=silent())
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


def test_memory_does_not_grow_with_the_layers(lab: Lab) -> None:
    tars = [Tar().add(f"usr/lib/big{n}", bytes([n]) * (192 << 20)).bytes() for n in range(2)]
    lab.derive(*tars, pack=lambda data: gzip.compress(data, 1))
    done = run(
        [sys.executable, "-c", _MEASURED, str(lab.repo().path), str(lab.reference())],
        env={"PYTHONPATH": _ENVIRONMENT["PYTHONPATH"]},
    )
    assert int(done.stdout) / 1024 < 100
