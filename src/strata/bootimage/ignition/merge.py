"""An installer's own Ignition config, which then merges ours."""

from __future__ import annotations

from strata.bootimage.ignition.bootstrap import NODE_JSON
from strata.bootimage.ignition.resource import decode, encode, parse_config
from strata.core.errors import DefinitionError
from strata.core.files import canonical_json


def merge_into(parent: bytes, child: bytes, where: str) -> bytes:
    """An installer's config that merges ours: what both have is then ours. where: its name.

    One that was merged before is replaced. Raises DefinitionError when the parent is no config of
    specification 3.
    """
    document = parse_config(parent, where)
    config = document["ignition"].setdefault("config", {})
    merge = config.setdefault("merge", []) if isinstance(config, dict) else None
    if not isinstance(merge, list):
        raise DefinitionError(f"{where}: ignition.config.merge is not a list")
    merge[:] = [one for one in merge if not _is_ours(one, where)] + [encode(child)]
    return canonical_json(document)


def _is_ours(entry: object, where: str) -> bool:
    data = decode(entry, f"{where}: ignition.config.merge")
    return data is not None and NODE_JSON.encode() in data
