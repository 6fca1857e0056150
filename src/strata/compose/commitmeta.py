"""What a treefile puts into a commit beside its files: metadata, a ref, a signature, labels.

Values are typed as rpm-ostree types them (json-glib's rules): text `s`, whole numbers `x`, others
`d`, true and false `b`, lists `av`, mappings `a{sv}`; numbers are big-endian.
Source: rpm-ostree's rpmostree-compose-builtin-tree.cxx; ostree-ext's container-cmd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strata.container.labels import BOOTABLE, COMMAND, LINUX
from strata.core.errors import DefinitionError, ObjectError, UsageError
from strata.ostree.gvariant import Variant
from strata.ostree.repo import check_ref
from strata.treefile.target import Target
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import Place, definition_error

INITRAMFS_ARGS = "rpmostree.initramfs-args"
INLINE, DETACHED = "inline", "detached"
_OURS = ("version", BOOTABLE, LINUX, COMMAND)


@dataclass(frozen=True)
class Said:
    """What is said of a commit. inline: part of it, and of its checksum; detached: beside it."""

    inline: Mapping[str, Variant] = field(default_factory=dict)
    detached: Mapping[str, Variant] = field(default_factory=dict)

    def with_value(self, where: str, key: str, value: Variant) -> Said:
        """With one more value. where: INLINE or DETACHED; anything else leaves it out."""
        if where == INLINE:
            return Said({**self.inline, key: value}, self.detached)
        if where == DETACHED:
            return Said(self.inline, {**self.detached, key: value})
        return self


def said_by(treefile: Flattened) -> Said:
    """`add-commit-metadata`, `container-cmd` and `initramfs-args`. Raises DefinitionError."""
    place = treefile.places.get("add-commit-metadata")
    found = {}
    for key, value in treefile.mapping("add-commit-metadata").items():
        if key in _OURS:
            raise definition_error(
                place,
                f"add-commit-metadata may not set {key}, which follows from the build",
                key="add-commit-metadata",
            )
        found[key] = to_variant(value, place, key)
    for name, key in (("container-cmd", COMMAND), ("initramfs-args", INITRAMFS_ARGS)):
        if treefile.texts(name):
            found[key] = Variant.texts(treefile.texts(name))
    return Said(found)


def to_variant(value: object, place: Place | None = None, key: str = "") -> Variant:
    """A plain value as a variant. Raises DefinitionError where GVariant has none."""
    try:
        if isinstance(value, bool):
            return Variant.flag(value)
        if isinstance(value, str):
            return Variant.text(value)
        if isinstance(value, int):
            return Variant.number(value)
        if isinstance(value, float):
            return Variant.real(value)
    except ObjectError as error:
        raise _no_value(place, f"{key}: {error.message}") from error
    if isinstance(value, list):
        return Variant.variants([to_variant(item, place, key) for item in value])
    if isinstance(value, dict):
        inner = {str(name): to_variant(item, place, key) for name, item in value.items()}
        return Variant.mapping(inner)
    raise _no_value(place, f"{key}, which is empty: a commit keeps no null")


def _no_value(place: Place | None, problem: str) -> DefinitionError:
    key = "add-commit-metadata"
    return definition_error(place, f"{key} has {problem}", key=key)


def ref_of(treefile: Flattened) -> str:
    """The treefile's `ref`, empty for none. Raises DefinitionError when it is none, or is what a
    target or an imported image is called in the repository."""
    ref = treefile.text("ref")
    if not ref:
        return ""
    place = treefile.places["ref"]
    try:
        check_ref(ref)
    except ObjectError as error:
        raise definition_error(place, f"ref is wrong: {error.message}", key="ref") from error
    try:
        Target.parse(ref)
    except UsageError:
        if not ref.startswith("ostree/container/"):
            return ref
    problem = f"ref cannot be {ref}: the store keeps its own commits by such names"
    raise definition_error(place, problem, key="ref")
