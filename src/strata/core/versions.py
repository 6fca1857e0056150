"""Versions of the OS in the schemes of all eras, and their order (requirements R2.6 to R2.9).

| scheme  | form                   | e.g.                    |                                  |
|---------|------------------------|-------------------------|----------------------------------|
| OS      | `X.Y.YYYYMMDD-N[.dev]` | `9.6.20250121-0`        | the OS's release: what is built  |
| Fedora  | `X.YYYYMMDD.Z.[dev]N`  | `39.20231101.3.0`       | Z is the stream's number         |
| product | `PQ.RS.YYYYMMDDHHMM-N` | `418.94.202410090804-0` | product 4.18 on the OS's 9.4     |

Each scheme has a total order of its own, in which N is a number: -10 is newer than -9. To semver
`-N` is a pre-release, older than the bare `X.Y.YYYYMMDD`, and 418 is newer than 9: do not ask it.
Across schemes only the OS's release and the day can be compared (`age`).

Sources: `versionary` of rhel-coreos-config and of fedora-coreos-config, and the release
controller's `reOcpCoreOsVersion`.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import ClassVar, Union

# A number has one spelling, so that a version has one.
_NUMBER = "(0|[1-9][0-9]{0,8})"
_OS = re.compile(rf"{_NUMBER}\.{_NUMBER}\.([0-9]{{8}})-{_NUMBER}(\.dev)?")
_FEDORA = re.compile(rf"([1-9][0-9]{{1,2}})\.([0-9]{{8}})\.{_NUMBER}\.(dev)?{_NUMBER}")
# The first digit is the major release, the others the minor one.
_RELEASE = "([1-9](?:0|[1-9][0-9]?)?)"
_PRODUCT = re.compile(rf"{_RELEASE}\.{_RELEASE}\.([0-9]{{12}})([.-]){_NUMBER}")
# The first product versions have a day alone; those of 4.1 and before say X.Y.Z in three digits.
_EARLY_PRODUCT = re.compile(rf"{_RELEASE}\.{_RELEASE}\.([0-9]{{8}})(\.){_NUMBER}")
_FIRST_PRODUCT = re.compile(rf"([1-9][0-9]{{2}})\.([78])\.([0-9]{{8}})(\.){_NUMBER}")

# Fedora CoreOS's streams by their number Z.
FEDORA_STREAMS = {
    1: "next",
    2: "testing",
    3: "stable",
    10: "next-devel",
    20: "testing-devel",
    91: "rawhide",
    92: "branched",
    93: "bodhi-updates-testing",
    94: "bodhi-updates",
}


@dataclass(frozen=True, order=True)
class OSVersion:
    """A version of the OS layers: the OS's release, the day of the content, the build of that day.

    CentOS Stream has no minor release: its versions say 0.
    """

    scheme: ClassVar[str] = "X.Y.YYYYMMDD-N"

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
        match = _OS.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a version {OSVersion.scheme}")
        major, minor, date, build, dev = match.groups()
        _check_time(text, date)
        return OSVersion(int(major), int(minor), date, int(build), dev is not None)


@dataclass(frozen=True, order=True)
class FedoraVersion:
    """A version of Fedora CoreOS. stream: the number of FEDORA_STREAMS; others are read too."""

    scheme: ClassVar[str] = "X.YYYYMMDD.Z.N"

    major: int
    date: str
    stream: int
    build: int
    dev: bool = False

    def __str__(self) -> str:
        return f"{self.major}.{self.date}.{self.stream}.{'dev' if self.dev else ''}{self.build}"

    @staticmethod
    def parse(text: str) -> FedoraVersion:
        """Read `39.20231101.3.0`. Raises ValueError on another form or a date that is none."""
        match = _FEDORA.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a version {FedoraVersion.scheme}")
        major, date, stream, dev, build = match.groups()
        _check_time(text, date)
        return FedoraVersion(int(major), date, int(stream), int(build), dev is not None)


@dataclass(frozen=True, order=True)
class ProductVersion:
    """A version of the time when an OS was built for one release of the product.

    product: (4, 18), or (4, 1, 0) of the first ones. os: (9, 4), or (9,) where the OS has no minor
    release. stamp: the minute in UTC as YYYYMMDDHHMM, or the day as YYYYMMDD. dotted: N stands
    after a dot, as until 4.4.
    """

    scheme: ClassVar[str] = "PQ.RS.YYYYMMDDHHMM-N"

    product: tuple[int, ...]
    os: tuple[int, ...]
    stamp: str
    build: int
    dotted: bool = False

    @property
    def date(self) -> str:
        """The day, YYYYMMDD."""
        return self.stamp[:8]

    def __str__(self) -> str:
        product, system = ("".join(map(str, numbers)) for numbers in (self.product, self.os))
        return f"{product}.{system}.{self.stamp}{'.' if self.dotted else '-'}{self.build}"

    @staticmethod
    def parse(text: str) -> ProductVersion:
        """Read `418.94.202410090804-0`, and older forms: `43.81.202001142154.0`,
        `42.80.20191002.0`, `410.8.20190520.0` (of 4.1.0).

        Raises ValueError on another form or a time that is none.
        """
        first = _FIRST_PRODUCT.fullmatch(text)
        match = first or _PRODUCT.fullmatch(text) or _EARLY_PRODUCT.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a version {ProductVersion.scheme}")
        product, system, stamp, separator, build = match.groups()
        _check_time(text, stamp)
        return ProductVersion(
            tuple(map(int, product)) if first else _split(product),
            _split(system),
            stamp,
            int(build),
            separator == ".",
        )


Version = Union[OSVersion, FedoraVersion, ProductVersion]
_FORMS = (
    (OSVersion, (_OS,)),
    (FedoraVersion, (_FEDORA,)),
    (ProductVersion, (_PRODUCT, _EARLY_PRODUCT, _FIRST_PRODUCT)),
)


def parse_any(text: str) -> Version:
    """Read a version of any scheme; no text is one of two. Raises ValueError saying why not."""
    for scheme, forms in _FORMS:
        if any(form.fullmatch(text) for form in forms):
            return scheme.parse(text)
    known = ", ".join(scheme.scheme for scheme, _ in _FORMS)
    raise ValueError(f"{text!r} is no version of any scheme: {known}")


def age(version: Version) -> tuple[int, int, str]:
    """(OS major, OS minor, day): the order of versions of different schemes, and no more than that.

    Two of one age are of one OS release and day, and neither is newer. Raises ValueError where a
    version does not say its OS release: Fedora's, and those of an OS without a minor one.
    """
    if isinstance(version, OSVersion):
        return version.major, version.minor, version.date
    if isinstance(version, ProductVersion) and len(version.os) == 2:
        return version.os[0], version.os[1], version.date
    missing = "is Fedora's" if isinstance(version, FedoraVersion) else "names no minor OS release"
    raise ValueError(f"{version} {missing}: it has no order among versions of other schemes")


def next_version(stream: str, date: str, earlier: str = "", *, dev: bool = False) -> OSVersion:
    """The version of a new build of stream "X.Y" with the content of a day (YYYYMMDD).

    dev: it is a developer's, and no release. earlier: the version of the build before. N goes on
    from it when X, Y and the day are the same; after another day, and after a version of another
    scheme or none, it is 0.
    """
    major, minor = (int(part) for part in stream.split("."))
    build = 0
    try:
        before = OSVersion.parse(earlier)
    except ValueError:
        pass  # its N counted something else
    else:
        if (before.major, before.minor, before.date) == (major, minor, date):
            build = before.build + 1
    return OSVersion(major, minor, date, build, dev)


def _split(digits: str) -> tuple[int, ...]:
    """(4, 18) of "418", (8,) of "8"."""
    return (int(digits[0]), int(digits[1:])) if digits[1:] else (int(digits),)


def _check_time(text: str, stamp: str) -> None:
    try:
        datetime.datetime.strptime(stamp, "%Y%m%d%H%M" if len(stamp) == 12 else "%Y%m%d")
    except ValueError:
        what = "time" if len(stamp) == 12 else "day"
        raise ValueError(f"{stamp} in the version {text!r} is not a {what}") from None
