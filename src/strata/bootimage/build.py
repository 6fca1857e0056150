"""`bootimage/STREAM:FORMAT`: from the stream's CoreOS image to a disk or live image in the store.

`compose` builds it as it builds all targets: this room gives it the job (`Maker`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.bootimage.artefact import Artefact, Made, show_files, store_artifact, store_file
from strata.bootimage.checks import check_boot_image
from strata.bootimage.disk import Identities, write_disk
from strata.bootimage.live import label_of, make_parts, write_iso, write_rootfs
from strata.bootimage.sysroot import ARCH, ROOT_LABEL, Deployment, deploy
from strata.compose.baseimage import Base, import_base
from strata.compose.bootfiles import FOLDER
from strata.compose.context import BuildContext
from strata.compose.definitions import tool_inputs
from strata.compose.steps import IMAGE, Step
from strata.compose.store import publish
from strata.container.labels import VERSION
from strata.core import rooted
from strata.core.clock import rfc3339
from strata.core.errors import DefinitionError, UsageError
from strata.core.events import Reporter
from strata.core.process import run
from strata.core.record import BuildRecord, Input
from strata.oci.digest import Digest
from strata.oci.reference import ImageReference
from strata.ostree.tree import Tree
from strata.rpm.inventory import read_inventory
from strata.treefile.target import Target

QCOW2, RAW, LIVE_ISO, PXE = FORMATS = ("qcow2", "raw", "live-iso", "pxe")
PLATFORMS = {QCOW2: "qemu", RAW: "metal", LIVE_ISO: "metal", PXE: "metal"}
_DISK_TOOLS = ("mke2fs", "debugfs", "sfdisk", "mkfs.fat", "mcopy", "grub-mkimage", "qemu-img")
_LIVE_TOOLS = ("mksquashfs", "xorriso", "mkfs.fat", "mcopy", "grub-mkimage")
# Beside the tree, whose digest tells how it was made.
ROOMS = ("bootimage", "container", "core", "oci", "ostree")
_GIB = 1 << 30
_EPOCH_OF_FAT = 315532800  # 1980, where FAT's times begin


@dataclass(frozen=True)
class BootimageJob:
    """A boot image, ready to be built. base: the CoreOS image it holds, and nothing else."""

    target: Target
    base: Base
    inputs: tuple[Input, ...]
    epoch: int

    @property
    def lock(self) -> None:
        """None: it installs nothing."""

    @property
    def steps(self) -> Step:
        """The only one: the image is written."""
        return Step(IMAGE, self.inputs)

    def build(
        self,
        context: BuildContext,
        earlier: BuildRecord | None,
        current: bool,
        reporter: Reporter,
    ) -> Mapping[str, object]:
        """Build it. Raises any StrataError."""
        return build_bootimage(context, self, reporter)


def prepare_bootimage(context: BuildContext, target: Target, reporter: Reporter) -> BootimageJob:
    """Find the CoreOS image that was built last, and check that no node component is in it.

    Raises UsageError on an unknown format, DefinitionError, PackageError, TreeError, ImageError.
    """
    _check_format(context, target)
    coreos = Target("coreos", target.name)
    record = context.record(coreos)
    if record is None:
        raise DefinitionError(f"{coreos} is not in the store", hint=f"strata build {coreos}")
    digest = Digest.parse(str(record.outputs["manifest"]))
    found = import_base(context, _image(context, digest), reporter)
    with context.workspace.scratch("packages") as scratch:
        inventory = read_inventory(context.packages_of(found.commit, scratch / "root"))
    tree = Tree.load(context.workspace.repo(), found.commit)
    check_boot_image(tree, inventory, context.project.node_only, str(target))
    tools = _DISK_TOOLS if target.format in (QCOW2, RAW) else _LIVE_TOOLS
    inputs = [
        Input("base", str(coreos), str(found.manifest)),
        *tool_inputs(tools, rooms=ROOMS),
    ]
    return BootimageJob(
        target,
        found,
        tuple(sorted(inputs)),
        context.workspace.repo().commit(found.commit).timestamp,
    )


def _image(context: BuildContext, digest: Digest) -> ImageReference:
    """An image of the store."""
    return ImageReference("oci", str(context.workspace.store), "", digest)


def _check_format(context: BuildContext, target: Target) -> None:
    if target.format not in FORMATS:
        raise UsageError(
            f"{target}: there is no boot image format {target.format}",
            hint=f"there are: {', '.join(FORMATS)}",
        )
    images = context.project.stream(target.name).bootimages
    if images is None or target.format not in images.formats:
        listed = ", ".join(images.formats) if images else "none"
        raise DefinitionError(
            f"{target.name} has no boot images of format {target.format}; its strata.toml names "
            f"{listed}",
            hint=f'add "{target.format}" to formats of the stream\'s bootimages',
        )
    if context.arch != ARCH:
        raise UsageError(f"boot images are made for {ARCH}, not for {context.arch}")


def build_bootimage(
    context: BuildContext, job: BootimageJob, reporter: Reporter
) -> Mapping[str, object]:
    """Build a prepared boot image into the store; returns the record's outputs."""
    layout, target = context.workspace.layout, job.target
    platform = PLATFORMS[target.format]
    with context.workspace.scratch("bootimage") as scratch:
        with reporter.step("deploy the base") as step:
            settings = _settings(context, job, platform)
            disk = target.format in (QCOW2, RAW)
            deployment = deploy(
                context.workspace.store / "repo",
                job.base.commit,
                scratch / "sysroot",
                kargs=settings.disk_kargs if disk else (),
                loader=disk,
                image=_image(context, job.base.manifest),
                threads=context.jobs,
            )
            step.detail(job.base.version)
        with reporter.step(f"write the {target.format} image") as step:
            made, extra = _WRITERS[target.format](job, deployment, settings, scratch, context.jobs)
            size = sum(item.path.stat().st_size for item in made)
            step.progress(size, size)
        with reporter.step("store it") as step:
            artefacts = [store_file(layout, item) for item in made]
            step.detail(", ".join(f"{one.name} {one.size_bytes / 1e6:.0f} MB" for one in artefacts))
            folder = context.workspace.bootimages / target.name / target.format
            show_files(layout, artefacts, folder)
    manifest = store_artifact(layout, artefacts, _annotations(job))
    return {
        **publish(layout, str(target), manifest, context.arch),
        "base": str(job.base.manifest),
        "base-commit": job.base.commit,
        "version": job.base.version,
        "platform": platform,
        "format": target.format,
        "artefacts": [item.to_json() for item in artefacts],
        **extra,
    }


