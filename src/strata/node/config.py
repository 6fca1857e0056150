"""The agent's configuration, `/etc/strata/node.json`: one JSON object, read strictly.

    version       1 (may be left out)
    image         the node image: docker://HOST/NAME@sha256:…, HOST/NAME@sha256:…, oci:DIR:TAG, or
                  any of them behind ostree-image-signed:
    release       or a release payload by digest; the image is the one of its tag `release_tag`
    release_tag   "rhel-coreos" when it is left out
    late          or a file that something else writes after boot, with an image reference in it
    auth          file with the registries' credentials (containers-auth.json(5))
    policy        signature policy the image is held against (containers-policy.json(5)); one that
                  accepts everything by default is refused
    keep          units that are never stopped or restarted, as a list of names or patterns
    restart       {UNIT: "restart" | "leave"} for running services whose files changed; names or
                  patterns, the first that matches decides
    probe         command, as a list, that says by its exit status whether the machine is healthy
    probe_timeout_s  how long it may take (60)
    etc           what wins when the machine and the node image both changed a file of /etc:
                  "mine" (default), "theirs", "fail"

Of image, release and late one is there; none only where the command line names the image:
`strata.node.wanted` makes an image reference of them. Patterns are those of fnmatch.

Everything else about the network is where skopeo looks for it: registries.conf and certs.d in
/etc/containers, the system's CAs, the proxy in the unit's environment.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from strata.core.errors import DefinitionError, UsageError
from strata.node.etcmerge import FAIL, MINE, THEIRS
from strata.oci.reference import BY_POLICY, SignaturePolicy, SignedReference

PATH = Path("/etc/strata/node.json")
VERSION = 1
MAX_BYTES = 1 << 20
RELEASE_TAG = "rhel-coreos"

RESTART, LEAVE = "restart", "leave"


@dataclass(frozen=True)
class NodeConfig:
    """What the module's docstring lists. restart: the rules in the file's order."""

    image: SignedReference | None = None
    release: SignedReference | None = None
    release_tag: str = RELEASE_TAG
    late: Path | None = None
    auth: Path | None = None
    policy: Path | None = None
    keep: tuple[str, ...] = ()
    restart: Mapping[str, str] = field(default_factory=dict)
    probe: tuple[str, ...] = ()
    probe_timeout_s: float = 60.0
    etc: str = MINE

    @staticmethod
    def load(path: Path = PATH) -> NodeConfig:
        """The machine's configuration; the defaults when there is none. Raises DefinitionError."""
        try:
            with open(path, "rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return NodeConfig()
        except OSError as error:
            raise DefinitionError(f"{path} cannot be read: {error.strerror}") from error
        return parse_config(data, str(path))

    def environment(self) -> dict[str, str]:
        """What skopeo is told through its environment."""
        pairs = (("REGISTRY_AUTH_FILE", self.auth), ("CONTAINERS_POLICY_JSON", self.policy))
        return {name: str(path) for name, path in pairs if path}

    def apply_environment(self) -> None:
        """Have every skopeo that this process starts see `environment`."""
        os.environ.update(self.environment())

    def signed(self, reference: SignedReference) -> SignedReference:
        """A reference with the signature this machine asks for: `policy` holds for bare ones."""
        if self.policy and reference.signature == SignaturePolicy():
            return SignedReference(SignaturePolicy(BY_POLICY), reference.image)
        return reference

    def keeps(self, unit: str) -> bool:
        """Whether a unit is never stopped or restarted."""
        return any(fnmatchcase(unit, pattern) for pattern in self.keep)

    def restart_rule(self, unit: str) -> str | None:
        """RESTART or LEAVE when a rule (or `keep`) says so of a unit; None when nothing does."""
        if self.keeps(unit):
            return LEAVE
        found = (rule for pattern, rule in self.restart.items() if fnmatchcase(unit, pattern))
        return next(found, None)

    def to_json(self) -> dict[str, object]:
        """As the file has it, without what is as by default; `parse_config` reads it back."""
        given = {name: getattr(self, name) for name in _READERS}
        default = NodeConfig()
        return {
            "version": VERSION,
            **{
                name: _plain(value)
                for name, value in given.items()
                if value != getattr(default, name)
            },
        }


def _plain(value: object) -> object:
    if isinstance(value, SignedReference):
        bare = value.signature == SignaturePolicy()
        return str(value.image if bare else value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value) if isinstance(value, Path) else value


def parse_config(data: bytes, where: str) -> NodeConfig:
    """Read a configuration. where: its file's name. Raises DefinitionError naming file and key."""
    if len(data) > MAX_BYTES:
        raise _error(where, "", f"is larger than {MAX_BYTES} bytes")
    try:
        document = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _error(where, "", f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _error(where, "", "is not an object", hint='write {"image": "…"}')
    version = document.pop("version", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise _error(
            where, "version", f"is {version!r}", hint=f"this agent reads version {VERSION}"
        )
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in _READERS:
            near = difflib.get_close_matches(key, list(_READERS), 1)
            known = f"known: version, {', '.join(_READERS)}"
            hint = f"did you mean {near[0]}?" if near else known
            raise _error(where, key, "is not known", hint=hint)
        try:
            values[key] = _READERS[key](value)
        except UsageError as error:
            raise _error(where, key, f"is wrong: {error.message}", hint=error.hint) from error
        except ValueError as error:
            raise _error(where, key, f"is {json.dumps(value)}, not {error}") from error
    config = NodeConfig(**values)
    named = [key for key in ("image", "release", "late") if key in values]
    if len(named) > 1:
        raise _error(where, named[1], f"does not go with {named[0]}", hint="keep one of them")
    return config


def _error(where: str, key: str, problem: str, hint: str | None = None) -> DefinitionError:
    place = f"{where}: {key}" if key else where
    context = {"file": where, "key": key} if key else {"file": where}
    return DefinitionError(f"{place} {problem}", hint=hint, context=context)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"{twice} is there twice")
    return found


# --- one reader a key: ValueError says what would have been right ---------------------------------


def _reference(value: object) -> SignedReference:
    return SignedReference.parse_pullspec(_text(value))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text")
    return value


def _path(value: object) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of texts")
    return tuple(_text(item) for item in value)


def _rules(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or any(rule not in (RESTART, LEAVE) for rule in value.values()):
        raise ValueError(f'an object of UNIT: "{RESTART}" or "{LEAVE}"')
    return dict(value)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 86400:
        raise ValueError("a number of seconds")
    return float(value)


def _policy_of_etc(value: object) -> str:
    if value not in (MINE, THEIRS, FAIL):
        raise ValueError(f'"{MINE}", "{THEIRS}" or "{FAIL}"')
    return str(value)


_READERS: dict[str, Callable[[object], object]] = {
    "image": _reference,
    "release": _reference,
    "release_tag": _text,
    "late": _path,
    "auth": _path,
    "policy": _path,
    "keep": _texts,
    "restart": _rules,
    "probe": _texts,
    "probe_timeout_s": _seconds,
    "etc": _policy_of_etc,
}
