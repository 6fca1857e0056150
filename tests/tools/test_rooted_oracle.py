"""Paths inside a tree against the kernel's own opinion: the same file as in a real chroot."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from strata.core.errors import TreeError
from strata.core.rooted import resolve

pytestmark = pytest.mark.tools

LINKS = {
    "abs": "/usr/lib",
    "up": "../../../usr",
    "usr/here": ".",
    "usr/back": "../var",
    "var/run": "/run",
    "var/chain": "/abs/../here/lib",
    "circle": "var/circle",
    "var/circle": "/circle",
    "gone": "/no/such",
    "slashes": "///usr//lib/./",
}
NAMES = ("abs", "up", "usr", "lib", "here", "back", "var", "run", "chain", "circle", "gone", "..")

_IN_CHROOT = """
import json, os, sys
os.chroot(sys.argv[1])
os.chdir("/")
found = []
for path in json.load(sys.stdin):
    try:
        status = os.stat(path)
        found.append([status.st_dev, status.st_ino])
    except OSError as error:
        found.append(error.errno)
print(json.dumps(found))
"""


def test_every_path_is_what_it_is_in_a_chroot(tmp_path: Path) -> None:
    for folder in ("usr/lib", "var/lib", "run"):
        (tmp_path / folder).mkdir(parents=True)
    for place, target in LINKS.items():
        (tmp_path / place).symlink_to(target)
    paths = [
        "/".join(parts) for size in (1, 2, 3) for parts in itertools.product(NAMES, repeat=size)
    ]
    done = subprocess.run(
        [sys.executable, "-c", _IN_CHROOT, str(tmp_path)],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        check=True,
    )
    there = 0
    for path, theirs in zip(paths, json.loads(done.stdout), strict=True):
        if isinstance(theirs, int):
            continue  # missing, or a circle: what is not there has no place to compare
        there += 1
        status = os.stat(resolve(tmp_path, path))
        assert [status.st_dev, status.st_ino] == theirs, path
    assert there > 80
    with pytest.raises(TreeError):
        resolve(tmp_path, "circle")
