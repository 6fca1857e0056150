"""Boot images for tests, built once a store, and machines that boot them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from strata.bootimage.build import prepare_bootimage
from strata.compose.context import BuildContext
from strata.compose.workspace import Workspace
from strata.machine.guest import Key, guest
from strata.machine.qemu import BIOS, Hardware, QemuMachine
from strata.treefile.project import load_project
from strata.treefile.target import Target

STREAM = "sample-12"


@dataclass(frozen=True)
class BootLab:
    """A store that has boot images, and a key for the machines."""

    context: BuildContext
    key: Key

    @staticmethod
    def open(definitions: Path, store: Path, key: Key) -> BootLab:
        """From a store that was built."""
        project, workspace = load_project(definitions), Workspace.create(store)
        makers = {"bootimage": prepare_bootimage}
        return BootLab(BuildContext(project, workspace, "x86_64", 2, makers=makers), key)

    def guest(
        self,
        form: str,
        folder: Path,
        *,
        ignition: bytes | None,
        firmware: str = BIOS,
        memory_mib: int = 1536,
        disk_bytes: int = 0,
        network_namespace: Path | None = None,
    ) -> QemuMachine:
        """A machine that boots an image of the sample's stream."""
        return guest(
            self.context,
            Target("bootimage", STREAM, format=form),
            folder / "machine",
            Hardware(memory_mib, firmware=firmware),
            ignition=ignition,
            key=self.key,
            disk_bytes=disk_bytes,
            network_namespace=network_namespace,
        )
