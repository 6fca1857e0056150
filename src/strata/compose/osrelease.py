"""os-release of a built tree: the version takes the place of the OS's own (requirement R2.2).

In VERSION and PRETTY_NAME the `mutate-os-release` token is replaced by the build's version, and
OSTREE_VERSION and IMAGE_VERSION are set. A layer below may have put its own version there: that is
replaced as well, so an image never carries another image's version. Key order stays; comments and
blank lines go; VERSION_ID stays what it was. The token is replaced where it stands as a whole word:
"12" is not found in "2012".
"""

from __future__ import annotations

import re
import shlex

from strata.core.errors import DefinitionError

PATH = "usr/lib/os-release"


def parse(text: str) -> dict[str, str]:
    """os-release text as an ordered mapping, unquoted as a shell would (os-release(5)).

    Raises DefinitionError with the line that is not KEY=VALUE.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, separator, value = line.partition("=")
        try:
            words = shlex.split(value)
        except ValueError:
            words = ["", ""]
        if not separator or not re.fullmatch(r"[A-Z][A-Z0-9_]*", key) or len(words) > 1:
            raise DefinitionError(
                f"os-release line {number} is not KEY=VALUE: {line}",
                context={"file": "os-release", "line": number},
            )
        values[key] = words[0] if words else ""
    return values


def mutate(text: str, token: str, version: str) -> str:
    """The os-release of a build. version: the build's.

    token: what `mutate-os-release` names, or empty. Without one, and without the version of a layer
    below (OSTREE_VERSION), the text stays as it is: the OS's own.
    """
    values = parse(text)
    words = [re.escape(word) for word in (values.get("OSTREE_VERSION"), token) if word]
    if not words:
        return text
    # The longer word first: the token may be the beginning of the version below.
    word = re.compile(rf"(?<![\w.])(?:{'|'.join(words)})(?![\w.])")
    for key in ("VERSION", "PRETTY_NAME"):
        if key in values:
            values[key] = word.sub(version, values[key])
    lines = [f"{key}={_quoted(value)}" for key, value in values.items()]
    lines = [line for line in lines if not line.startswith(("OSTREE_VERSION=", "IMAGE_VERSION="))]
    lines += [f"OSTREE_VERSION='{version}'", f"IMAGE_VERSION='{version}'"]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]*", value):
        return value
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
