"""The clock of a build: time is an input, never what the wall says while files are written.

https://reproducible-builds.org/specs/source-date-epoch/
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping

from strata.core.errors import UsageError


def source_date_epoch(environ: Mapping[str, str] = os.environ) -> int | None:
    """SOURCE_DATE_EPOCH as seconds since 1970, or None when it is not set.

    Raises UsageError when it is set to something else than a number.
    """
    text = environ.get("SOURCE_DATE_EPOCH")
    if text is None or text == "":
        return None
    if not text.isdigit():
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text!r}, which is not a number of seconds",
            hint="unset it, or set it with `date +%s`",
        )
    return int(text)


def fake_clock(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment that gives a child the clock libfaketime gave this process; empty without it.

    LD_PRELOAD is the library's file, as it is loaded here.
    """
    if "FAKETIME" not in environ:
        return {}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as stream:
        loaded = (line.split(maxsplit=5)[-1].rstrip("\n") for line in stream)
        library = next((path for path in loaded if "/libfaketime" in path), "")
    kept = {key: environ[key] for key in _FAKETIME if key in environ}
    return {"LD_PRELOAD": library, **kept} if library else {}


# What tells libfaketime the time. What its processes share (FAKETIME_SHARED) stays out: a sandbox
# has no part in it.
_FAKETIME = (
    "FAKETIME",
    "FAKETIME_DONT_FAKE_MONOTONIC",
    "FAKETIME_FORCE_MONOTONIC_FIX",
    "NO_FAKE_STAT",
)
# For what talks to other machines, whose certificates are of today.
REAL_CLOCK = {"FAKETIME": "+0"}


def rfc3339(seconds: int) -> str:
    """Seconds since 1970 as `YYYY-MM-DDTHH:MM:SSZ`."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> int:
    """The reverse of `rfc3339`; fractions of a second are dropped. Raises ValueError."""
    whole = re.sub(r"\.\d+", "", text)  # Python 3.9 reads three or six digits, and no others
    moment = datetime.datetime.fromisoformat(whole.replace("Z", "+00:00"))
    return int(moment.timestamp())


# How far a verifying build set its own clock ahead.
AHEAD_HOURS = "STRATA_CLOCK_AHEAD_HOURS"


def today(environ: Mapping[str, str] = os.environ) -> datetime.date:
    """The day it is, by UTC: for what ends on a day, never for what is written to a file.

    It is the real one where a verifying build has another.
    """
    ahead = datetime.timedelta(hours=int(environ.get(AHEAD_HOURS, "0")))
    return (datetime.datetime.now(datetime.timezone.utc) - ahead).date()


def date8(seconds: int) -> str:
    """The UTC date as YYYYMMDD."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y%m%d")
