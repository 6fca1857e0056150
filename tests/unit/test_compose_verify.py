"""Likely causes of a difference between two builds, and what two processes tell each other."""

from __future__ import annotations

import datetime
import io
import json

import pytest

from strata.compose.verify import (
    IMAGE,
    UNKNOWN,
    Changed,
    Conditions,
    Finding,
    Verification,
    describe,
    likely_cause,
)
from strata.core.clock import AHEAD_HOURS, fake_clock, today
from strata.core.errors import DigestError, StrataError, error_of
from strata.core.events import Progress, Reporter, StepBegin, StepEnd, event_of, json_lines

pytestmark = pytest.mark.unit

FIRST = Conditions(8, "", "", "/srv/store/work")
SECOND = Conditions(4, "Asia/Kathmandu", "tr_TR.UTF-8", "/srv/store/work/again.abc")


def cause(path: str, old: str = "", new: str = "", *what: str) -> str:
    changed = Changed(path, what or ("content",), old.encode(), new.encode())
    return likely_cause(changed, FIRST, SECOND)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/lib/sysimage/rpm/rpmdb.sqlite-wal", "the package database's journal"),
        ("/usr/lib/sysimage/rpm/rpmdb.sqlite-shm", "the package database's journal"),
        ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "the package database: times"),
        ("/usr/lib/sysimage/libdnf5/history.sqlite", "dnf's history"),
        ("/var/lib/dnf/history.sqlite", "dnf's history"),
        ("/var/log/dnf.log", "a log"),
        ("/usr/share/doc/build.log", "a log"),
        ("/var/cache/ldconfig/aux-cache", "ldconfig's cache"),
        ("/usr/lib/fontconfig/cache/1-le64.cache-8", "fontconfig's cache"),
        ("/var/cache/man/index.db", "a cache"),
        ("/usr/lib/python3/__pycache__/os.cpython-311.pyc", "compiled Python"),
        ("/usr/lib/modules/6.1.0-1/initramfs.img", "the initramfs"),
        ("/usr/etc/ssh/ssh_host_ed25519_key", "a host key"),
        ("/usr/etc/machine-id", "the machine's id"),
        ("/var/lib/systemd/random-seed", "a random seed"),
        ("/usr/etc/shadow", "users made by a tool that writes the day"),
    ],
)
def test_a_cause_by_name(path: str, expected: str) -> None:
    assert cause(path, "some\nthing", "other\nbytes").startswith(expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Wed Nov 25 01:43:02 UTC 2026", "Mon Dec 28 08:43:02 UTC 2026", "the time"),
        ("built=2026-11-25", "built=2026-12-28", "the time"),
        ("1795570000", "1798450000", "the time"),
        ("a\nb\nc\n", "c\na\nb\n", "the order"),
        ("a b c", "b c a", "the order"),
        ("jobs: 8", "jobs: 4", "the number of CPUs"),
        ("-j8 -O2", "-j4 -O2", "the number of CPUs"),
        ("seed 182736", "seed 92837", "a random number"),
        ("built 201912311234567", "built 21729384717201", "a random number"),
        ("id=6f1ed002ab5595859014ebf0951522d9", "id=" + "ab" * 16, "a random number"),
        ("in /srv/store/work/bootc.x/root", "in /srv/store/work/again.abc/bootc", "the folder"),
        ("UTC", "Asia/Kathmandu", "the time zone"),
        ("C.UTF-8", "tr_TR.UTF-8", "the locale"),
        ("PATH=/usr/bin", "FAKETIME=+1h\nPATH=/usr/bin", "the whole environment"),
        ("left", "right", UNKNOWN),
        ("one", "one two", UNKNOWN),
        ("\0\1\2", "\0\1\3", UNKNOWN),
        ("", "all of it is new", UNKNOWN),
    ],
)
def test_a_cause_by_text(old: str, new: str, expected: str) -> None:
    assert cause("/usr/share/thing", old, new).startswith(expected)


def test_a_cause_by_what_differs() -> None:
    assert cause("/usr/bin/x", "", "", "mode 0644 → 0600").startswith("set by a number")
    assert cause(IMAGE, "", "", "layer 3").startswith("times, labels")
    before, after = (
        'VERSION="1.20261125"\nBUILT=2026-11-25',
        'VERSION="1.20261125"\nBUILT=2026-12-28',
    )
    assert cause("/usr/lib/os-release", before, after).startswith("os-release: the time")
    header = b"\x1f\x8b\x08\x08%s\0\3text"
    zipped = Changed("/usr/share/a.gz", ("content",), header % b"1111", header % b"2222")
    assert likely_cause(zipped, FIRST, SECOND).startswith("the time in a gzip header")
    other = Changed("/usr/share/a.gz", ("content",), header % b"1111", header % b"2222" + b"!")
    assert likely_cause(other, FIRST, SECOND) == UNKNOWN


def test_findings_for_people_are_few_and_those_with_a_cause_first() -> None:
    found = [Finding(f"/a{number}", "content", UNKNOWN) for number in range(11)]
    found.append(Finding("/z", "content", "a log"))
    lines = describe(found).splitlines()
    assert lines[0] == "/z: content, likely a log"
    assert lines[1] == "/a0: content"
    assert lines[-1] == "and 2 more (--json lists them)"
    assert len(lines) == 11


def test_the_output_that_differs_first_is_named() -> None:
    same = {"commit": "a", "manifest": "b"}
    assert Verification((), same, dict(same), ()).differing == ""
    assert Verification((), same, {"commit": "a", "manifest": "c"}, ()).differing == "manifest"


def test_events_and_errors_travel_between_processes() -> None:
    stream = io.StringIO()
    reporter = Reporter(json_lines(stream))
    with reporter.step("a step") as step:
        step.progress(1, 2, "files")
        step.detail("well")
    told = [event_of(line) for line in stream.getvalue().splitlines()]
    assert [type(event) for event in told] == [StepBegin, Progress, StepEnd]
    assert told[0] == StepBegin(1, 0, "a step")
    for line in ("no JSON", "[]", "3", '{"event": "Nothing"}', "{}"):
        assert event_of(line) is None
    error = DigestError("it differs", hint="look", context={"verified": {"equal": False}, "n": 3})
    back = error_of(json.loads(json.dumps(error.to_json())))
    assert type(back) is DigestError
    assert (back.message, back.hint) == ("it differs", "look")
    assert back.context == {"verified": {"equal": False}, "n": "3"}
    assert type(error_of({**StrataError("x").to_json(), "code": "of later"})) is StrataError


def test_what_ends_on_a_day_ends_by_the_first_builds_clock() -> None:
    before = today({})
    ahead = today({AHEAD_HOURS: "48"})
    assert ahead + datetime.timedelta(days=2) in (before, today({}))


def test_a_clock_goes_along_only_when_it_is_faked() -> None:
    assert fake_clock({}) == {}
    assert fake_clock({"FAKETIME": "+1h"}) == {}  # no library is loaded here
