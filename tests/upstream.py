"""The tree that ostree-ext's own tests use, built from its definition, object by object.

Source: bootc-dev/bootc crates/ostree-ext/src/fixture.rs (Apache-2.0 OR MIT), CONTENTS_V0. Files are
root's whatever the `m` lines say (only links take their owner), folders 0755, each labelled by its
path; a folder that is made on the way to a file gets the label of that file's folder.
"""

from __future__ import annotations

import re

from strata.container.encapsulate import ComponentMap
from strata.container.packing import ALWAYS, Component
from strata.ostree.gvariant import Variant, pack_array, pack_string
from strata.ostree.objects import (
    S_IFDIR,
    S_IFLNK,
    S_IFREG,
    Checksum,
    DirMeta,
    FileHeader,
    Xattrs,
)
from strata.ostree.scan import commit_tree
from strata.ostree.tree import Tree
from strata.ostree.writer import Writer

CONTENT_CHECKSUM = "bd3d13c3059e63e6f8a3d6d046923ded730d90bd7a055c9ad93312111ea7d395"
TIMESTAMP = 872879442
ARPING = "usr/bin/arping"
_CAPABILITY = (b"security.capability", b"0sAAAAAgAgAAAAAAAAAAAAAAAAAAA=")
_LABELS = {"usr": b"usr_t", "boot": b"boot_t"}
_KERNEL = "usr/lib/modules/5.10.18-200.x86_64"
# path, mode (0 for a link, -1 for a folder), owner of a link, content or target
_ENTRIES = (
    (f"{_KERNEL}/vmlinuz", 0o644, "this-is-a-kernel"),
    (f"{_KERNEL}/initramfs", 0o644, "this-is-an-initramfs"),
    ("usr/bin/bash", 0o755, "the-bash-shell"),
    ("usr/bin/sh", 0, "bash"),
    (ARPING, 0o755, "arping-binary"),
    ("usr/lib/emptyfile", 0o644, ""),
    ("usr/lib64/emptyfile2", 0o644, ""),
    ("usr/bin/hardlink-a", 0o644, "testlink"),
    ("usr/bin/hardlink-b", 0o644, "testlink"),
    ("usr/etc/someconfig.conf", 0o644, "someconfig"),
    ("usr/etc/polkit.conf", 0o644, "a-polkit-config"),
    ("usr/lib/sysimage/pkgdb", 0o644, "some-package-database"),
    ("usr/lib/pkgdb/pkgdb", 0o644, "some-package-database"),
    ("boot", -1, ""),
    ("run", -1, ""),
    ("opt", 0, "var/opt"),
    ("tmp", -1, ""),
)
_OWNERS = (
    ("usr/lib/modules/.*/initramfs", "initramfs"),
    ("usr/lib/modules", "kernel"),
    ("usr/bin/(ba)?sh", "bash"),
    ("usr/bin/arping", "arping"),
    ("usr/lib.*/emptyfile.*", "bash"),
    ("usr/bin/hardlink.*", "testlink"),
    ("usr/etc/someconfig.conf", "someconfig"),
    ("usr/etc/polkit.conf", "a-polkit-config"),
    ("opt", "filesystem"),
    ("usr/lib/pkgdb", "pkgdb"),
    ("usr/lib/sysimage/pkgdb", "pkgdb"),
)


def build(writer: Writer) -> tuple[Checksum, Tree]:
    """Write the tree and its commit; returns the commit and the tree."""
    root = Tree(_meta("usr/lib"))  # the folder of the first file to be written
    for path, mode, text in _ENTRIES:
        folder, _, name = path.rpartition("/")
        where = root
        for part in folder.split("/") if folder else ():
            where = where.dirs.setdefault(part, Tree(_meta(folder)))
        if mode < 0:
            where.dirs[name] = Tree(_meta(path))
            continue
        xattrs = _label(path)
        if path == ARPING:
            xattrs = (_CAPABILITY, *xattrs)
        if mode:
            header = FileHeader(0, 0, S_IFREG | mode, "", xattrs)
            where.files[name] = writer.content(header, text.encode())
        else:
            header = FileHeader(0, 0, S_IFLNK | 0o777, text, xattrs)
            where.files[name] = writer.content(header, None)
    metadata = {
        "buildsys.checksum": Variant.text(
            "41af286dc0b172ed2f1ca934fd2278de4a1192302ffa07087cea2682e7d372e3"
        ),
        "ostree.container-cmd": Variant("as", pack_array([pack_string("/usr/bin/bash")])),
        "version": Variant.text("42.0"),
        "ostree.bootable": Variant.flag(True),
    }
    return commit_tree(writer, root, timestamp=TIMESTAMP, metadata=metadata), root


def components() -> ComponentMap:
    """The owners upstream's tests give the files: each changes with every build."""
    names = {name for _, name in _OWNERS}
    return ComponentMap(
        {name: Component(name, name, name, ALWAYS, 0) for name in names},
        lambda path, checksum: next(o for p, o in _OWNERS if re.search(p, path)),
    )


def _meta(path: str) -> DirMeta:
    return DirMeta(0, 0, S_IFDIR | 0o755, _label(path))


def _label(path: str) -> Xattrs:
    top = path.split("/")[0]
    name = b"systemd_unit_file_t" if top == "usr" and "systemd" in path else _LABELS.get(top)
    return ((b"security.selinux", b"system_u:object_r:%s:s0" % (name or b"usr_t")),)
