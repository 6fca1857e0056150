"""The steps of a build as values: each has a key of all that it reads, and of the steps before it.

Pure. Equal keys mean equal outputs, so what has its key still is not made again. The steps of one
target stand on each other; the targets stand on each other as `graph.py` says, and a target reads
the outputs of the one below as an input of kind `base`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strata.core.files import json_digest
from strata.core.record import Input, InputChange, changed_inputs

# The packages are in a root; the tree is done; the image is written.
INSTALL, TREE, IMAGE = "install", "tree", "image"


@dataclass(frozen=True)
class Step:
    """A step: what it reads, beside the outputs of the steps it comes after."""

    name: str
    reads: tuple[Input, ...]
    after: tuple[Step, ...] = ()

    @property
    def key(self) -> str:
        """`sha256:…` over the step's name, what it reads, and the keys of the steps before it."""
        reads = [[item.kind, item.name, item.digest] for item in sorted(self.reads)]
        return json_digest([self.name, reads, [step.key for step in self.after]])

    def in_order(self) -> tuple[Step, ...]:
        """The steps up to this one, each after what it stands on."""
        found: dict[Step, None] = {}
        for before in self.after:
            found.update(dict.fromkeys(before.in_order()))
        return (*found, self)

    def to_json(self) -> dict[str, object]:
        """As a build record has it."""
        return {
            "name": self.name,
            "key": self.key,
            "after": [step.name for step in self.after],
            "reads": [[item.kind, item.name, item.digest] for item in sorted(self.reads)],
        }


@dataclass(frozen=True)
class Fate:
    """What becomes of a step in a build: it is the same as before, or made, and why.

    changes: of what it reads itself. after: the steps before it that are made. Both are empty for
    one that was never made.
    """

    name: str
    same: bool
    changes: tuple[InputChange, ...] = ()
    after: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "step": self.name,
            "same": self.same,
            "changes": [str(change) for change in self.changes],
            "after": list(self.after),
        }


def fates(last: Step, earlier: object) -> tuple[Fate, ...]:
    """What becomes of a target's steps. earlier: those of its last build, as its record has them;
    anything else stands for none."""
    known = _known(earlier)
    made: list[str] = []
    found = []
    for step in last.in_order():
        before = known.get(step.name)
        if before and before["key"] == step.key:
            found.append(Fate(step.name, same=True))
            continue
        after = tuple(one.name for one in step.after if one.name in made)
        made.append(step.name)
        reads = [Input(*row) for row in before["reads"]] if before else list(step.reads)
        found.append(Fate(step.name, False, changed_inputs(reads, step.reads), after))
    return tuple(found)


def steps_json(last: Step) -> list[dict[str, object]]:
    """A target's steps as its record keeps them."""
    return [step.to_json() for step in last.in_order()]


def _known(earlier: object) -> dict[str, Mapping[str, Sequence[Sequence[str]]]]:
    rows = earlier if isinstance(earlier, list) else []
    return {str(row["name"]): row for row in rows}
