"""The files of definitions: none is outside of their folder, each is digested as it is read."""

from __future__ import annotations

import difflib
import hashlib
import os
from pathlib import Path

from strata.core.errors import DefinitionError


class Sources:
    """Files below a folder. inputs: those read, by name, with the sha256 of their bytes."""

    def __init__(self, top: Path) -> None:
        self.top = top.resolve()
        self.inputs: dict[str, str] = {}

    def name(self, path: Path, where: str = "") -> str:
        """A file's name below the folder, links followed. where: what stands before a message.

        Raises DefinitionError when it is not below.
        """
        resolved = path.resolve()
        if self.top not in (resolved, *resolved.parents):
            raise DefinitionError(
                f"{where}{path} is outside of the definitions in {self.top}",
                context={"file": path},
            )
        return str(resolved.relative_to(self.top))

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises OSError."""
        data = (self.top / name).read_bytes()
        self.inputs[name] = hashlib.sha256(data).hexdigest()
        return data

    def text(self, name: str, where: str = "") -> str:
        """A file's text. Raises FileNotFoundError, DefinitionError when it cannot be read."""
        try:
            return self.read(name).decode("utf-8")
        except FileNotFoundError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise DefinitionError(
                f"{where}{name} cannot be read: {error}", context={"file": name}
            ) from error

    def hint_of_missing(self, name: str) -> str:
        """What may be meant by the name of a file that is not there."""
        path = self.top / name
        if not path.parent.is_dir():
            return "is a submodule not checked out?"
        near = difflib.get_close_matches(path.name, sorted(os.listdir(path.parent)), 1)
        if near:
            return f"did you mean {Path(name).parent / near[0]}?"
        return "the name is relative to the file that includes it"

    def digests(self) -> tuple[tuple[str, str], ...]:
        """The files read, sorted by name."""
        return tuple(sorted(self.inputs.items()))
