"""OS versions `X.Y.YYYYMMDD-N` and their order (requirements R2.6 and R2.9).

N compares as a number: -10 is newer than -9, which a semver reader would get wrong.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass

_FORM = re.compile(r"(\d+)\.(\d+)\.(\d{8})-(\d+)(\.dev)?")


@dataclass(frozen=True, order=True)
class OSVersion:
    """A version of the OS layers: the OS minor, the day of the content, the build of that day."""

    major: int
    minor: int
    date: str
    build: int
    dev: bool = False

    def __str__(self) -> str:
        suffix = ".dev" if self.dev else ""
        return f"{self.major}.{self.minor}.{self.date}-{self.build}{suffix}"

    @staticmethod
    def parse(text: str) -> OSVersion:
        """Read `9.6.20250121-0`. Raises ValueError on another form or a date that is none."""
        match = _FORM.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a version X.Y.YYYYMMDD-N")
        major, minor, date, build, dev = match.groups()
        try:
            datetime.datetime.strptime(date, "%Y%m%d")
        except ValueError:
            raise ValueError(f"{date} in the version {text!r} is not a day") from None
        return OSVersion(int(major), int(minor), date, int(build), dev is not None)


def next_version(stream: str, date: str, earlier: Iterable[OSVersion]) -> OSVersion:
    """The version after `earlier` ones for stream "X.Y" on a day: N counts within the day."""
    major, minor = (int(part) for part in stream.split("."))
    same = [
        version.build
        for version in earlier
        if (version.major, version.minor, version.date) == (major, minor, date)
    ]
    return OSVersion(major, minor, date, max(same, default=-1) + 1)
