"""Unit files as values: their settings, what starts what, and rings among them."""

from __future__ import annotations

import pytest

from strata.core.systemd import Unit, comes_after, find_cycle, parse_unit, settings

pytestmark = pytest.mark.unit


def units(*texts: str) -> dict[str, Unit]:
    """Units written as `NAME: TEXT`, lines of [Unit] with semicolons."""
    found = [text.partition(": ") for text in texts]
    return {
        name: parse_unit(name, "[Unit]\n" + text.replace("; ", "\n")) for name, _, text in found
    }


def test_settings_go_over_lines_and_comments_are_none() -> None:
    text = "# a=b\n[Service]\nExecStart=/bin/a \\\n# no\n  b\n\n;c=d\nnonsense\n[Install]\nX = y\n"
    assert [(one.section, one.key, one.value, one.line) for one in settings(text)] == [
        ("Service", "ExecStart", "/bin/a  b", 3),
        ("Install", "X", "y", 10),
    ]


def test_what_is_enabled_counts_when_it_is() -> None:
    text = "[Unit]\nAfter=a.service\n[Install]\nWantedBy=x.target\n"
    assert parse_unit("b.service", text).wanted_by == {"x.target"}
    assert parse_unit("b.service", text, enabled=False).wanted_by == frozenset()
    assert parse_unit("b.service", text, enabled=False).after == {"a.service"}


def test_drop_ins_add_to_a_unit() -> None:
    unit = parse_unit(
        "a.service", "[Unit]\nAfter=x\n", "[Unit]\nAfter=y z\nDefaultDependencies=no\n"
    )
    assert unit.after == {"x", "y", "z"}
    assert not unit.default_dependencies


def test_a_ring_is_found_among_what_is_started_and_only_there() -> None:
    ring = units(
        "t.target: Wants=a.service; DefaultDependencies=no",
        "a.service: After=b.service; Wants=b.service",
        "b.service: After=c.service; Wants=c.service",
        "c.service: After=a.service",
        "d.service: After=e.service; Wants=e.service",
        "e.service: After=d.service",
    )
    found = find_cycle(ring, ["t.target"])
    assert sorted(found) == ["a.service", "b.service", "c.service"]
    for name, later in zip(found, [*found[1:], found[0]], strict=True):
        assert later in ring[name].after
    del ring["c.service"]
    assert find_cycle(ring, ["t.target"]) == []


def test_a_unit_comes_after_others_by_those_between() -> None:
    some = units("a.service: After=b.service", "b.service: ", "c.service: Before=b.service")
    assert comes_after(some, "a.service", "c.service")
    assert not comes_after(some, "c.service", "a.service")