def _annotations(job: BootimageJob) -> dict[str, str]:
    return {
        VERSION: job.base.version,
        "org.opencontainers.image.base.digest": str(job.base.manifest),
        "org.opencontainers.image.created": rfc3339(job.epoch),
        "org.opencontainers.image.title": str(job.target),
    }


# --- what the tree says of its boot images -----------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """From the tree's image.json and platforms.json. size_bytes: of a disk; 0 when not given."""

    size_bytes: int
    kargs: tuple[str, ...]
    platform: str
    name: str

    @property
    def disk_kargs(self) -> tuple[str, ...]:
        """Of a disk's entries; GRUB puts `ignition.firstboot` into the variable's place."""
        root = (f"root=LABEL={ROOT_LABEL}", "rw", "$ignition_firstboot")
        return (*self.kargs, *root, f"ignition.platform.id={self.platform}")


def _settings(context: BuildContext, job: BootimageJob, platform: str) -> Settings:
    tree = Tree.load(context.workspace.repo(), job.base.commit)
    image = _read_json(context, tree, f"{FOLDER}/image.json")
    mine = _read_json(context, tree, f"{FOLDER}/platforms.json").get(platform) or {}
    kargs = list(_texts(image.get("extra-kargs", []), "extra-kargs"))
    given = mine.get("kernel_arguments", []) if isinstance(mine, dict) else []
    kargs += [text for text in _texts(given, "kernel_arguments") if text not in kargs]
    size = image.get("size", 0)
    if not isinstance(size, (int, float)) or isinstance(size, bool) or size < 0:
        raise DefinitionError(f"image.yaml: size is {size!r}; it is a number of GB")
    name = f"{job.target.name}-{job.base.version}-{platform}.{context.arch}"
    return Settings(int(size * _GIB), tuple(kargs), platform, name)


