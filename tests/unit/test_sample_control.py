"""Debian's control fields as rpm's: the facts of the mapping."""

from __future__ import annotations

import pytest

from strata.core.errors import PackageError
from strata.sample.control import (
    conflicts,
    parse_changelog,
    parse_control,
    provisions,
    requirements,
    rpm_version,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("debian", "rpm"),
    [
        ("1:1.2.13.dfsg-1", "1:1.2.13.dfsg-1"),
        ("12.4+deb12u15", "12.4+deb12u15-0"),
        ("252.39-1~deb12u2", "252.39-1~deb12u2"),
        ("2.1-7-2.1.12-stable-8", "2.1_7_2.1.12_stable-8"),
    ],
)
def test_versions(debian: str, rpm: str) -> None:
    assert str(rpm_version(debian)) == rpm


def test_a_version_rpm_cannot_have_is_refused() -> None:
    with pytest.raises(PackageError, match="cannot be an RPM version"):
        rpm_version("1.0 beta-1")


@pytest.mark.parametrize(
    ("debian", "rpm"),
    [
        ("libc6 (>= 2.34), python3:any", ["libc6 >= 2.34", "python3"]),
        ("kmod | module-init-tools", ["(kmod or module-init-tools)"]),
        ("crun | runc (>= 1.0.0~rc92~)", ["(crun or runc >= 1.0.0~rc92~)"]),
        ("a (>> 2.36), b (>> 2.36-1), c (<< 3)", ["a >= 2.36", "b > 2.36-1", "c < 3"]),
        ("foo [amd64], foo", ["foo"]),
        ("", []),
    ],
)
def test_dependencies(debian: str, rpm: list[str]) -> None:
    assert requirements(debian) == rpm


def test_a_malformed_dependency_is_named() -> None:
    with pytest.raises(PackageError, match="'Foo Bar' is not a dependency"):
        requirements("Foo Bar")


CONTROL = """\
Package: exim
Version: 4.96-15
Architecture: amd64
Provides: mail-transport-agent, exim-mta (= 4.96-15)
Conflicts: mail-transport-agent, old-exim (<< 3)
Description: a mailer
 that mails
"""


def test_a_package_does_not_conflict_with_what_it_provides() -> None:
    control = parse_control(CONTROL)
    assert provisions(control["Provides"]) == ["mail-transport-agent", "exim-mta = 4.96-15"]
    assert conflicts(control) == ["old-exim < 3"]
    assert control["Description"] == "a mailer\nthat mails"


def test_a_control_file_without_a_version_is_refused() -> None:
    with pytest.raises(PackageError, match="has no Version field"):
        parse_control("Package: x\nArchitecture: all\n")


CHANGELOG = """\
bash (5.2-2) unstable; urgency=medium

  * Newer.

 -- A B <a@b.example>  Sat, 02 Jan 2021 10:00:00 +0000

bash (5.2-1) unstable; urgency=medium

  * Older.

 -- A B <a@b.example>  Fri, 01 Jan 2021 10:00:00 +0000
"""


def test_changelogs_are_read_newest_first_and_cut() -> None:
    entries = parse_changelog(CHANGELOG, 10)
    assert [entry.version for entry in entries] == ["5.2-2", "5.2-1"]
    assert entries[0].when == 1_609_581_600
    assert len(parse_changelog(CHANGELOG, 1)) == 1
    assert parse_changelog("no changelog at all", 3) == []
