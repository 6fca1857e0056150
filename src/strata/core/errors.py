"""The one error tree. A user sees a message, a hint and the context; never a traceback.

Each class has a stable `code` (for programs reading `--json`) and an `exit_status` (for scripts).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class StrataError(Exception):
    """Base of every error strata reports.

    message: one clear sentence. hint: what to do about it. context: where (file, line, key…).
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context: dict[str, object] = dict(context or {})

    def to_json(self) -> dict[str, object]:
        """The error as JSON-ready values: code, message, hint, context."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "context": {
                key: value if isinstance(value, dict) else str(value)
                for key, value in self.context.items()
            },
        }


class UsageError(StrataError):
    """The command line asks for something that does not exist or does not go together."""

    code = "usage"
    exit_status = 2


class DefinitionError(StrataError):
    """strata.toml, a treefile, a .repo file or an overlay is wrong. Context: file, line, key."""

    code = "definition"
    exit_status = 3


class ToolMissingError(StrataError):
    """An outside tool is not installed. The hint is the line that installs it."""

    code = "tool-missing"
    exit_status = 4


class ToolFailedError(StrataError):
    """An outside tool failed. Context: command (to repeat it), status, output (its tail)."""

    code = "tool-failed"
    exit_status = 5


class NotRootError(StrataError):
    """The operation installs packages, mounts or boots, and needs root."""

    code = "not-root"
    exit_status = 6


class NoSpaceError(StrataError):
    """The disk (or tmpfs) is full. Context: path, free_bytes."""

    code = "no-space"
    exit_status = 7


class RepositoryError(StrataError):
    """An RPM repository cannot be reached or read. Context: repository, url."""

    code = "repository"
    exit_status = 8


class PackageError(StrataError):
    """A package cannot be found, does not solve, or must not be where it is."""

    code = "package"
    exit_status = 9


class DigestError(StrataError):
    """Bytes do not have the digest they were asked for. Context: expected, actual."""

    code = "digest"
    exit_status = 10


class ImageError(StrataError):
    """An image is malformed, missing, or not what the operation needs."""

    code = "image"
    exit_status = 11


class ArchitectureError(ImageError):
    """An image is for another architecture than this machine or build."""

    code = "architecture"


class TransportError(StrataError):
    """A registry or layout cannot be reached, or broke off in the middle."""

    code = "transport"
    exit_status = 12


class NoSuchImageError(TransportError):
    """The registry answers, and has no image of the name."""

    code = "no-such-image"


class ObjectError(StrataError):
    """An OSTree object or repository is malformed or incomplete."""

    code = "ostree"
    exit_status = 13


class MachineError(StrataError):
    """A machine did not boot, or a check inside it failed."""

    code = "machine"
    exit_status = 14


class TreeError(StrataError):
    """A tree holds something in a place where it cannot be: a link in a circle, a pipe."""

    code = "tree"
    exit_status = 15


class SignatureError(StrataError):
    """An image, package or index has to be signed, and is not, or nothing says by whom."""

    code = "signature"
    exit_status = 16


class OfflineError(StrataError):
    """Something is not on this machine, and the run was asked to keep off the network."""

    code = "offline"
    exit_status = 17


class InterruptedByUserError(StrataError):
    """Ctrl-C or SIGTERM: everything was undone."""

    code = "interrupted"
    exit_status = 130


def error_of(document: Mapping[str, object]) -> StrataError:
    """The reverse of `to_json`: an error that another process of ours ended with."""
    kinds = [StrataError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    code, hint, context = document["code"], document["hint"], document["context"]
    return next((kind for kind in kinds if kind.code == code), StrataError)(
        str(document["message"]),
        hint=str(hint) if hint is not None else None,
        context=context if isinstance(context, dict) else {},
    )
