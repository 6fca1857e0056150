"""Image references, bare and signed, and the policy a signed one asks for.

The vectors of the signed forms are ostree-ext's own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.core.errors import SignatureError, UsageError
from strata.oci.policy import accepts_anything, candidates, require_policy
from strata.oci.reference import (
    BY_POLICY,
    BY_REMOTE,
    UNVERIFIED,
    ImageReference,
    SignaturePolicy,
    SignedReference,
)

pytestmark = pytest.mark.unit

HEX = "ab" * 32
STORED = f"[overlay@/g+/r]localhost/x@sha256:{HEX}"

# text, transport, name, tag, digest, how it is shown when not the same
REFERENCES = [
    ("docker://example.com/exampleos/blah", "docker", "example.com/exampleos/blah", "", "", ""),
    (
        "registry:example.com/exampleos/blah",
        *("docker", "example.com/exampleos/blah", "", ""),
        "docker://example.com/exampleos/blah",
    ),
    (
        "registry:registry.example:5000/a:t",
        *("docker", "registry.example:5000/a", "t", ""),
        "docker://registry.example:5000/a:t",
    ),
    ("docker://registry.example/a/b:tag", "docker", "registry.example/a/b", "tag", "", ""),
    (f"docker://h.example:5000/a@sha256:{HEX}", "docker", "h.example:5000/a", "", HEX, ""),
    (f"docker://h.example/a:t@sha256:{HEX}", "docker", "h.example/a", "t", HEX, ""),
    ("oci:/var/tmp/x", "oci", "/var/tmp/x", "", "", ""),
    ("oci:/var/store:node/4.19@sample-12", "oci", "/var/store", "node/4.19@sample-12", "", ""),
    (f"oci:/var/store@sha256:{HEX}", "oci", "/var/store", "", HEX, ""),
    ("oci-archive:out.tar:4.19", "oci-archive", "out.tar", "4.19", "", ""),
    ("oci-archive:out.tar", "oci-archive", "out.tar", "", "", ""),
    ("docker-archive:out.tar", "docker-archive", "out.tar", "", "", ""),
    (
        "docker-archive:a.tar:example.com/a/b:c",
        "docker-archive",
        "a.tar",
        "example.com/a/b:c",
        "",
        "",
    ),
    ("docker-archive:out.tar:@0", "docker-archive", "out.tar", "@0", "", ""),
    ("dir:/a:b@c", "dir", "/a:b@c", "", "", ""),
    ("containers-storage:localhost/a_b:c", "containers-storage", "localhost/a_b:c", "", "", ""),
    (f"containers-storage:{STORED}", "containers-storage", STORED, "", "", ""),
    ("docker-daemon:name:tag", "docker-daemon", "name:tag", "", "", ""),
]


@pytest.mark.parametrize(
    ("text", "transport", "name", "tag", "digest", "shown"),
    REFERENCES,
    ids=[row[0] for row in REFERENCES],
)
def test_a_reference_is_read_and_shown(
    text: str, transport: str, name: str, tag: str, digest: str, shown: str
) -> None:
    reference = ImageReference.parse(text)
    assert (reference.transport, reference.name, reference.tag) == (transport, name, tag)
    assert (reference.digest.hex if reference.digest else "") == digest
    assert str(reference) == (shown or text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an image reference"),
        ("foo://", "is not an image reference"),
        ("foo:bar", "is not an image reference"),
        ("registry.example/a:b", "is not an image reference"),
        ("docker:blah", "lacks the slashes"),
        ("docker:registry.example/a", "lacks the slashes"),
        ("docker://", "is not docker://HOST/NAME"),
        ("registry:", "is not docker://HOST/NAME"),
        ("docker://justhost", "is not docker://HOST/NAME"),
        ("docker://registry.example/A B", "is not docker://HOST/NAME"),
        ("docker://registry.example/a:", "no proper tag"),
        ("docker://registry.example/a:t!", "no proper tag"),
        ("docker://registry.example/a@sha256:zz", "64 hex digits"),
        (f"oci:x@sha256:{HEX}0", "64 hex digits"),
        ("oci:", "names nothing"),
        ("oci::tag", "names nothing"),
        ("oci:x:", "ends where its tag should be"),
        ("dir:", "names nothing"),
        ("oci:a\0b", "holds a NUL"),
    ],
)
def test_what_is_no_reference_says_why(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ImageReference.parse(text)


BLAH = "docker://example.com/exampleos/blah"
REMOTE = f"ostree-remote-image:myremote:{BLAH}"
SIGNED = [
    # the long form and the short one are the same
    (
        "ostree-remote-image:myremote:registry:example.com/exampleos/blah",
        *(BY_REMOTE, "myremote", BLAH, REMOTE),
    ),
    (REMOTE, BY_REMOTE, "myremote", BLAH, REMOTE),
    (
        "ostree-remote-registry:myremote:example.com/exampleos/blah",
        *(BY_REMOTE, "myremote", BLAH, REMOTE),
    ),
    (f"ostree-image-signed:{BLAH}", BY_POLICY, "", BLAH, f"ostree-image-signed:{BLAH}"),
    ("ostree-image-signed:oci:/x:y", BY_POLICY, "", "oci:/x:y", "ostree-image-signed:oci:/x:y"),
    (
        f"ostree-unverified-image:{BLAH}",
        *(UNVERIFIED, "", BLAH, "ostree-unverified-registry:example.com/exampleos/blah"),
    ),
    (
        "ostree-unverified-registry:example.com/exampleos/blah:tag",
        *(
            UNVERIFIED,
            "",
            f"{BLAH}:tag",
            "ostree-unverified-registry:example.com/exampleos/blah:tag",
        ),
    ),
    (
        "ostree-unverified-image:oci:/path/to/x:latest",
        *(UNVERIFIED, "", "oci:/path/to/x:latest"),
        "ostree-unverified-image:oci:/path/to/x:latest",
    ),
]


@pytest.mark.parametrize(
    ("text", "source", "remote", "image", "shown"), SIGNED, ids=[row[0] for row in SIGNED]
)
def test_a_signed_reference_is_read_and_shown(
    text: str, source: str, remote: str, image: str, shown: str
) -> None:
    reference = SignedReference.parse(text)
    assert reference.signature == SignaturePolicy(source, remote)
    assert str(reference.image) == image
    assert str(reference) == shown
    assert SignedReference.parse(shown) == reference
    assert SignedReference.parse_any(text) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("docker://example.com/a/b", "does not say who"),
        ("ostree-foo:docker://example.com/a/b", "does not say who"),
        ("ostree-foo-image:docker://example.com/a/b", "does not say who"),
        ("ostree-remote-image:example.com/a/b", "does not name its remote"),
        ("ostree-remote-registry::example.com/a/b", "does not name its remote"),
        ("ostree-image-signed:", "is not an image reference"),
        ("ostree-unverified-registry:", "is not docker://HOST/NAME"),
        ("ostree-image-signed:ostree-image-signed:oci:x", "is not an image reference"),
    ],
)
def test_what_is_no_signed_reference_says_why(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SignedReference.parse(text)


def test_a_bare_reference_asks_for_nothing() -> None:
    bare = SignedReference.parse_any("oci:x:y")
    assert bare == SignedReference(SignaturePolicy(UNVERIFIED), ImageReference("oci", "x", "y"))


# --- policy.json ---------------------------------------------------------------------------------

ACCEPT = {"type": "insecureAcceptAnything"}


@pytest.mark.parametrize(
    ("document", "anything"),
    [
        ({"default": [ACCEPT]}, True),
        ({"default": [ACCEPT], "transports": {"docker": {"": [{"type": "reject"}]}}}, True),
        ({"default": [{"type": "reject"}]}, False),
        ({"default": [ACCEPT, {"type": "reject"}]}, False),
        ({"default": []}, False),
        ({}, False),
        ({"default": "x"}, False),
    ],
)
def test_which_policy_accepts_everything(document: object, anything: bool) -> None:
    assert accepts_anything(json.dumps(document).encode(), "policy.json") is anything


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        accepts_anything(text.encode(), "policy.json")


def test_where_the_policy_is_looked_for() -> None:
    system = [Path("/etc/containers/policy.json"), Path("/usr/share/containers/policy.json")]
    assert candidates({}) == system
    assert candidates({"HOME": "/h"}) == [Path("/h/.config/containers/policy.json"), *system]
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": "/x", "CONTAINERS_POLICY_JSON": "/p"}
    assert candidates(environ) == [Path("/p"), Path("/x/containers/policy.json"), *system]


def test_a_policy_that_accepts_everything_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"default": [ACCEPT]}))
    with pytest.raises(SignatureError, match="accepts everything"):
        require_policy({"CONTAINERS_POLICY_JSON": str(path)})
    path.write_text(json.dumps({"default": [{"type": "reject"}]}))
    assert require_policy({"CONTAINERS_POLICY_JSON": str(path)}) == path
