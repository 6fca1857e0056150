"""What a virtual machine gets to overlay a node image: an installer's files by Ignition, and the
image itself on a disk of its own, so that no registry is needed.
"""

from __future__ import annotations

import os
from pathlib import Path

from strata.bootimage.ignition import Config
from strata.bootimage.ignition.bootstrap import Bootstrap, bootstrap_config
from strata.compose.workspace import Workspace
from strata.core.files import scratch_dir
from strata.core.process import run
from strata.machine.installer import agent_file, installation_files
from strata.machine.session import STORE_INSIDE, Images
from strata.node.units import Installation
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import Manifest

_MOUNT = r"run-strata\x2dstore.mount"
# The second disk: QEMU gives it this serial number.
_MOUNT_UNIT = f"""\
[Unit]
Description=The node image's disk
DefaultDependencies=no
Before=local-fs.target

[Mount]
What=/dev/disk/by-id/virtio-strata2
Where={STORE_INSIDE}
Type=squashfs
Options=ro

[Install]
WantedBy=local-fs.target
"""


def node_config(images: Images, marker: str) -> Config:
    """The Ignition config of a machine that overlays a node image from its second disk."""
    installation = installation_files(Installation(marker=marker))
    wanted = Bootstrap({"image": images.node_reference}, installation, agent_file())
    return Config(units=[(_MOUNT, _MOUNT_UNIT)], merge=[bootstrap_config(wanted)])


def write_store_disk(workspace: Workspace, node: Digest, disk: Path) -> Path:
    """A disk with the node image as an OCI layout. Raises ToolFailedError, ImageError."""
    source = workspace.layout
    wanted = source.resolve(digest=node)
    manifest = Manifest.parse(source.read(wanted))
    with scratch_dir(disk.parent, "layout") as folder:
        layout = Layout.create(folder)
        for digest in (wanted.digest, manifest.config.digest, *(x.digest for x in manifest.layers)):
            if not layout.has(digest):
                os.link(source.blob_path(digest), layout.blob_path(digest))
        layout.tag("node", wanted)
        plain = ("-noI", "-noD", "-noF", "-noX")
        run(["mksquashfs", str(folder), str(disk), "-noappend", "-quiet", "-no-progress", *plain])
    return disk
