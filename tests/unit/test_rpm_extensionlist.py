"""extensions.json: written from packages, read from anyone."""

from __future__ import annotations

import json

import pytest

from strata.core.errors import PackageError
from strata.rpm.extensionlist import read_extension_list, write_extension_list
from strata.rpm.nevra import NEVRA

pytestmark = pytest.mark.unit


def test_r4_5_an_epoch_is_written_when_it_is_not_zero() -> None:
    packages = [
        NEVRA("qemu-kvm-core", 15, "6.2.0", "11.module+el8.6.0", "x86_64"),
        NEVRA("bison", 0, "3.7.4", "5.el9", "noarch"),
    ]
    data = write_extension_list(packages)
    assert json.loads(data) == {
        "bison": "3.7.4-5.el9.noarch",
        "qemu-kvm-core": "15:6.2.0-11.module+el8.6.0.x86_64",
    }
    assert read_extension_list(data) == (tuple(sorted(packages)), ())


def test_r4_5_what_is_malformed_is_skipped_and_told() -> None:
    rows = {
        "good": "1.2-3.x86_64",
        "NetworkManager-libreswan": "1.2.24-1.el9.x86_64",
        "only-a-version": "6.2.0",
        "no-arch": "6-1",
        "bad-epoch": "x:1-1.noarch",
        "empty": "",
        "number": 7,
        "nothing": None,
        "dash": "1-2-3.noarch",
        "": "1-1.noarch",
    }
    found, problems = read_extension_list(json.dumps(rows).encode())
    assert [str(nevra) for nevra in found] == [
        "NetworkManager-libreswan-1.2.24-1.el9.x86_64",
        "good-1.2-3.x86_64",
    ]
    assert len(problems) == len(rows) - 2
    assert "only-a-version: '6.2.0' is not [EPOCH:]VERSION-RELEASE.ARCH" in problems


def test_r4_6_two_builds_of_a_name_are_not_written_and_are_told_when_read() -> None:
    one, two = NEVRA("kernel", 0, "5.14", "1", "x86_64"), NEVRA("kernel", 0, "5.14", "2", "x86_64")
    with pytest.raises(PackageError) as caught:
        write_extension_list([two, one])
    assert caught.value.message == (
        "kernel-5.14-1.x86_64 and kernel-5.14-2.x86_64 cannot both be among the extensions"
    )
    # Others write such a map key by key: both are kept.
    data = b'{"kernel": "5.14-1.x86_64", "kernel": "5.14-2.x86_64"}'
    assert read_extension_list(data) == ((one, two), ("kernel is there twice",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "extensions.json is not JSON"),
        (b"[]", "extensions.json is not a JSON object"),
        (b"\xff", "extensions.json is not JSON"),
        (b"[" * 100_000, "extensions.json is not JSON"),
    ],
)
def test_what_is_no_map_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        read_extension_list(data)
