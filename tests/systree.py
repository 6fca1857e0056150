"""A made-up system tree for measuring: as many files, bytes and packages as a node image has.

Sizes are spread as in real systems (many of a few KB, few of tens of MB). Content is cut from a
pool: for measuring, from real files, since compressors treat made-up bytes quite differently. The
same arguments give the same tree.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from strata.container.encapsulate import ComponentMap
from strata.container.packing import Component
from strata.ostree.objects import Checksum

POOL_BYTES = 192 << 20


@dataclass(frozen=True)
class Shape:
    """How large a tree is."""

    files: int
    size_bytes: int
    packages: int
    seed: int = 1


SMALL = Shape(files=1_200, size_bytes=24 << 20, packages=40)
FULL = Shape(files=60_000, size_bytes=2 << 30, packages=400)


def pool_of(files: Iterable[Path], size_bytes: int = POOL_BYTES) -> bytes:
    """The first bytes of some files, one after the other, up to a size."""
    parts, left = [], size_bytes
    for path in files:
        with open(path, "rb") as stream:
            parts.append(stream.read(left))
        left -= len(parts[-1])
        if not left:
            break
    return b"".join(parts)


def make(root: Path, shape: Shape, pool: bytes) -> None:
    """Write the tree below `root`, which must not exist."""
    source = _Content(pool, shape.seed)
    root.mkdir()
    for folder in ("usr/etc", "var", "sysroot", "boot"):
        (root / folder).mkdir(parents=True)
    made: set[str] = set()
    for path, size in plan(shape):
        folder = path.rpartition("/")[0]
        if folder not in made:
            os.makedirs(root / folder, exist_ok=True)
            made.add(folder)
        with open(root / path, "wb") as stream:
            stream.write(source.take(size))
        if "/bin/" in path:
            (root / path).chmod(0o755)


def plan(shape: Shape) -> Iterator[tuple[str, int]]:
    """Each file's path and size in bytes, in order of package."""
    chance = random.Random(shape.seed)  # noqa: S311 -- a repeatable shape, no secret
    weights = [chance.lognormvariate(0, 1.2) for _ in range(shape.packages)]
    counts = [max(3, round(w / sum(weights) * shape.files)) for w in weights]
    sizes = [chance.lognormvariate(8.3, 1.9) for _ in range(sum(counts))]
    scale = shape.size_bytes / sum(sizes)
    largest = shape.size_bytes / 25
    position = 0
    for package, count in enumerate(counts):
        for number in range(count):
            size = min(largest, sizes[position] * scale)
            position += 1
            kind = chance.choice(("bin", "lib", "lib", "share", "share", "share"))
            yield f"usr/{kind}/pkg{package:03}/d{number % 7}/file{number:05}", int(size)


def components(shape: Shape) -> ComponentMap:
    """The packages as components; what no package owns is one more."""
    chance = random.Random(shape.seed + 1)  # noqa: S311
    rest = Component("unpackaged", "unpackaged", "unpackaged", (1 << 32) - 1, 0)
    found = {rest.identifier: rest}
    for number in range(shape.packages):
        name = f"pkg{number:03}"
        changes = min(52, int(chance.paretovariate(1.1)) - 1)
        identifier = f"{name}-1.0-1.noarch"
        found[identifier] = Component(identifier, name, name, changes, 0)

    def owner(path: str, checksum: Checksum) -> str:
        parts = path.split("/")
        return f"{parts[3]}-1.0-1.noarch" if len(parts) > 4 else rest.identifier

    return ComponentMap(found, owner)


class _Content:
    """Bytes of files: slices of the pool, each file with a first line of its own."""

    def __init__(self, pool: bytes, seed: int) -> None:
        self._chance = random.Random(seed + 2)  # noqa: S311
        self._pool = pool

    def take(self, size: int) -> bytes:
        parts = [b"%d\n" % self._chance.getrandbits(64)][: 1 if size > 20 else 0]
        left = size - sum(len(part) for part in parts)
        while left > 0:
            step = min(left, 1 << self._chance.randrange(12, 18))
            start = self._chance.randrange(len(self._pool) - step)
            parts.append(self._pool[start : start + step])
            left -= step
        return b"".join(parts)
