"""extensions.json: the packages of an extensions image, by name.

`{NAME: "[EPOCH:]VERSION-RELEASE.ARCH", …}`, without an epoch of 0. It is the image's last layer, so
that tools read it without the packages (requirement R4.5). A map has one build of a name, and a
second one would be lost (R4.6): it is not written, and told where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from strata.core.errors import PackageError
from strata.core.files import pretty_json
from strata.rpm.nevra import NEVRA

MAX_BYTES = 16 << 20


def write_extension_list(packages: Iterable[NEVRA]) -> bytes:
    """The packages as JSON. Raises PackageError when there are two builds of one name."""
    rows: dict[str, NEVRA] = {}
    for nevra in sorted(packages):
        if nevra.name in rows:
            raise PackageError(
                f"{rows[nevra.name]} and {nevra} cannot both be among the extensions",
                hint="extensions.json has one build of a name, and tools that read it too",
            )
        rows[nevra.name] = nevra
    return pretty_json({name: f"{nevra.evr}.{nevra.arch}" for name, nevra in rows.items()})


def read_extension_list(data: bytes) -> tuple[tuple[NEVRA, ...], tuple[str, ...]]:
    """The packages, sorted, and what is wrong with the others, in words.

    The release begins at the last `-`, the version behind `:`, the architecture at the last `.`.
    Raises PackageError when it is not a JSON object of texts at all.
    """
    if len(data) > MAX_BYTES:
        raise PackageError(f"extensions.json is larger than {MAX_BYTES} bytes")
    try:
        pairs = json.loads(data, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"extensions.json is not JSON: {error}") from error
    if not isinstance(pairs, _Pairs):
        raise PackageError("extensions.json is not a JSON object")
    found: list[NEVRA] = []
    problems: list[str] = []
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            problems.append(f"{name} is there twice")
        seen.add(name)
        try:
            nevra = NEVRA.parse(f"{name}-{value}") if isinstance(value, str) else None
        except ValueError:
            nevra = None
        if nevra is None or nevra.name != name:
            problems.append(f"{name}: {value!r} is not [EPOCH:]VERSION-RELEASE.ARCH")
        else:
            found.append(nevra)
    return tuple(sorted(found)), tuple(problems)


class _Pairs(list[tuple[str, object]]):
    """An object's members as they are written, a key that stands twice included."""
