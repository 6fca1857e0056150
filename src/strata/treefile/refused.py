"""What a treefile may say and no build does: each a positioned error, never passed over.

Some of it rpm-ostree refuses as well; the rest asks for something that a tree of ours cannot be.
docs/treefiles.md explains the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from strata.treefile.autoversion import next_automatic
from strata.treefile.fields import FIELDS
from strata.treefile.layout import EDITIONS
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import Place, definition_error


@dataclass(frozen=True)
class Refused:
    """A field that cannot be honoured: why, and what to do instead."""

    key: str
    place: Place
    message: str
    hint: str = ""


def refused(flat: Flattened) -> tuple[Refused, ...]:
    """All that no build does, by place.

    A layer on top of an image is only held against what applies there.
    """
    deriving = flat.variables.get("deriving") is True
    found = [
        item for rule in _RULES for item in rule(flat) if FIELDS[item.key].applies or not deriving
    ]
    return tuple(sorted(found, key=lambda item: (item.place.file, item.place.line, item.key)))


def refuse(flat: Flattened) -> None:
    """Raise DefinitionError at the first of them."""
    for item in refused(flat):
        raise definition_error(item.place, item.message, item.hint, key=item.key)


_NO_BASEARCH = "leave it out: the architecture is that of the build (--arch)"


# --- fields whose value decides ------------------------------------------------------------------


@dataclass(frozen=True)
class _Never:
    """A field of which a build takes only some values."""

    allowed: Callable[[object], bool]
    why: str
    hint: str = ""


def _off(value: object) -> bool:
    return value is False or value == []


_VALUES: Mapping[str, _Never] = {
    "edition": _Never(
        lambda value: str(value) in EDITIONS, f"edition must be one of {', '.join(EDITIONS)}"
    ),
    "boot-location": _Never(
        lambda value: value in ("new", "modules"),
        "the kernel of a tree is in /usr/lib/modules (modules), and with `new` in "
        "/usr/lib/ostree-boot too; no other boot-location can be made",
        "write boot-location: modules",
    ),
    "container": _Never(
        _off,
        "container: true makes a tree that does not boot, and every base layer does",
        "build it as a container image, by a Containerfile",
    ),
    "ima": _Never(
        _off,
        "ima: true keeps signatures that rpm's own plugin writes, if at all: a build cannot "
        "promise that they are in the commit",
        "leave ima out; sign the files in the image's build pipeline",
    ),
    "cliwrap": _Never(
        _off,
        "cliwrap: true replaces commands by rpm-ostree's own, which this tree need not have; "
        "rpm-ostree gives it up, too",
        "leave cliwrap out",
    ),
    "cliwrap-binaries": _Never(
        _off,
        "cliwrap-binaries replaces commands by rpm-ostree's own, which this tree need not have",
        "leave cliwrap-binaries out; kernel-install is told layout=ostree by a file of the overlay",
    ),
    "selinux-label-version": _Never(
        lambda value: value in (0, 1), "selinux-label-version must be 0 or 1"
    ),
    "automatic-version-suffix": _Never(
        lambda value: isinstance(value, str) and len(value) == 1 and value.isascii(),
        "automatic-version-suffix must be one ASCII character",
    ),
}


def _by_value(flat: Flattened) -> Iterator[Refused]:
    for key, rule in _VALUES.items():
        if key in flat.fields and not rule.allowed(flat.fields[key]):
            yield Refused(key, flat.places[key], rule.why, rule.hint)


# --- fields against each other -------------------------------------------------------------------


def _basearch(flat: Flattened) -> Iterator[Refused]:
    asked, built = flat.fields.get("basearch"), flat.variables.get("basearch")
    if asked is not None and asked != built:
        yield Refused(
            "basearch",
            flat.places["basearch"],
            f"basearch is {asked}, and this is read for {built}",
            _NO_BASEARCH,
        )


_NO_REPOVARS = {"releasever": "write the field releasever instead", "basearch": _NO_BASEARCH}


def _units(flat: Flattened) -> Iterator[Refused]:
    if flat.fields.get("machineid-compat") is False and flat.fields.get("units"):
        yield Refused(
            "units",
            flat.places["units"],
            "units has no effect with machineid-compat: false: at its first boot systemd sets all "
            "units to their presets",
            "ship a file in /usr/lib/systemd/system-preset",
        )


def _repovars(flat: Flattened) -> Iterator[Refused]:
    repovars = flat.fields.get("repovars", {})
    for name, hint in _NO_REPOVARS.items():
        if isinstance(repovars, dict) and name in repovars:
            message = f"{name} may not be in repovars"
            yield Refused("repovars", flat.places["repovars"], message, hint)


def _version_prefix(flat: Flattened) -> Iterator[Refused]:
    prefix = flat.fields.get("automatic-version-prefix")
    try:
        next_automatic(str(prefix or ""), 0)
    except ValueError as error:
        key = "automatic-version-prefix"
        yield Refused(key, flat.places[key], f"{key}: {error}")


_RULES = (_by_value, _basearch, _units, _repovars, _version_prefix)
