"""What makers of boot images find in a CoreOS tree, below usr/share/coreos-assembler.

image.json is the stream's image.yaml, flattened (requirement R1.20); platforms.json the
architecture's part of platforms.yaml, live/ the files of the live image (R1.21). Source:
fedora-coreos-config's build-rootfs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strata.compose.overlays import apply_overlay
from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.core.files import pretty_json
from strata.core.record import Input
from strata.treefile.imageconfig import read_image_config
from strata.treefile.overlay import overlay_digest
from strata.treefile.sources import Sources
from strata.treefile.treefile import plain
from strata.treefile.yaml import definition_error, parse_yaml

FOLDER = "usr/share/coreos-assembler"
_DISK = "usr/lib/image-builder/bootc"


@dataclass(frozen=True)
class BootFiles:
    """The files' content. image, platforms: empty for none; live: None for none. inputs: all that
    was read, digested."""

    image: Mapping[str, object]
    platforms: Mapping[str, object]
    live: Path | None
    inputs: tuple[Input, ...]

    def write(self, root: Path, arch: str) -> None:
        """Put them into a tree. Raises DefinitionError, TreeError."""
        for name, values in (("image.json", self.image), ("platforms.json", self.platforms)):
            if values:
                text = pretty_json(dict(values)).decode()
                rooted.write_text(root, f"{FOLDER}/{name}", text)
        if self.live:
            target = rooted.resolve(root, f"{FOLDER}/live")
            target.mkdir(parents=True, exist_ok=True)
            apply_overlay(target, self.live)
        if rooted.resolve(root, f"{_DISK}/{arch}.yaml").is_file():
            link = rooted.resolve(root, f"{_DISK}/disk.yaml", follow_last=False)
            link.unlink(missing_ok=True)
            link.symlink_to(f"{arch}.yaml")


NOTHING = BootFiles({}, {}, None, ())


def read_boot_files(
    folder: Path, *, config: str, platforms: str, live: str, stream: str, arch: str
) -> BootFiles:
    """Read files of the definitions in `folder`; each name may be empty. stream: what `{stream}`
    is in the image.yaml. Raises DefinitionError."""
    image: Mapping[str, object] = {}
    inputs = []
    if config:
        found = read_image_config(folder / config, root=folder, stream=stream)
        image = found.values
        inputs += [Input("treefile", name, f"sha256:{digest}") for name, digest in found.inputs]
    mine: Mapping[str, object] = {}
    if platforms:
        mine, digest = _platforms(folder, platforms, arch)
        inputs.append(Input("treefile", platforms, f"sha256:{digest}"))
    if live:
        Sources(folder).name(folder / live)  # inside of the definitions
        if not (folder / live).is_dir():
            raise DefinitionError(f"{live} is no folder", context={"file": live})
        inputs.append(Input("overlay", live, f"sha256:{overlay_digest(folder / live)}"))
    return BootFiles(image, mine, folder / live if live else None, tuple(inputs))


def beside(definitions: Path, folder: str | None, name: str) -> str:
    """What stands beside a build-args file, where upstream has it; empty when nothing does.

    folder: the build-args file's below the definitions; None: there is no such file.
    """
    if folder is None or not os.path.lexists(definitions / folder / name):
        return ""
    return str(Path(folder) / name)


def _platforms(folder: Path, name: str, arch: str) -> tuple[Mapping[str, object], str]:
    sources = Sources(folder)
    where = sources.name(folder / name)
    try:
        document = parse_yaml(sources.text(where), name)
    except FileNotFoundError as error:
        raise DefinitionError(
            f"{name} cannot be read: {error.strerror}", context={"file": name}
        ) from error
    arches = plain(document)
    mine = arches.get(arch, {}) if isinstance(arches, dict) else None
    if not isinstance(mine, dict):
        raise definition_error(
            document.place, "this is not a mapping of architectures to their platforms"
        )
    return mine, sources.inputs[where]
