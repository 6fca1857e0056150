"""`rpmdb`: the package database has to be of the format that the tree's own rpm reads.

dnf writes sqlite. rpm-ostree treats `bdb`, `ndb` and `sqlite` as `target`: what the tree reads. A
tree whose rpm is set to another format would find its packages gone.
"""

from __future__ import annotations

import re
from pathlib import Path

from strata.core import rooted
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import definition_error

MACROS = "usr/lib/rpm/macros"
WRITTEN = "sqlite"
_BACKEND = re.compile(r"^%_db_backend\s+(\S+)", re.MULTILINE)


def check_database(root: Path, treefile: Flattened) -> None:
    """See that the tree's rpm reads the database. Raises DefinitionError.

    `rpmdb: host` leaves it to the host's rpm, whatever the tree's reads. A tree without rpm has
    nothing to read it with.
    """
    if treefile.text("rpmdb") == "host":
        return
    try:
        found = _BACKEND.search(rooted.read_text(root, MACROS))
    except FileNotFoundError:
        return
    if found and found[1] != WRITTEN:
        raise definition_error(
            treefile.places.get("rpmdb"),
            f"the tree's rpm keeps packages as {found[1]}, and they were installed as {WRITTEN}",
            f"set %_db_backend to {WRITTEN} in the tree's /{MACROS}, or say rpmdb: host to ship "
            "the database all the same",
            key="rpmdb",
        )
