"""Lint: what loads, and yet is likely not what its writer meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from strata.treefile.fields import LEGACY
from strata.treefile.refused import refused
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import Place, Value

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True, order=True)
class Finding:
    """Something to look at. severity: ERROR (rpm-ostree or a build refuses it), WARNING or NOTE."""

    place: str
    rule: str
    severity: str
    message: str

    def to_json(self) -> dict[str, str]:
        """As JSON-ready values."""
        return dict(self.__dict__)


def lint(flat: Flattened) -> tuple[Finding, ...]:
    """All findings of a treefile and what it includes, by place."""
    found = [finding for rule in _RULES for finding in rule(flat)]
    found += [finding for document in flat.documents for finding in _spelling(document)]
    return tuple(sorted(set(found)))


def _twice(flat: Flattened) -> Iterator[Finding]:
    first: dict[str, Place] = {}
    for item in flat.named:
        if item.text not in first:
            first[item.text] = item.source
        elif first[item.text] != item.source:
            yield Finding(
                str(item.source),
                "named-twice",
                NOTE,
                f"{item.text} is named at {first[item.text]} already",
            )


def _wanted_and_excluded(flat: Flattened) -> Iterator[Finding]:
    wanted = {item.text: item.source for item in flat.packages}
    for item in flat.excluded:
        if item.text in wanted:
            yield Finding(
                str(item.source),
                "excluded-package",
                ERROR,
                f"{item.text} is excluded here and named at {wanted[item.text]}",
            )


def _shebang(flat: Flattened) -> Iterator[Finding]:
    for item in flat.postprocess:
        if not item.text.startswith("#!"):
            yield Finding(
                str(item.source),
                "no-interpreter",
                WARNING,
                "the script does not begin with #! and cannot be run",
            )


def _not_honoured(flat: Flattened) -> Iterator[Finding]:
    """Requirement R1.22: a layer put on top of an image cannot do everything a compose does."""
    for key in flat.unfit:
        yield Finding(
            str(flat.places[key]),
            "not-on-an-image",
            WARNING,
            f"{key} cannot be honoured in a layer on top of an image",
        )


def _refused(flat: Flattened) -> Iterator[Finding]:
    for item in refused(flat):
        yield Finding(str(item.place), "refused", ERROR, item.message)


def _old_edition(flat: Flattened) -> Iterator[Finding]:
    """What rpm-ostree warns of when it composes."""
    if flat.fields.get("boot-location") == "new":
        place = str(flat.places["boot-location"])
        yield Finding(place, "deprecated", NOTE, "boot-location: new is deprecated: use modules")
    if flat.texts("initramfs-args"):
        place = str(flat.places["initramfs-args"])
        what = "initramfs-args is deprecated: put a file into /usr/lib/dracut/dracut.conf.d"
        yield Finding(place, "deprecated", NOTE, what)


_RULES: tuple[Callable[[Flattened], Iterator[Finding]], ...] = (
    _twice,
    _wanted_and_excluded,
    _shebang,
    _not_honoured,
    _refused,
    _old_edition,
)


def _spelling(document: Value) -> Iterator[Finding]:
    """What is written, not what it means: old spellings, and inline treefiles."""
    members = document.data if isinstance(document.data, dict) else {}
    for key, value in members.items():
        if key in LEGACY:
            what = f"{key} is {LEGACY[key]} today"
            yield Finding(str(value.place), "old-spelling", NOTE, what)
    conditional = members.get("conditional-include")
    for item in conditional.data if conditional and isinstance(conditional.data, list) else ():
        inner = item.data.get("include") if isinstance(item.data, dict) else None
        for key, value in inner.data.items() if inner and isinstance(inner.data, dict) else ():
            if key in ("include", "conditional-include", "arch-include") or key.startswith(
                "packages-"
            ):
                yield Finding(
                    str(value.place),
                    "inline-include",
                    WARNING,
                    f"rpm-ostree passes over {key} in an inline treefile",
                )
