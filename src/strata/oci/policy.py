"""The host's signature policy (containers-policy.json(5)): where it is, and whether it is one.

skopeo enforces it. What is decided here is only what `ostree-image-signed:` adds: a policy that
accepts everything by default does not count as one. Source: ostree-ext's container/skopeo.rs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from strata.core.errors import SignatureError

MAX_POLICY_BYTES = 4 << 20


def candidates(environ: Mapping[str, str]) -> list[Path]:
    """Where the policy may be; the first that exists is the one."""
    found = []
    if environ.get("CONTAINERS_POLICY_JSON"):
        found.append(Path(environ["CONTAINERS_POLICY_JSON"]))
    if environ.get("XDG_CONFIG_HOME"):
        found.append(Path(environ["XDG_CONFIG_HOME"]) / "containers/policy.json")
    elif environ.get("HOME"):
        found.append(Path(environ["HOME"]) / ".config/containers/policy.json")
    return [*found, *(Path(top) / "containers/policy.json" for top in ("/etc", "/usr/share"))]


def accepts_anything(data: bytes, where: str) -> bool:
    """Whether a policy's default is exactly one entry that accepts everything.

    A policy without a default is none that accepts everything: skopeo refuses it. Raises
    SignatureError when it is not a policy.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SignatureError(f"{where} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SignatureError(f"{where} is not an object")
    default = document.get("default")
    if not isinstance(default, list) or len(default) != 1:
        return False
    return isinstance(default[0], dict) and default[0].get("type") == "insecureAcceptAnything"


def require_policy(environ: Mapping[str, str]) -> Path:
    """The policy skopeo has to enforce. Raises SignatureError when that would be none."""
    places = candidates(environ)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise SignatureError(
            "the image has to be signed, and there is no policy.json that says by whom",
            hint=f"write {places[-2]}",
        )
    with open(path, "rb") as stream:
        data = stream.read(MAX_POLICY_BYTES + 1)
    if len(data) > MAX_POLICY_BYTES:
        raise SignatureError(f"{path} is larger than {MAX_POLICY_BYTES} bytes")
    if accepts_anything(data, str(path)):
        raise SignatureError(
            f"the image has to be signed, and {path} accepts everything",
            hint="give it a default of reject, or use ostree-unverified-image:",
            context={"policy": path},
        )
    return path
