"""Which component a file of a base belongs to."""

from __future__ import annotations

import pytest

from strata.compose.components import RPMDB, UNPACKAGED, component_map
from strata.ostree.objects import Checksum
from strata.rpm.inventory import Inventory, Package
from strata.rpm.nevra import NEVRA

pytestmark = pytest.mark.unit

KERNEL = "5.14.0-1.el9.x86_64"
MODULES = f"/usr/lib/modules/{KERNEL}"
NONE = Checksum("0" * 64)


def package(name: str, *files: str) -> Package:
    return Package(NEVRA(name, 0, "1", "1", "x86_64"), f"{name}-1-1.src.rpm", 0, 0, (), files)


INVENTORY = Inventory(
    (
        package("kernel-core", f"/lib/modules/{KERNEL}/vmlinuz", "/boot/config"),
        package("kernel-modules", *(f"/lib/modules/{KERNEL}/kernel/{n}.ko" for n in range(9))),
        package("tool", "/bin/tool", "/etc/tool.conf"),
    )
)


@pytest.mark.parametrize(
    ("path", "owner", "upstream"),
    [
        ("/usr/bin/tool", "tool-1-1.x86_64", None),
        ("/usr/etc/tool.conf", "tool-1-1.x86_64", None),
        ("/usr/etc/ld.so.cache", UNPACKAGED, None),
        ("/usr/lib/sysimage/rpm/rpmdb.sqlite", RPMDB, None),
        (f"{MODULES}/vmlinuz", "kernel-core-1-1.x86_64", None),
        (f"{MODULES}/kernel/3.ko", "kernel-modules-1-1.x86_64", None),
        (f"{MODULES}/initramfs.img", f"initramfs (kernel {KERNEL})", None),
        # What depmod wrote goes with the package most of whose files are there.
        (f"{MODULES}/modules.dep", "kernel-modules-1-1.x86_64", UNPACKAGED),
        ("/usr/lib/modules/other/modules.dep", UNPACKAGED, None),
    ],
)
def test_files_belong_to_packages(path: str, owner: str, upstream: str | None) -> None:
    assert component_map(INVENTORY, KERNEL).owner(path, NONE) == owner
    as_upstream = component_map(INVENTORY, KERNEL, as_upstream=True)
    assert as_upstream.owner(path, NONE) == (upstream or owner)


def test_a_system_without_a_kernel_has_no_kernels_files() -> None:
    found = component_map(INVENTORY, "")
    assert found.owner("/usr/lib/modules/x/modules.dep", NONE) == UNPACKAGED
    assert found.owner(f"{MODULES}/vmlinuz", NONE) == "kernel-core-1-1.x86_64"
