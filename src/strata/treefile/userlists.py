"""`PASSWD_GROUP_DIR` of a build-args file: the folder with the lists of users and groups.

Its `passwd` and `group` are the lists of `check-passwd` and `check-groups`: also where the treefile
names files of these types, which are looked for there, and where it has no lists at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from strata.core.errors import DefinitionError
from strata.treefile.sources import Sources
from strata.treefile.treefile import Flattened, NamedFile
from strata.treefile.yaml import Place

_LISTS = {"check-passwd": "passwd", "check-groups": "group"}


@dataclass(frozen=True)
class UserLists:
    """A folder of the definitions, and the line that names it."""

    folder: str
    place: Place


def with_user_lists(flat: Flattened, top: Path, lists: UserLists) -> Flattened:
    """A treefile with the lists of a folder.

    top: the definitions. A list of another type
    (none, previous, data) stays. Raises DefinitionError when a file is not there.
    """
    sources, given = Sources(top), lists.place
    files = [item for item in flat.files if item.field not in _LISTS]
    fields, places = dict(flat.fields), dict(flat.places)
    for key, usual in _LISTS.items():
        own = flat.mapping(key)
        if own.get("type", "file") != "file":
            continue
        name = f"{lists.folder}/{Path(str(own.get('filename', usual))).name}"
        place = flat.places.get(key, given)
        path = _read(sources, top / name, name, given)
        files.append(NamedFile(key, path, place))
        fields[key], places[key] = {"type": "file", "filename": path}, place
    inputs = {**dict(flat.inputs), **sources.inputs}
    return replace(
        flat,
        files=tuple(files),
        fields=fields,
        places=places,
        inputs=tuple(sorted(inputs.items())),
    )


def _read(sources: Sources, path: Path, name: str, given: Place) -> str:
    found = sources.name(path, f"{given}: ")
    try:
        sources.read(found)
    except OSError as error:
        context: Mapping[str, object] = {"file": given.file, "line": given.line}
        raise DefinitionError(
            f"{given}: PASSWD_GROUP_DIR leads to {name}, which cannot be read: {error.strerror}",
            hint="it is the folder of the files passwd and group",
            context={**context, "key": "PASSWD_GROUP_DIR"},
        ) from error
    return found
