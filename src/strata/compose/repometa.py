"""`repo-metadata` and `advisories-metadata`: what a commit says of the repositories it came from.

`rpmostree.rpmmd-repos` (`aa{sv}`: id, timestamp) and `rpmostree.advisories` (`a(suuasa{sv})`) are
in the commit (`inline`) or beside it (`detached`). Without either field there is neither, where
rpm-ostree has both inline: a commit would change whenever a repository is indexed again, and not
only when a package of it does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from strata.compose.commitmeta import Said
from strata.compose.context import BuildContext
from strata.compose.definitions import Definition
from strata.core.files import json_digest
from strata.core.record import Input
from strata.ostree.gvariant import Member, Variant, pack_array, pack_string, pack_tuple
from strata.ostree.gvariant import pack_variant_map as pack_map
from strata.rpm.advisories import SEVERITIES, Advisory
from strata.rpm.lock import Lock
from strata.rpm.repostate import read_states
from strata.rpm.solve import read_notices

REPOS, ADVISORIES = "rpmostree.rpmmd-repos", "rpmostree.advisories"
_SECURITY = 1  # hawkey.ADVISORY_SECURITY, as DnfAdvisoryKind
_FIELDS = {"repo-metadata": REPOS, "advisories-metadata": ADVISORIES}


def with_repositories(
    said: Said, context: BuildContext, definition: Definition, lock: Lock
) -> tuple[Said, tuple[Input, ...]]:
    """What a commit says, with what the treefile wants it to say of repositories; and the inputs
    that it is. The repositories are only asked when it wants something.

    Raises RepositoryError, OfflineError.
    """
    treefile = definition.treefile
    where = {key: treefile.text(field, "disabled") for field, key in _FIELDS.items()}
    if set(where.values()) == {"disabled"}:
        return said, ()
    states = read_states(definition.repos, context.workspace.metadata)
    times, advisories = read_notices(
        definition.repos,
        states,
        [package.nevra for package in lock.packages],
        arch=lock.arch,
        metadata_cache=context.workspace.metadata,
    )
    repos = [
        {"id": Variant.text(repo.id), "timestamp": Variant.unsigned(times[repo.id])}
        for repo in definition.repos
    ]
    values = {REPOS: Variant.mappings(repos)}
    if advisories:
        values[ADVISORIES] = advisories_variant(advisories)
    inputs = []
    for key, value in values.items():
        said = said.with_value(where[key], key, value)
        if where[key] != "disabled":
            inputs.append(Input("definition", key, json_digest([value.type, value.data.hex()])))
    return said, tuple(inputs)


def advisories_variant(advisories: Sequence[Advisory]) -> Variant:
    """Advisories as `a(suuasa{sv})`; numbers are big-endian."""
    return Variant("a(suuasa{sv})", pack_array([_advisory(one) for one in advisories], 8))


def _advisory(one: Advisory) -> bytes:
    severity = SEVERITIES.index(one.severity)
    pairs = [
        pack_tuple([Member(pack_string(url)), Member(pack_string(title))])
        for url, title in one.references
    ]
    references = Variant("a(ss)", pack_array(pairs))
    return pack_tuple(
        [
            Member(pack_string(one.id)),
            Member(struct.pack(">I", _SECURITY), 4, True),
            Member(struct.pack(">I", severity), 4, True),
            Member(pack_array([pack_string(name) for name in one.packages])),
            Member(pack_map({"cve_references": references}), 8),
        ]
    )
