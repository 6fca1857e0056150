"""What the verbs of `strata ignition` share."""

from __future__ import annotations

from pathlib import Path

from strata.core.errors import UsageError


def read_file(name: str, option: str = "") -> bytes:
    """A file that the command line names, by an option when one is given. Raises UsageError."""
    try:
        return Path(name).read_bytes()
    except OSError as error:
        given = f"{option} {name}".lstrip()
        raise UsageError(f"{given} cannot be read: {error.strerror}") from error
