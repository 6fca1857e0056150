"""Laws of the /etc merge, over made-up trees of a few paths."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.errors import StrataError
from strata.node.etcmerge import (
    FAIL,
    FILE,
    FOLDER,
    INSTALL,
    MINE,
    SPECIAL,
    THEIRS,
    Entry,
    Plan,
    plan,
)

pytestmark = pytest.mark.property

entries = st.one_of(
    st.builds(Entry, st.just(FILE), st.just(0o644), content=st.sampled_from("abc")),
    st.builds(Entry, st.just(FOLDER), st.sampled_from([0o755, 0o700])),
)
# What a machine has beyond an image's defaults: mount points, and what chattr made immutable.
own_entries = st.one_of(
    entries, st.just(Entry(SPECIAL)), entries.map(lambda entry: replace(entry, fixed=True))
)
paths = st.sampled_from(["a", "a/b", "a/b/c", "a/d", "e", "e/f"])
policies = st.sampled_from([MINE, THEIRS])


def closed(tree: dict[str, Entry]) -> dict[str, Entry]:
    """A tree in which every path's parent is a folder."""
    found: dict[str, Entry] = {}
    for path in sorted(tree):
        parent = path.rpartition("/")[0]
        if not parent or (parent in found and found[parent].kind == FOLDER):
            found[path] = tree[path]
    return found


trees = st.dictionaries(paths, entries).map(closed)
own_trees = st.dictionaries(paths, own_entries).map(closed)


def carried_out(done: Plan, mine: dict[str, Entry], theirs: dict[str, Entry]) -> dict[str, Entry]:
    """What a plan makes of a machine's tree; each action has to be possible when its turn comes."""
    result = dict(mine)
    for action in done.actions:
        parent = action.path.rpartition("/")[0]
        assert not parent or result[parent].kind == FOLDER
        assert not parent or not result[parent].fixed
        inside = [path for path in result if path.startswith(action.path + "/")]
        if action.kind == INSTALL:
            assert not inside or theirs[action.path].kind == FOLDER
            result[action.path] = theirs[action.path]
        else:
            assert not inside
            del result[action.path]
    return result


@given(trees, trees, policies)
def test_an_unchanged_machine_takes_theirs(
    base: dict[str, Entry], theirs: dict[str, Entry], policy: str
) -> None:
    done = plan(base, base, theirs, policy=policy)
    assert carried_out(done, base, theirs) == theirs
    assert done.kept == ()
    assert list(done.conflicts()) == []


@given(trees, own_trees, policies)
def test_unchanged_defaults_leave_the_machine_alone(
    base: dict[str, Entry], mine: dict[str, Entry], policy: str
) -> None:
    assert plan(base, mine, base, policy=policy) == Plan((), ())


@given(trees, own_trees, trees, policies)
def test_a_merge_gives_a_tree_and_is_idempotent(
    base: dict[str, Entry], mine: dict[str, Entry], theirs: dict[str, Entry], policy: str
) -> None:
    once = carried_out(plan(base, mine, theirs, policy=policy), mine, theirs)
    assert closed(once) == once
    again = plan(theirs, once, theirs, policy=policy)
    assert again.actions == ()


@given(trees, own_trees, trees)
def test_what_changed_here_is_never_touched(
    base: dict[str, Entry], mine: dict[str, Entry], theirs: dict[str, Entry]
) -> None:
    done = carried_out(plan(base, mine, theirs), mine, theirs)
    for path in mine:
        if mine[path] != base.get(path):
            assert done[path] == mine[path]
    for path in base:
        if path not in mine:
            assert path not in done


@given(trees, own_trees, trees, policies)
def test_what_cannot_be_changed_is_never_touched(
    base: dict[str, Entry], mine: dict[str, Entry], theirs: dict[str, Entry], policy: str
) -> None:
    done = carried_out(plan(base, mine, theirs, policy=policy), mine, theirs)
    for path, entry in mine.items():
        if entry.kind == SPECIAL or entry.fixed:
            assert done[path] is entry


@given(trees, own_trees, trees, policies)
def test_what_theirs_changed_is_there_or_told(
    base: dict[str, Entry], mine: dict[str, Entry], theirs: dict[str, Entry], policy: str
) -> None:
    made = plan(base, mine, theirs, policy=policy)
    done = carried_out(made, mine, theirs)
    told = {item.path for item in made.kept}
    for path in base.keys() | theirs.keys():
        if theirs.get(path) != base.get(path) and path not in told:
            assert done.get(path) == theirs.get(path)
    assert all(done.get(path) == mine.get(path) for path in told)


@given(trees, own_trees, trees)
def test_a_merge_is_refused_just_when_it_has_conflicts(
    base: dict[str, Entry], mine: dict[str, Entry], theirs: dict[str, Entry]
) -> None:
    made = plan(base, mine, theirs, policy=THEIRS)
    if list(made.conflicts()):
        with pytest.raises(StrataError, match="both changed"):
            plan(base, mine, theirs, policy=FAIL)
    else:
        assert (
            plan(base, mine, theirs, policy=FAIL) == made == plan(base, mine, theirs, policy=MINE)
        )
