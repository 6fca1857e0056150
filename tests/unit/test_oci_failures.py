"""skopeo's words, as it says them, and the one sentence they become."""

from __future__ import annotations

import pytest

from strata.core.errors import DigestError, StrataError, TransportError
from strata.oci.failures import transport_error

pytestmark = pytest.mark.unit

# As skopeo 1.9.3 wrote them, asked for a digest (or a tag) that is full of status codes.
DIGEST = "sha256:" + "4044" * 16
AT = (
    f'time="2026-07-11T09:00:00Z" level=fatal msg="initializing source '
    f"docker://127.0.0.1:38557/app/x@{DIGEST}: reading manifest {DIGEST} in 127.0.0.1:38557/app/x: "
)
INSPECT = (
    f'level=fatal msg="Error parsing image name \\"docker://127.0.0.1:38557/app/x@{DIGEST}\\": '
    f"reading manifest {DIGEST} in 127.0.0.1:38557/app/x: "
)
PING = 'level=fatal msg="initializing source docker://'
MIRROR = (
    "x: (Mirrors also failed: [127.0.0.1:5000/a: {}]): h/x: pinging container registry h: dial "
    'tcp: lookup h on 192.0.2.53:53: no such host"'
)
NO_IMAGE, REFUSED = "there is no such image", "the registry refuses access"
UNREACHABLE, BROKE_OFF = "the registry cannot be reached", "the registry broke off"
WRONG_TIME = "the registry's certificate is not valid by this machine's clock"
NO_DNS = "no name server answers for the registry's name"
UNTRUSTED = "the registry's certificate is not trusted"
NO_NAME, PLAIN = "the registry's name is not known here", "the registry speaks HTTP, not HTTPS"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (AT + 'StatusCode: 404, "', NO_IMAGE),
        (INSPECT + 'StatusCode: 404, "', NO_IMAGE),
        (AT + 'manifest unknown: manifest unknown"', NO_IMAGE),
        (INSPECT + 'manifest unknown: manifest unknown"', NO_IMAGE),
        (AT + 'unauthorized: authentication required"', REFUSED),
        (INSPECT + 'unauthorized: authentication required"', REFUSED),
        (AT + 'StatusCode: 403, "', REFUSED),
        (AT + 'denied"', REFUSED),
        (INSPECT + 'denied"', REFUSED),
        (
            f"{PING}registry.example/app/x:v1: Requesting bear token: invalid status code from "
            'registry 403 (Forbidden)"',
            REFUSED,
        ),
        (
            f"{PING}registry.example/a/x:v1: unable to retrieve auth token: invalid "
            'username/password: unauthorized: incorrect username or password"',
            REFUSED,
        ),
        (
            f"{PING}127.0.0.1:403/app/x@{DIGEST}: pinging container registry 127.0.0.1:403: Get "
            '\\"http://127.0.0.1:403/v2/\\": dial tcp 127.0.0.1:403: connect: connection refused"',
            UNREACHABLE,
        ),
        (
            f"{PING}nohost.invalid:4040/a/b:404: pinging container registry nohost.invalid:4040: "
            'Get \\"http://nohost.invalid:4040/v2/\\": dial tcp: lookup nohost.invalid on '
            '192.0.2.53:53: no such host"',
            NO_NAME,
        ),
        *(
            (
                f'{PING}h.example: Get \\"https://h.example/v2/\\": dial tcp: lookup h.example on '
                f'192.0.2.53:53: {why}"',
                NO_DNS,
            )
            for why in (
                "read udp 192.0.2.7:404->192.0.2.53:53: read: connection refused",
                "dial udp 192.0.2.53:53: connect: network is unreachable",
                "server misbehaving",
            )
        ),
        (
            f"{PING}registry.example:404/denied/401:403: pinging container registry "
            'registry.example:404: Get \\"https://registry.example:404/v2/\\": dial tcp '
            '192.0.2.1:404: i/o timeout"',
            UNREACHABLE,
        ),
        (
            f"{PING}registry.example/a/b:401: pinging container registry registry.example: Get "
            '\\"https://registry.example/v2/\\": x509: certificate signed by unknown authority"',
            UNTRUSTED,
        ),
        (
            f"{PING}127.0.0.1:5000/a/b:1: pinging container registry 127.0.0.1:5000: Get "
            '\\"https://127.0.0.1:5000/v2/\\": http: server gave HTTP response to HTTPS client"',
            PLAIN,
        ),
        (
            MIRROR.format("dial tcp 127.0.0.1:5000: connect: connection refused"),
            f"{UNREACHABLE} (its mirror)",
        ),
        (MIRROR.format("manifest unknown: manifest unknown"), f"{NO_IMAGE} (its mirror)"),
        (MIRROR.format('Get "http://127.0.0.1:5000/v2/": EOF'), f"{BROKE_OFF} (its mirror)"),
        (MIRROR.format("toomanyrequests: slow down"), NO_NAME),
        (
            MIRROR.format("manifest unknown").partition("h/x: pinging")[0] + "h/x: denied",
            REFUSED,
        ),
        (
            f"{PING}h/x: dial tcp 192.0.2.1:443: connect: network is unreachable",
            UNREACHABLE,
        ),
        (
            f"{PING}h/x: x509: certificate has expired or is not yet valid: current time "
            "2036-01-01T00:00:00Z is after 2027-01-01T00:00:00Z",
            WRONG_TIME,
        ),
        (f'level=fatal msg="reading blob {DIGEST}: unexpected EOF"', BROKE_OFF),
        (
            f'level=fatal msg="Get \\"https://registry.example/v2/x/blobs/{DIGEST}\\": read tcp '
            '192.0.2.7:40404->192.0.2.1:443: read: connection reset by peer"',
            BROKE_OFF,
        ),
        (
            "no image found in manifest list for architecture s390x, variant , OS linux",
            "the image is not there for this machine's architecture",
        ),
    ],
)
def test_skopeos_words_become_one_sentence(text: str, what: str) -> None:
    error = transport_error("docker://h/x", text)
    assert isinstance(error, TransportError)
    assert error.message == f"docker://h/x: {what}"
    assert error.context["output"] == text


@pytest.mark.parametrize(
    "what",
    [
        "received unexpected HTTP status: 500 Internal Server Error",
        "toomanyrequests: You have reached your pull rate limit.",
    ],
)
def test_what_is_not_known_is_told_in_skopeos_words(what: str) -> None:
    error = transport_error("docker://h/x", AT + what)
    assert isinstance(error, TransportError)
    assert error.message.endswith(what)


@pytest.mark.parametrize(
    "text",
    [
        f"Manifest does not match provided manifest digest {DIGEST}",
        f"corrupted blob, expecting {DIGEST}",
        f"Digest did not match, expected {DIGEST}, got sha256:{'0' * 64}",
    ],
)
def test_other_bytes_than_the_digest_says_are_a_digest_error(text: str) -> None:
    error: StrataError = transport_error("docker://h/x", text)
    assert isinstance(error, DigestError)
