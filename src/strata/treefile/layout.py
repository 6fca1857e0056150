"""How a treefile wants a tree laid out, with rpm-ostree's defaults by edition.

Pure: what it says is done by `compose.normalise` and its neighbours.
Source: rpm-ostree's docs/treefile.md and rust/src/treefile.rs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VAR, ROOT, STATE_OVERLAY = "var", "root", "state-overlay"
_EDITIONS = {"2014": False, "2024": True}
EDITIONS = tuple(_EDITIONS)


@dataclass(frozen=True)
class Layout:
    """The shape of a tree.

    tmp_is_dir: /tmp is a folder, else a link to /sysroot/tmp. machine_id: an empty /etc/machine-id
    is shipped, so that systemd sees no first boot. opt_usrlocal: VAR (links into /var), ROOT
    (folders of the tree) or STATE_OVERLAY. readonly_executables: they lose the write permission.
    ignore_devices: device nodes are left out, else they are an error. ostree_boot: the kernel is in
    /usr/lib/ostree-boot, too.
    """

    tmp_is_dir: bool = True
    machine_id: bool = False
    opt_usrlocal: str = VAR
    readonly_executables: bool = False
    ignore_devices: bool = True
    ostree_boot: bool = False


def layout_of(fields: Mapping[str, object]) -> Layout:
    """The layout that a treefile's merged fields ask for."""
    modern = _EDITIONS.get(str(fields.get("edition", "2014")), False)
    return Layout(
        tmp_is_dir=bool(fields.get("tmp-is-dir", modern)),
        machine_id=fields.get("machineid-compat") is not False,
        opt_usrlocal=str(fields.get("opt-usrlocal", VAR)).replace("stateoverlay", STATE_OVERLAY),
        readonly_executables=fields.get("readonly-executables") is True,
        ignore_devices=fields.get("ignore-devices") is not False,
        ostree_boot=fields.get("boot-location") == "new",
    )
