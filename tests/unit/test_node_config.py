"""The agent's configuration: what is read, what is refused, and which image it means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.core.errors import DefinitionError, TransportError
from strata.core.events import silent
from strata.node.config import NodeConfig, parse_config
from strata.node.wanted import Wanted, read_late
from strata.oci.reference import SignedReference

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "a" * 64
PULLSPEC = f"registry.example/node@{DIGEST}"


def parse(**document: object) -> NodeConfig:
    return parse_config(json.dumps(document).encode(), "node.json")


def refused(**document: object) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        parse(**document)
    return caught.value


def test_everything_that_can_be_said_is_read_and_written_back() -> None:
    document: dict[str, object] = {
        "version": 1,
        "image": f"docker://{PULLSPEC}",
        "auth": "/etc/strata/auth.json",
        "policy": "/etc/strata/policy.json",
        "keep": ["bootkube.service", "assisted-*"],
        "restart": {"sshd.service": "restart", "*": "leave"},
        "probe": ["/usr/local/bin/healthy", "--quick"],
        "probe_timeout_s": 5.0,
        "etc": "theirs",
    }
    config = parse(**document)
    assert config.image is not None
    assert str(config.image.image) == f"docker://{PULLSPEC}"
    assert config.to_json() == document
    assert parse_config(json.dumps(config.to_json()).encode(), "x") == config
    assert NodeConfig().to_json() == {"version": 1}


def test_rules_for_units_are_asked_in_order_and_keep_is_above_them() -> None:
    config = parse(
        image=PULLSPEC, keep=["a.service"], restart={"a.service": "restart", "b*": "restart"}
    )
    assert config.restart_rule("a.service") == "leave"
    assert config.restart_rule("b.service") == "restart"
    assert config.restart_rule("c.service") is None
    assert config.keeps("a.service")
    assert not config.keeps("b.service")


def test_a_file_that_is_missing_is_the_defaults(tmp_path: Path) -> None:
    assert NodeConfig.load(tmp_path / "node.json") == NodeConfig()


@pytest.mark.parametrize(
    ("document", "message", "hint"),
    [
        ({"imag": "x"}, "node.json: imag is not known", "did you mean image?"),
        ({"zzz": 1}, "node.json: zzz is not known", "known: version, image"),
        ({"version": 2}, "node.json: version is 2", "this agent reads version 1"),
        ({"version": True}, "node.json: version is True", "this agent reads version 1"),
        ({"image": "docker:x"}, "node.json: image is wrong: 'docker:x' lacks the slashes", None),
        ({"image": 5}, "node.json: image is 5, not a text", None),
        ({"image": ""}, 'node.json: image is "", not a text', None),
        ({"auth": "auth.json"}, 'node.json: auth is "auth.json", not an absolute path', None),
        ({"keep": "a"}, 'node.json: keep is "a", not a list of texts', None),
        ({"restart": {"a": "no"}}, 'not an object of UNIT: "restart" or "leave"', None),
        ({"probe_timeout_s": 0}, "probe_timeout_s is 0, not a number of seconds", None),
        ({"etc": "yours"}, 'etc is "yours", not "mine", "theirs" or "fail"', None),
        (
            {"image": PULLSPEC, "late": "/run/x"},
            "node.json: late does not go with image",
            "keep one of them",
        ),
    ],
)
def test_what_is_wrong_is_named(
    document: dict[str, object], message: str, hint: str | None
) -> None:
    error = refused(**document)
    assert message in error.message
    assert hint is None or hint in (error.hint or "")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b"\xff", b'{"late": "/a", "late": "/b"}', b"[" * 100_000, b" " * (1 << 21)],
)
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(DefinitionError, match=r"^node\.json"):
        parse_config(data, "node.json")


def test_the_policy_holds_for_references_that_ask_for_nothing_else() -> None:
    config = parse(image=PULLSPEC, policy="/p.json")
    assert config.image is not None
    assert str(config.signed(config.image)) == f"ostree-image-signed:docker://{PULLSPEC}"
    assert config.environment() == {"CONTAINERS_POLICY_JSON": "/p.json"}
    named = SignedReference.parse_pullspec("oci:/x:y")
    found = Wanted(config, named).image(architecture="x86_64", reporter=silent())
    assert str(found) == "ostree-image-signed:oci:/x:y"


# --- which image ---------------------------------------------------------------------------------


def wanted(config: NodeConfig) -> SignedReference:
    return Wanted(config).image(architecture="x86_64", reporter=silent())


def test_an_image_that_is_named_is_the_one() -> None:
    assert str(wanted(parse(image=PULLSPEC)).image) == f"docker://{PULLSPEC}"


def test_no_image_is_an_error_that_says_what_to_write() -> None:
    with pytest.raises(DefinitionError, match="none of image, release and late") as caught:
        wanted(NodeConfig())
    assert "--image" in str(caught.value.hint)


def test_an_image_named_after_boot_is_waited_for_and_read(tmp_path: Path) -> None:
    late = tmp_path / "pullspec"
    config = parse(late=str(late))
    with pytest.raises(TransportError, match=r"not known yet: .*pullspec is not written"):
        wanted(config)
    late.write_text("\n")
    with pytest.raises(TransportError, match="not known yet"):
        wanted(config)
    late.write_text(f"{PULLSPEC}\n")
    assert str(wanted(config).image) == f"docker://{PULLSPEC}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "more than an image reference"),
        ("x" * 5000, "more than an image reference"),
        ("registry.example/node:latest", "not .* by digest"),
        ("nonsense", "HOST/NAME"),
    ],
)
def test_something_else_in_the_late_file_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    late = tmp_path / "pullspec"
    late.write_text(text)
    with pytest.raises(DefinitionError, match=message):
        read_late(late)
