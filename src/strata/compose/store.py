"""Images in the store: a tag points at an index with one manifest per architecture."""

from __future__ import annotations

from strata.core.record import BuildRecord
from strata.oci.layout import Layout
from strata.oci.model import INDEX, Descriptor, Index, Manifest, Platform, goarch


def publish(layout: Layout, tag: str, manifest: Descriptor, arch: str) -> dict[str, object]:
    """Tag a manifest: its index's entry for this architecture is replaced, others stay.

    Returns outputs for the record: index, manifest, layers, size_bytes.
    """
    platform = Platform("linux", goarch(arch))
    entry = Descriptor(manifest.media_type, manifest.digest, manifest.size_bytes, {}, platform)
    others: tuple[Descriptor, ...] = ()
    known = layout.tags().get(tag)
    if known is not None and layout.has(known.digest):
        others = tuple(
            item
            for item in Index.parse(layout.read(known)).manifests
            if item.platform is None or item.platform.architecture != platform.architecture
        )
    both = sorted((*others, entry), key=lambda item: str(item.platform))
    index = layout.add(Index(tuple(both)).to_bytes(), INDEX)
    layout.tag(tag, index)
    layers = Manifest.parse(layout.read(manifest)).layers
    return {
        "index": str(index.digest),
        "manifest": str(manifest.digest),
        "layers": len(layers),
        "size_bytes": sum(layer.size_bytes for layer in layers),
    }


def stored_manifest(layout: Layout, tag: str, arch: str) -> Descriptor | None:
    """The manifest a tag has for an architecture; None when there is none, or no longer whole."""
    known = layout.tags().get(tag)
    if known is None or not layout.has(known.digest):
        return None
    platform = Platform("linux", goarch(arch))
    for item in Index.parse(layout.read(known)).manifests:
        if item.platform == platform and layout.has(item.digest):
            return item
    return None


def prior_of(earlier: BuildRecord | None, prior: Descriptor | None, made: Descriptor) -> str:
    """The image whose layers a build kept, for its record; empty for none.

    earlier: the record of the build before. What was built again and came out as it was keeps the
    one it was first made with.
    """
    if prior is None:
        return ""
    if earlier and prior.digest == made.digest:
        return str(earlier.outputs.get("prior", ""))
    return str(prior.digest)
