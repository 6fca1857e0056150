"""A kernel that the node layer replaces: exactly one stays, with an initramfs of its own (R3.14).

The base's kernel is the rule; another one is content ahead of the base, named in an override or by
hand. The base's initramfs is of its own kernel and goes with it.
"""

from __future__ import annotations

from pathlib import Path

from strata.compose.initramfs import build_initramfs
from strata.compose.normalise import find_kernel, kernels, move_kernel
from strata.compose.treelayout import settle_boot
from strata.core import rooted
from strata.core.events import Reporter
from strata.rpm.inventory import read_inventory
from strata.treefile.layout import Layout


def settle_kernel(
    root: Path, before: list[str], *, source_date_epoch: int, reporter: Reporter
) -> str:
    """See to it that a node's tree has one kernel; returns its version when it is another one than
    the base's, else empty.

    before: the base's. Raises DefinitionError when several are left, or none.
    """
    move_kernel(root)
    if kernels(root) == before:
        return ""
    owned = read_inventory(root).file_owners()
    for version in kernels(root):
        # Of a kernel whose package went, what was made for it beside is left: it is nobody's.
        if f"/usr/lib/modules/{version}/vmlinuz" not in owned and (
            f"/boot/vmlinuz-{version}" not in owned
            and f"/lib/modules/{version}/vmlinuz" not in owned
        ):
            rooted.remove(root, f"usr/lib/modules/{version}")
    kernel = find_kernel(root)
    with reporter.step(
        f"build the initramfs of {kernel}, in the place of {', '.join(before)}"
    ) as step:
        size = build_initramfs(root, kernel, source_date_epoch=source_date_epoch)
        step.progress(size, size)
    settle_boot(root, kernel, Layout())
    return kernel
