"""skopeo's words when something fails, as one sentence and a kind of error."""

from __future__ import annotations

import re

from strata.core.errors import (
    DigestError,
    NoSuchImageError,
    SignatureError,
    StrataError,
    TransportError,
)

# What is no word of skopeo's own: addresses, digests and references, host:port. Names may hold
# anything, "404" and "denied" included.
_NAMES = re.compile(
    r"""
    (?:https?|docker)://[^\s"\\]+
    | \bsha256:[0-9a-f]+ | \b[0-9a-f]{12,}\b
    | (?:reading\ manifest|inspecting\ image|name=)\s*\S+
    | (?<!\S)"?(?!i/o\b|username/password)[^\s"]+/[^\s"]+
    | \S+:[0-9]+(?=[\s:;,"]|$)
    """,
    re.VERBOSE,
)
_DIGEST_DIFFERS = (
    r"[Dd]igest (did not match|mismatch)|does not match.*digest|digest.*verif|corrupted blob"
)
# With mirrors, skopeo tells what they say, and last what the registry itself says.
_MIRRORS = re.compile(r"\(Mirrors also failed: (.*)\]\): (.*)")
_NO_IMAGE = "there is no such image"
_UNREACHABLE = (
    "the registry cannot be reached",
    "check that it runs, the network, and registries.conf",
)
_NO_NAME = "the registry's name is not known here"
_NO_DNS = "no name server answers for the registry's name"
_FAILURES = (
    (
        r"manifest unknown|name unknown|\bnot found\b|\b404\b",
        _NO_IMAGE,
        "check its name",
    ),
    (
        r"unauthorized|authentication required|\bdenied\b|\b40[13]\b",
        "the registry refuses access",
        "log in with skopeo login, or give an auth file",
    ),
    (
        r"no image found in (manifest list|image index)|no matching manifest",
        "the image is not there for this machine's architecture",
        "look at it with skopeo inspect --raw",
    ),
    (
        r"x509: certificate has expired or is not yet valid",
        "the registry's certificate is not valid by this machine's clock",
        "set the clock, or have the certificate renewed",
    ),
    (
        r"x509",
        "the registry's certificate is not trusted",
        "name its CA in /etc/containers/certs.d or with the system's; see the clock too",
    ),
    (
        r"gave HTTP response to HTTPS client",
        "the registry speaks HTTP, not HTTPS",
        "if it may, say insecure = true in registries.conf",
    ),
    (
        r"\blookup\b.*no such host",
        _NO_NAME,
        "check DNS, the proxy, and the mirrors in registries.conf",
    ),
    (r"\blookup\b", _NO_DNS, "check the network, and resolv.conf"),
    (r"connection refused|no route|i/o timeout|\bTLS\b|network is unreachable", *_UNREACHABLE),
    (
        r"unexpected EOF|connection reset|broken pipe|EOF",
        "the registry broke off",
        "run it again; whole layers are kept",
    ),
)


def transport_error(reference: str, output: str) -> StrataError:
    """skopeo's words as one sentence, with the words kept in the context."""
    text = " ".join(output.split())
    if re.search(_DIGEST_DIFFERS, text):
        return DigestError(
            f"{reference}: what the registry sent does not have its digest",
            hint="the registry's storage is damaged, or something in between changes data",
            context={"output": text},
        )
    if re.search(r"rejected by policy|signature was required|signature verif", text):
        return SignatureError(
            f"{reference}: the signature policy of this machine refuses it",
            hint="see policy.json, and who has signed the image",
            context={"output": text},
        )
    found = _failure(text)
    mirrored = _MIRRORS.search(text)
    if mirrored:
        found = _failure(mirrored[2])
        # Where only mirrors are reached, it is theirs that counts.
        if found is None or found[0] in (_UNREACHABLE[0], _NO_NAME, _NO_DNS):
            mirrors = _failure(mirrored[1])
            found = (f"{mirrors[0]} (its mirror)", mirrors[1]) if mirrors else found
    if found is None:
        return TransportError(f"{reference}: {text or 'skopeo ended'}", context={"output": text})
    kind = NoSuchImageError if found[0].startswith(_NO_IMAGE) else TransportError
    return kind(f"{reference}: {found[0]}", hint=found[1], context={"output": text})


def _failure(text: str) -> tuple[str, str] | None:
    """What a text of skopeo's says, and a hint; None when it is not known."""
    words = _NAMES.sub(" ", text)
    found = (row[1:] for row in _FAILURES if re.search(row[0], words, re.IGNORECASE))
    return next(found, None)