def _read_json(context: BuildContext, tree: Tree, path: str) -> dict[str, object]:
    checksum = tree.lookup(path)
    if not isinstance(checksum, str):
        return {}
    with context.workspace.repo().open_content(checksum) as stream:
        data = stream.read(rooted.MAX_TEXT_BYTES)
    try:
        value = json.loads(data)
    except ValueError as error:
        raise DefinitionError(f"the base image's /{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DefinitionError(f"the base image's /{path} is not an object")
    return value


def _texts(value: object, of: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(item, str) and re.fullmatch(r"\S+", item) for item in value
    ):
        raise DefinitionError(f"the base image's {of} is not a list of words")
    return tuple(value)


# --- formats -----------------------------------------------------------------------------------

Written = tuple[Sequence[Made], Mapping[str, object]]


def _identities(job: BootimageJob) -> Identities:
    return Identities.of(f"{job.base.manifest} {job.target.format}")


def _write_qcow2(
    job: BootimageJob, deployment: Deployment, settings: Settings, scratch: Path, threads: int
) -> Written:
    raw, disk = scratch / "disk.raw", scratch / "disk.qcow2"
    identities, size = _identities(job), settings.size_bytes
    write_disk(deployment, raw, identities=identities, size_bytes=size, scratch=scratch)
    run(["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(disk)])
    extra = {"kernel-arguments": list(settings.disk_kargs), "disk-bytes": raw.stat().st_size}
    return [Made("disk", f"{settings.name}.qcow2", disk)], extra


def _write_raw(
    job: BootimageJob, deployment: Deployment, settings: Settings, scratch: Path, threads: int
) -> Written:
    raw = scratch / "disk.raw"
    write_disk(deployment, raw, identities=_identities(job), size_bytes=0, scratch=scratch)
    extra = {"kernel-arguments": list(settings.disk_kargs), "disk-bytes": raw.stat().st_size}
    return [Made("disk", f"{settings.name}.raw", raw, compress=True)], extra


def _live_kargs(settings: Settings) -> tuple[str, ...]:
    return (*settings.kargs, f"ignition.platform.id={settings.platform}")


def _write_live_iso(
    job: BootimageJob, deployment: Deployment, settings: Settings, scratch: Path, threads: int
) -> Written:
    parts = make_parts(deployment, scratch, kargs=_live_kargs(settings), threads=threads)
    iso, label = scratch / "live.iso", label_of(job.target.name)
    epoch = max(job.epoch, _EPOCH_OF_FAT)
    title = f"{job.target.name} {job.base.version} (live)"
    write_iso(parts, iso, label=label, title=title, epoch=epoch, scratch=scratch)
    name = settings.name.replace(f"-{settings.platform}.", "-live-iso.")
    return [Made("disk", f"{name}.iso", iso)], {"kernel-arguments": list(parts.kargs)}


def _write_pxe(
    job: BootimageJob, deployment: Deployment, settings: Settings, scratch: Path, threads: int
) -> Written:
    parts = make_parts(deployment, scratch, kargs=_live_kargs(settings), threads=threads)
    rootfs = scratch / "rootfs.img"
    write_rootfs(parts, rootfs)
    stem, _, tail = settings.name.partition(f"-{settings.platform}.")
    made = [
        Made("kernel", f"{stem}-live-kernel.{tail}", parts.kernel),
        Made("initramfs", f"{stem}-live-initramfs.{tail}.img", parts.initramfs),
        Made("rootfs", f"{stem}-live-rootfs.{tail}.img", rootfs),
    ]
    return made, {"kernel-arguments": list(parts.kargs)}


_WRITERS = {QCOW2: _write_qcow2, RAW: _write_raw, LIVE_ISO: _write_live_iso, PXE: _write_pxe}


def artefacts_of(record: BuildRecord) -> list[Artefact]:
    """The files of a built boot image."""
    listed = record.outputs["artefacts"]
    return [Artefact.from_json(item) for item in listed] if isinstance(listed, list) else []
