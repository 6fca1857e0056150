"""A tree that was declared to use composefs, or not, does (requirement R2.16).

A boot image whose OSTree is older than the image would not start where composefs is enabled for
good, so a stream says in strata.toml what it counts on: `composefs = "maybe"`.
"""

from __future__ import annotations

from pathlib import Path

from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.inspect.composefs import PREPARE_ROOT, read_composefs


def check_composefs(root: Path, wanted: str) -> None:
    """Hold a tree's prepare-root.conf against what strata.toml says; empty: it says nothing.

    Raises DefinitionError, TreeError.
    """
    if not wanted:
        return
    hint = f"write [composefs] and enabled = {wanted} to /{PREPARE_ROOT}, or change strata.toml"
    try:
        found = read_composefs(rooted.read_text(root, PREPARE_ROOT))
    except FileNotFoundError:
        raise DefinitionError(
            f"strata.toml has composefs = {wanted}, and the tree has no /{PREPARE_ROOT}", hint=hint
        ) from None
    except DefinitionError as error:
        raise DefinitionError(f"/{PREPARE_ROOT} {error.message}", hint=hint) from error
    if found != wanted:
        raise DefinitionError(
            f"strata.toml has composefs = {wanted}, and the tree's /{PREPARE_ROOT} has {found}",
            hint=hint,
        )
