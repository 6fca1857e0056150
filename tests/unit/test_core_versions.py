"""Versions of all eras: what they say, what is none, and which order they have (R2.6 to R2.9)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from strata.core.versions import (
    FEDORA_STREAMS,
    FedoraVersion,
    OSVersion,
    ProductVersion,
    age,
    next_version,
    parse_any,
)

pytestmark = pytest.mark.unit

# Of stream metadata, payloads, build metadata and machines, oldest content first.
REAL: dict[str, object] = {
    "400.7.20190306.0": ProductVersion((4, 0, 0), (7,), "20190306", 0, True),
    "410.8.20190418.1": ProductVersion((4, 1, 0), (8,), "20190418", 1, True),
    "42.80.20191002.0": ProductVersion((4, 2), (8, 0), "20191002", 0, True),
    "43.81.202001142154.0": ProductVersion((4, 3), (8, 1), "202001142154", 0, True),
    "48.84.202104271417-0": ProductVersion((4, 8), (8, 4), "202104271417", 0),
    "47.83.202107261211-0": ProductVersion((4, 7), (8, 3), "202107261211", 0),
    "410.84.202110140201-0": ProductVersion((4, 10), (8, 4), "202110140201", 0),
    "410.84.202110141117-0": ProductVersion((4, 10), (8, 4), "202110141117", 0),
    "413.9.202302280609-0": ProductVersion((4, 13), (9,), "202302280609", 0),
    "414.92.202305090606-0": ProductVersion((4, 14), (9, 2), "202305090606", 0),
    "39.20231101.3.0": FedoraVersion(39, "20231101", 3, 0),
    "416.94.202405291527-0": ProductVersion((4, 16), (9, 4), "202405291527", 0),
    "418.94.202410090804-0": ProductVersion((4, 18), (9, 4), "202410090804", 0),
    "9.6.20250121-0": OSVersion(9, 6, "20250121", 0),
    "9.0.20250510-0": OSVersion(9, 0, "20250510", 0),
    "9.6.20251212-1": OSVersion(9, 6, "20251212", 1),
    "10.2.20260405-0": OSVersion(10, 2, "20260405", 0),
    "9.8.20260817-0": OSVersion(9, 8, "20260817", 0),
    "9.8.20260817-1.dev": OSVersion(9, 8, "20260817", 1, dev=True),
    "44.20260817.91.dev2": FedoraVersion(44, "20260817", 91, 2, dev=True),
}


@pytest.mark.parametrize("text", REAL)
def test_r2_6_r2_7_r2_8_versions_of_all_eras_are_read_and_written_as_they_were(text: str) -> None:
    version = parse_any(text)
    assert version == REAL[text]
    assert str(version) == text
    assert type(version).parse(text) == version


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("9.6.20250101", "is no version of any scheme: X.Y.YYYYMMDD-N, X.YYYYMMDD.Z.N, PQ.RS"),
        ("9.6-0", "is no version of any scheme"),
        ("9.6.20250101-x", "is no version of any scheme"),
        ("9.6.20250101-0\n", "is no version of any scheme"),
        ("9.6.20250101-01", "is no version of any scheme"),  # would be -1 under another name
        ("٩.6.20250101-0", "is no version of any scheme"),
        (f"9.6.20250101-{'9' * 5000}", "is no version of any scheme"),
        ("9.6.20251301-0", "20251301 in the version '9.6.20251301-0' is not a day"),
        ("39.20230229.3.0", "20230229 in the version '39.20230229.3.0' is not a day"),
        ("418.94.202410092460-0", "202410092460 in the version .* is not a time"),
        ("4.18.2025031114", "is no version of any scheme"),  # a marketplace's
        ("419.6.20250523", "is no version of any scheme"),
        ("", "is no version of any scheme"),
    ],
)
def test_what_is_no_version_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_any(text)


@pytest.mark.parametrize("scheme", [OSVersion, FedoraVersion, ProductVersion])
def test_a_scheme_reads_no_other(scheme: type[OSVersion]) -> None:
    others = [text for text, version in REAL.items() if not isinstance(version, scheme)]
    for text in others:
        with pytest.raises(ValueError, match=f"is not a version {scheme.scheme}"):
            scheme.parse(text)


def test_r2_7_a_fedora_version_says_its_stream() -> None:
    names = {"next": 1, "testing": 2, "stable": 3, "next-devel": 10, "testing-devel": 20}
    more = {"rawhide": 91, "branched": 92, "bodhi-updates-testing": 93, "bodhi-updates": 94}
    assert {number: name for name, number in {**names, **more}.items()} == FEDORA_STREAMS
    assert FEDORA_STREAMS[FedoraVersion.parse("39.20231101.3.0").stream] == "stable"


def test_r2_9_n_counts_as_a_number() -> None:
    # As texts -10 sorts before -9.
    for text in ("9.6.20250101-{}", "418.94.202410090804-{}", "39.20231101.3.{}"):
        versions = [parse_any(text.format(number)) for number in (0, 1, 9, 10, 11, 100)]
        assert all(older < newer for older, newer in pairwise(versions))  # type: ignore[operator]
    assert OSVersion.parse("10.2.20260405-0") > OSVersion.parse("9.8.20260817-3")


def test_r2_8_across_schemes_the_os_release_and_the_day_decide() -> None:
    # By semver 418 would be newer than 9.
    ordered = [
        "48.84.202104271417-0",
        "410.84.202110141117-0",
        "414.92.202305090606-0",
        "418.94.202410090804-0",
        "9.4.20241010-0",
        "418.96.202501010000-0",
        "9.6.20250121-0",
        "10.2.20240101-0",
    ]
    assert sorted(ordered, key=lambda text: age(parse_any(text))) == ordered
    # One OS release and one day: neither is newer.
    assert age(parse_any("418.94.202410090804-0")) == age(parse_any("9.4.20241009-7"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("39.20231101.3.0", "39.20231101.3.0 is Fedora's: it has no order among versions of other"),
        ("413.9.202302280609-0", "413.9.202302280609-0 names no minor OS release"),
    ],
)
def test_r2_8_a_version_without_an_os_release_has_no_order_across_schemes(
    text: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        age(parse_any(text))


@pytest.mark.parametrize(
    ("earlier", "build"),
    [
        ("12.9.20260711-3", 4),
        ("12.9.20260711-3.dev", 4),
        ("12.9.20260710-3", 0),
        ("12.8.20260711-7", 0),
        ("412.9.202607110000-3", 0),
        ("nonsense", 0),
        ("", 0),
    ],
)
def test_r2_6_n_goes_on_within_the_day_alone(earlier: str, build: int) -> None:
    assert next_version("12.9", "20260711", earlier) == OSVersion(12, 9, "20260711", build)
    dev = next_version("12.9", "20260711", earlier, dev=True)
    assert str(dev) == f"12.9.20260711-{build}.dev"
