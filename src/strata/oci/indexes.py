"""Image indexes: one name for an image of several platforms. Made, changed, and resolved.

A platform is an operating system, an architecture and, for some, a variant of it. Which variants a
machine of one runs is containers/image's table (internal/pkg/platform): a newer one runs the older,
and an image that names no variant runs on all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from strata.core.errors import ArchitectureError, ImageError
from strata.oci.layout import REF_NAME, Layout, LayoutReader
from strata.oci.model import (
    INDEX,
    INDEXES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    goarch,
)

MAX_DEPTH = 4  # indexes in indexes
_COMPATIBLE = {"arm": ("v8", "v7", "v6", "v5"), "arm64": ("v8",)}
_MACHINES = {"armv6l": "arm/v6", "armv7l": "arm/v7", "armv7hl": "arm/v7"}


def wanted_platform(architecture: str) -> tuple[str, tuple[str, ...]]:
    """An architecture as images name it, and its variants that run, the best first.

    architecture: as uname and rpm name it, or as images do, with or without `/VARIANT`.
    """
    name, _, variant = _MACHINES.get(architecture, architecture).partition("/")
    name = goarch(name)
    known = _COMPATIBLE.get(name, ())
    if not variant:
        return name, ("", *known)
    if variant in known:
        return name, (*known[known.index(variant) :], "")
    return name, (variant, "")


def runs_on(platform: Platform, architecture: str) -> bool:
    """Whether an image for a platform runs on an architecture."""
    name, variants = wanted_platform(architecture)
    return platform.architecture == name and platform.variant in variants


def choose(entries: Iterable[Descriptor], architecture: str) -> Descriptor:
    """An index's best image for an architecture.

    Raises ArchitectureError naming the architectures that are there.
    """
    name, variants = wanted_platform(architecture)
    platforms = [(entry, entry.platform) for entry in entries if entry.platform]
    for variant in variants:
        for entry, platform in platforms:
            if (platform.architecture, platform.variant) == (name, variant):
                return entry
    there = sorted({platform.machine for _, platform in platforms})
    raise ArchitectureError(
        f"the image is for {', '.join(there) or 'no architecture'}, "
        f"not for {Platform('', name, variants[0]).machine}",
        hint="name an image of this machine's architecture",
    )


def choose_manifest(layout: LayoutReader, descriptor: Descriptor, architecture: str) -> Descriptor:
    """The manifest for an architecture behind a manifest's or index's descriptor.

    Raises ArchitectureError naming the architectures that are there.
    """
    for _ in range(MAX_DEPTH):
        if descriptor.media_type not in INDEXES:
            return descriptor
        descriptor = choose(Index.parse(layout.read(descriptor)).manifests, architecture)
    raise ImageError("an index holds indexes that hold indexes")


def images_of(layout: LayoutReader, image: Descriptor, depth: int = 0) -> Iterator[Descriptor]:
    """All images behind a descriptor, in order. Raises ImageError, DigestError."""
    if image.media_type not in INDEXES:
        yield image
        return
    if depth == MAX_DEPTH:
        raise ImageError("an index holds indexes that hold indexes")
    for entry in Index.parse(layout.read(image)).manifests:
        yield from images_of(layout, entry, depth + 1)


def blobs_of(layout: LayoutReader, image: Descriptor) -> list[Descriptor]:
    """Every blob of an image, or of an index and its images, once.

    Raises ImageError when a document is missing or malformed, or blobs contradict each other.
    """
    found: dict[str, Descriptor] = {}
    _reach(layout, image, found, 0)
    return list(found.values())


def _reach(
    layout: LayoutReader, image: Descriptor, found: dict[str, Descriptor], depth: int
) -> None:
    if str(image.digest) in found:
        return
    _note(found, image)
    if image.media_type in INDEXES:
        if depth == MAX_DEPTH:
            raise ImageError("an index holds indexes that hold indexes")
        for entry in Index.parse(layout.read(image)).manifests:
            _reach(layout, entry, found, depth + 1)
        return
    manifest = Manifest.parse(layout.read(image))
    for blob in (manifest.config, *manifest.layers):
        _note(found, blob)


def _note(found: dict[str, Descriptor], blob: Descriptor) -> None:
    known = found.setdefault(str(blob.digest), blob)
    if known.size_bytes != blob.size_bytes:
        raise ImageError(f"blob {blob.digest} is said to have two sizes")


# --- making one ----------------------------------------------------------------------------------


def describe(layout: LayoutReader, image: Descriptor) -> Descriptor:
    """An image as an index names it: with its platform, without the tag it had.

    Raises ImageError when neither index nor configuration says its architecture.
    """
    annotations = {key: text for key, text in image.annotations.items() if key != REF_NAME}
    platform = image.platform
    if platform is None:
        config = Manifest.parse(layout.read(image)).config
        platform = ImageConfig.parse(layout.read(config)).platform
    if not platform.architecture or not platform.os:
        raise ImageError(
            f"the image {image.digest} does not say its architecture",
            hint="an index names each image by its platform; build the image for one",
        )
    return Descriptor(image.media_type, image.digest, image.size_bytes, annotations, platform)


def join(
    entries: Sequence[Descriptor], new: Iterable[Descriptor], *, replace: bool = False
) -> tuple[Descriptor, ...]:
    """An index's images with others added, in the order of their platforms.

    replace: what is new takes the place of an image of its platform. Raises ImageError when two
    are for one platform.
    """
    joined: dict[str, Descriptor] = {}
    others: dict[str, Descriptor] = {}  # for no platform in particular, as attestations
    for entry in entries:
        if _is_image(entry):
            joined[str(entry.platform)] = entry
        else:
            others[str(entry.digest)] = entry
    added: dict[str, Descriptor] = {}
    for entry in new:
        if not _is_image(entry):
            others[str(entry.digest)] = entry
            continue
        platform = str(entry.platform)
        known = added.get(platform) or (None if replace else joined.get(platform))
        if known and known.digest != entry.digest:
            raise ImageError(
                f"two images are for {platform}: {known.digest} and {entry.digest}",
                hint="name one of them, or put the new one in its place with replace",
            )
        added[platform] = entry
    joined.update(added)
    return (*(joined[platform] for platform in sorted(joined)), *others.values())


def _is_image(entry: Descriptor) -> bool:
    return entry.platform is not None and entry.platform.architecture != "unknown"


def write_index(
    layout: Layout, tag: str, entries: Sequence[Descriptor], annotations: Mapping[str, str]
) -> Descriptor:
    """Write an index and point a tag to it; returns its descriptor.

    Raises ImageError when one of its images is not in the layout.
    """
    for entry in entries:
        if not layout.has(entry.digest):
            raise ImageError(
                f"the layout {layout.path} has no image {entry.digest}",
                hint="copy it there first: strata image copy",
            )
    descriptor = layout.add(Index(tuple(entries), annotations).to_bytes(), INDEX)
    layout.tag(tag, descriptor)
    return descriptor
