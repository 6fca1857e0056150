"""The steps of a build as values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strata.compose.steps import Fate, Step, fates, steps_json
from strata.core.record import Input, InputChange

pytestmark = pytest.mark.unit

LOCK = Input("lock", "packages", "sha256:1")
TREEFILE = Input("treefile", "m.yaml", "sha256:2")
INSTALL = Step("install", (LOCK,))
TREE = Step("tree", (TREEFILE,), (INSTALL,))
IMAGE = Step("image", (), (TREE,))


def recorded(last: Step) -> object:
    """As a record that was written and read again has it."""
    return json.loads(json.dumps(steps_json(last)))


def test_a_key_is_of_all_that_a_step_reads_and_stands_on() -> None:
    steps = [
        INSTALL,
        TREE,
        IMAGE,
        replace(INSTALL, name="other"),
        replace(INSTALL, reads=(replace(LOCK, digest="sha256:3"),)),
        replace(INSTALL, reads=(replace(LOCK, kind="base"),)),
        replace(TREE, after=()),
        replace(TREE, after=(replace(INSTALL, reads=()),)),
    ]
    assert len({step.key for step in steps}) == len(steps)
    assert replace(TREE, reads=(TREEFILE, LOCK)).key == replace(TREE, reads=(LOCK, TREEFILE)).key


def test_steps_come_after_what_they_stand_on_once_each() -> None:
    both = Step("both", (), (TREE, INSTALL))
    assert both.in_order() == (INSTALL, TREE, both)


def test_a_changed_input_makes_the_steps_from_there_on_and_no_other() -> None:
    line = replace(TREEFILE, digest="sha256:4")
    after = replace(IMAGE, after=(replace(TREE, reads=(line,)),))
    assert fates(after, recorded(IMAGE)) == (
        Fate("install", same=True),
        Fate("tree", False, (InputChange("treefile", "m.yaml", "sha256:2", "sha256:4"),)),
        Fate("image", False, (), ("tree",)),
    )


def test_a_first_build_makes_every_step_and_nothing_changed_none() -> None:
    others: tuple[object, ...] = (None, [], "rubbish")
    for nothing in others:
        found = fates(IMAGE, nothing)
        assert [(fate.same, fate.changes) for fate in found] == [(False, ())] * 3
    assert all(fate.same for fate in fates(IMAGE, recorded(IMAGE)))
