"""How a machine reaches its registries, as files where skopeo looks for it.

Mirrors go into registries.conf.d, the rest beside `node.json`. Proxy and certificates reach the
pull by an environment file, since a unit's own lines could be read by every user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from strata.bootimage.ignition import File
from strata.core.errors import UsageError
from strata.core.text import shown

FOLDER = "/etc/strata"
AUTH = f"{FOLDER}/auth.json"
POLICY = f"{FOLDER}/policy.json"
CERTIFICATES = f"{FOLDER}/ca"
ENVIRONMENT = f"{FOLDER}/environment"
MIRRORS = "/etc/containers/registries.conf.d/50-node-image.conf"
# Beside ours: where Go looks by itself, so that the system's CAs stay trusted.
_SYSTEM_CERTIFICATES = ("/etc/ssl/certs", "/etc/pki/tls/certs")

_HOST_AND_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)*")
_NO_PROXY = re.compile(r"[A-Za-z0-9.,:/*_\[\]-]+")
_PROXY = re.compile(r"https?://[!-~]+")


@dataclass(frozen=True)
class Mirror:
    """Where images of a registry (or a part of it) are looked for first. plain: over HTTP."""

    source: str
    mirror: str
    plain: bool = False

    @staticmethod
    def parse(text: str) -> Mirror:
        """Read SRC=DST; `http://` before DST means a mirror without TLS. Raises UsageError."""
        source, _, target = text.partition("=")
        scheme, _, mirror = target.rpartition("://")
        names = all(_HOST_AND_PATH.fullmatch(name) for name in (source, mirror))
        if not names or scheme not in ("", "http", "https"):
            raise UsageError(
                f"{text!r} is not a mirror",
                hint="write registry.example/project=mirror.example:5000/project",
            )
        return Mirror(source, mirror, scheme == "http")


@dataclass(frozen=True)
class Network:
    """How a machine reaches its registries; what is empty is as the machine has it.

    auth: containers-auth.json(5); policy: containers-policy.json(5); certificates: PEM files by
    name; proxy: for HTTP and HTTPS; no_proxy: hosts reached without it, with commas.
    """

    mirrors: Sequence[Mirror] = ()
    auth: bytes = b""
    policy: bytes = b""
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    proxy: str = ""
    no_proxy: str = ""


def network_files(network: Network) -> list[File]:
    """The files that say so. Raises UsageError when a value does not fit where it has to go."""
    files = []
    if network.mirrors:
        # Readable for all: what pulls images is not root everywhere (requirement R6.23).
        files.append(File(MIRRORS, registries_conf(network.mirrors).encode()))
    if network.auth:
        files.append(File(AUTH, network.auth, 0o600))
    if network.policy:
        files.append(File(POLICY, network.policy))
    for name, data in sorted(network.certificates.items()):
        files.append(File(f"{CERTIFICATES}/{name}", _certificate(name, data)))
    lines = _environment(network)
    if lines:
        # A proxy's address may hold a password.
        files.append(File(ENVIRONMENT, "".join(f"{line}\n" for line in lines).encode(), 0o600))
    return files


def registries_conf(mirrors: Sequence[Mirror]) -> str:
    """Mirrors as containers-registries.conf(5) has them, those of one source in their order."""
    parts = []
    for source in dict.fromkeys(mirror.source for mirror in mirrors):
        parts.append(f'[[registry]]\nprefix = "{source}"\nlocation = "{source}"\n')
        for mirror in (one for one in mirrors if one.source == source):
            insecure = "insecure = true\n" if mirror.plain else ""
            parts.append(f'\n[[registry.mirror]]\nlocation = "{mirror.mirror}"\n{insecure}')
    return "".join(parts)


def _environment(network: Network) -> list[str]:
    lines = []
    if network.proxy:
        if not _PROXY.fullmatch(network.proxy) or set(network.proxy) & set("\"'\\$`"):
            raise UsageError(
                f"{network.proxy!r} is not a proxy's address",
                hint="write http://HOST:PORT, special characters of a password as %XX",
            )
        lines += [f'{name}="{network.proxy}"' for name in ("HTTP_PROXY", "HTTPS_PROXY")]
    if network.no_proxy:
        if not network.proxy:
            raise UsageError("--no-proxy without --proxy means nothing")
        if not _NO_PROXY.fullmatch(network.no_proxy):
            raise UsageError(f"{network.no_proxy!r} is not a list of hosts with commas")
        lines.append(f'NO_PROXY="{network.no_proxy}"')
    if network.certificates:
        lines.append(f'SSL_CERT_DIR="{":".join((CERTIFICATES, *_SYSTEM_CERTIFICATES))}"')
    return lines


def _certificate(name: str, data: bytes) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{shown(name)} is no name for a certificate's file on the machine")
    if b"-----BEGIN CERTIFICATE-----" not in data or b"PRIVATE KEY" in data:
        raise UsageError(
            f"{shown(name)} is not a certificate in PEM, or holds a private key",
            hint="give the CA's certificate alone",
        )
    return data
