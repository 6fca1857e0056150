"""Whether a system mounts its root by composefs: what prepare-root.conf says."""

from __future__ import annotations

import configparser

from strata.core.errors import DefinitionError

PREPARE_ROOT = "usr/lib/ostree/prepare-root.conf"


def read_composefs(text: str) -> str:
    """`enabled` of `[composefs]`; no when it is not there. Raises DefinitionError."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise DefinitionError(f"cannot be read: {error.message.splitlines()[0]}") from error
    return parser.get("composefs", "enabled", fallback="no").strip()
