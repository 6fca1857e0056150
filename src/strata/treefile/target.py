"""Targets: the names of what can be built, the same in commands, records and the store."""

from __future__ import annotations

import re
from dataclasses import dataclass

from strata.core.errors import UsageError

KINDS = ("bootc", "coreos", "bootimage", "node", "extensions", "hotfix", "payload")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FORM = re.compile(rf"({'|'.join(KINDS)})/({_NAME})(?:@({_NAME}))?(?::({_NAME}))?")


@dataclass(frozen=True, order=True)
class Target:
    """One target. name: a stream, release or hotfix; stream: after `@`; format: after `:`."""

    kind: str
    name: str
    stream: str = ""
    format: str = ""

    @staticmethod
    def parse(text: str) -> Target:
        """Read `bootc/S`, `coreos/S`, `bootimage/S:FORMAT`, `node/R[@S]`, … Raises UsageError."""
        match = _FORM.fullmatch(text)
        if match:
            kind, name, stream, form = (part or "" for part in match.groups())
            takes_stream = kind in ("node", "extensions")
            if (not stream or takes_stream) and bool(form) == (kind == "bootimage"):
                return Target(kind, name, stream, form)
        raise UsageError(
            f"{text!r} is not a target",
            hint="targets are bootc/STREAM, coreos/STREAM, bootimage/STREAM:FORMAT, "
            "node/RELEASE[@STREAM], extensions/RELEASE[@STREAM], hotfix/NAME, payload/RELEASE",
        )

    def __str__(self) -> str:
        text = f"{self.kind}/{self.name}"
        text += f"@{self.stream}" if self.stream else ""
        return text + (f":{self.format}" if self.format else "")
