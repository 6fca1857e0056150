"""rpm-ostree's own version scheme: `automatic-version-prefix`, counted on from the last version.

| prefix               | versions                                 |
|----------------------|------------------------------------------|
| `22`                 | 22, 22.1, 22.2 …                         |
| `22.<date:%Y>`       | 22.2026.0, 22.2026.1, 22.2027.0 …        |

`<date:FORMAT>` is the time of the content, so that the same content has the same version;
rpm-ostree takes the time of the build. Source: rpm-ostree's docs/treefile.md, util_next_version.
"""

from __future__ import annotations

import datetime
import re

_TAG = re.compile(r"<([a-zA-Z]+):(.*?)>")
# Those of g_date_time_format that are the same in every locale.
_FORMATS = frozenset("CdDeFgGHIjklmMnRsStTuUVwyYzZ%")


def next_automatic(prefix: str, seconds: int, last: str = "", suffix: str = ".") -> str:
    """The version after `last` (empty for none). seconds: since 1970, for dates.

    Raises ValueError for a date format that is none, or depends on a locale.
    """
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    dated = False

    def value(match: re.Match[str]) -> str:
        nonlocal dated
        if match[1] != "date":
            return match[0]
        dated = True
        return _format(when, match[2])

    start = _TAG.sub(value, prefix)
    first = f"{start}{suffix}0" if dated else start
    if not last.startswith(start):
        return first
    if last == start:
        return first if dated else f"{start}{suffix}1"
    rest = last[len(start) :]
    if not rest.startswith(suffix):
        return first
    number = re.match(r"\s*([0-9]*)", rest[len(suffix) :])
    return f"{start}{suffix}{int(number[1] or 0) + 1 if number else 1}"


def _format(when: datetime.datetime, text: str) -> str:
    for letter in re.findall("%(.?)", text):
        if letter not in _FORMATS:
            raise ValueError(
                f"%{letter} in <date:{text}> is no format of a date, or differs between languages"
            )
    return when.strftime(text)
