"""Whether the network may be used. Asked at every door that leads there, so that an offline run
does not even try: a command sets it for its whole process, and nothing below has to hand it on.
"""

from __future__ import annotations

import os

from strata.core.errors import OfflineError

VARIABLE = "STRATA_OFFLINE"
HINT = "run once without --offline"


def offline() -> bool:
    """Whether this process keeps off the network."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def require_network(what: str, *, hint: str = HINT) -> None:
    """Raise OfflineError in an offline run. what: "the index of repository base (http://…)"."""
    if offline():
        raise OfflineError(
            f"{what} would have to be fetched, but this is an offline run", hint=hint
        )
