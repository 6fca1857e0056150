"""Laws of versions: what is written is read back, one scheme reads it, its order is total."""

from __future__ import annotations

import contextlib
import datetime
from functools import cmp_to_key
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.versions import (
    FedoraVersion,
    OSVersion,
    ProductVersion,
    Version,
    age,
    next_version,
    parse_any,
)

pytestmark = pytest.mark.property

numbers = st.integers(0, 99) | st.integers(0, 999_999_999)
times = st.datetimes(datetime.datetime(1000, 1, 1))
days = times.map(lambda time: time.strftime("%Y%m%d"))
minutes = times.map(lambda time: time.strftime("%Y%m%d%H%M"))
releases = st.tuples(st.integers(1, 9), st.integers(0, 99))
os_versions = st.builds(OSVersion, numbers, numbers, days, numbers, st.booleans())
fedora_versions = st.builds(
    FedoraVersion, st.integers(10, 999), days, st.integers(0, 100), numbers, st.booleans()
)
product_versions = (
    st.builds(
        ProductVersion,
        releases,
        releases | st.integers(1, 9).map(lambda major: (major,)),
        minutes,
        numbers,
        st.booleans(),
    )
    | st.builds(ProductVersion, releases, releases, days, numbers, st.just(True))
    | st.builds(
        ProductVersion,
        st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)),
        st.sampled_from([(7,), (8,)]),
        days,
        numbers,
        st.just(True),
    )
)
versions = os_versions | fedora_versions | product_versions


@given(versions)
def test_a_version_is_read_back_as_it_was_written(version: Version) -> None:
    assert parse_any(str(version)) == version


@given(versions)
def test_no_text_is_of_two_schemes(version: Version) -> None:
    read = []
    for scheme in (OSVersion, FedoraVersion, ProductVersion):
        with contextlib.suppress(ValueError):
            read.append(scheme.parse(str(version)))
    assert read == [version]


@given(st.text(alphabet="0123456789.-dev", max_size=30) | st.text(max_size=40))
def test_any_text_is_a_version_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert str(parse_any(text)) == text


@given(st.one_of(*(st.lists(of, max_size=8) for of in (os_versions, fedora_versions))))
def test_r2_9_the_order_within_a_scheme_is_total_and_of_numbers(found: list[OSVersion]) -> None:
    def fields(version: OSVersion | FedoraVersion) -> tuple[int, ...]:
        return tuple(map(int, vars(version).values()))

    def compare(one: OSVersion, other: OSVersion) -> int:
        assert (one < other) + (one == other) + (one > other) == 1
        return (one > other) - (one < other)

    ordered = sorted(found, key=cmp_to_key(compare))
    assert ordered == sorted(found, key=fields)
    assert all(older <= newer for older, newer in pairwise(ordered))


@given(product_versions, product_versions)
def test_r2_8_the_order_of_product_versions_is_total(
    one: ProductVersion, other: ProductVersion
) -> None:
    assert (one < other) + (one == other) + (one > other) == 1
    if (one.product, one.os, one.stamp) == (other.product, other.os, other.stamp):
        assert one.build == other.build or (one < other) == (one.build < other.build)


@given(os_versions, product_versions)
def test_r2_8_across_schemes_the_day_decides_within_an_os_release(
    one: OSVersion, other: ProductVersion
) -> None:
    if (one.major, one.minor) == other.os:
        assert (age(one) < age(other)) == (one.date < other.date)
    elif len(other.os) == 2:
        assert (age(one) < age(other)) == ((one.major, one.minor) < other.os)


@given(os_versions, days)
def test_r2_6_the_next_version_of_a_day_is_newer_and_the_first_of_another_is_0(
    earlier: OSVersion, day: str
) -> None:
    stream = f"{earlier.major}.{earlier.minor}"
    following = next_version(stream, earlier.date, str(earlier))
    assert following > earlier
    assert following.build == earlier.build + 1
    if day != earlier.date:
        assert next_version(stream, day, str(earlier)).build == 0
