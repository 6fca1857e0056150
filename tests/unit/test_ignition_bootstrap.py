"""The bootstrap's Ignition config as a value: what is in it, where, with which mode."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from strata.bootimage.ignition import File
from strata.bootimage.ignition.bootstrap import Bootstrap, bootstrap_config
from strata.bootimage.ignition.merge import merge_into
from strata.bootimage.ignition.network import Mirror, Network, registries_conf
from strata.bootimage.ignition.resource import MAX_BYTES, decode, encode
from strata.core.errors import DefinitionError, UsageError

pytestmark = pytest.mark.unit

PEM = b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
PULL = File("/etc/systemd/system/node-image-pull.service", b"[Service]\nExecStart=/bin/true\n")
DROP_IN = File("/etc/systemd/system/x.mount.d/10-a.conf", b"[Mount]\n")


def config(**network: Any) -> dict[str, Any]:
    wanted = Bootstrap({"version": 1}, [PULL, DROP_IN], network=Network(**network))
    found: dict[str, Any] = json.loads(bootstrap_config(wanted))
    return found


def data(resource: object) -> bytes:
    found = decode(resource, "test")
    assert found is not None
    return found


def files(document: dict[str, Any]) -> dict[str, tuple[int, bytes]]:
    return {
        one["path"]: (one["mode"], data(one["contents"])) for one in document["storage"]["files"]
    }


def test_without_a_network_there_is_the_configuration_and_the_units() -> None:
    document = config()
    assert files(document) == {"/etc/strata/node.json": (0o644, b'{\n  "version": 1\n}\n')}
    assert document["systemd"]["units"] == [
        {"name": "node-image-pull.service", "contents": PULL.data.decode()},
        {"name": "x.mount", "dropins": [{"name": "10-a.conf", "contents": "[Mount]\n"}]},
    ]
    assert "passwd" not in document


def test_secrets_are_roots_and_mirrors_are_everybodys() -> None:
    """R6.23: mirrors had to be readable by all; credentials must not be."""
    document = config(
        mirrors=[Mirror("a.example", "b.example")],
        auth=b"{}",
        certificates={"lab.pem": PEM},
        proxy="http://me:secret@proxy.example:3128",
        no_proxy=".lab,10.0.0.0/8",
    )
    found = files(document)
    assert {path: oct(mode) for path, (mode, _) in found.items()} == {
        "/etc/strata/node.json": "0o644",
        "/etc/containers/registries.conf.d/50-node-image.conf": "0o644",
        "/etc/strata/auth.json": "0o600",
        "/etc/strata/ca/lab.pem": "0o644",
        "/etc/strata/environment": "0o600",
    }
    assert found["/etc/strata/environment"][1].decode().splitlines() == [
        'HTTP_PROXY="http://me:secret@proxy.example:3128"',
        'HTTPS_PROXY="http://me:secret@proxy.example:3128"',
        'NO_PROXY=".lab,10.0.0.0/8"',
        'SSL_CERT_DIR="/etc/strata/ca:/etc/ssl/certs:/etc/pki/tls/certs"',
    ]
    pull = document["systemd"]["units"][0]
    assert "EnvironmentFile=/etc/strata/environment" in pull["dropins"][0]["contents"]
    assert "secret" not in json.dumps(document["systemd"])


def test_mirrors_of_one_source_stay_in_their_order() -> None:
    texts = ("a.example/x=m1.example/x", "b.example=m3.example:5000", "a.example/x=http://m2.lab")
    assert registries_conf([Mirror.parse(text) for text in texts]) == (
        '[[registry]]\nprefix = "a.example/x"\nlocation = "a.example/x"\n'
        '\n[[registry.mirror]]\nlocation = "m1.example/x"\n'
        '\n[[registry.mirror]]\nlocation = "m2.lab"\ninsecure = true\n'
        '[[registry]]\nprefix = "b.example"\nlocation = "b.example"\n'
        '\n[[registry.mirror]]\nlocation = "m3.example:5000"\n'
    )


@pytest.mark.parametrize(
    "text", ["a.example", "=b", "a=", 'a=b"', "a=ftp://b", "a b=c", "a=b\nc", "A.example/UP=b"]
)
def test_what_is_no_mirror_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a mirror"):
        Mirror.parse(text)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"proxy": "proxy:3128"}, "is not a proxy's address"),
        ({"proxy": 'http://a"b'}, "is not a proxy's address"),
        ({"proxy": "http://a\nX=1"}, "is not a proxy's address"),
        ({"no_proxy": "a"}, "without --proxy"),
        ({"proxy": "http://a", "no_proxy": "a\nb"}, "is not a list of hosts"),
        ({"certificates": {"a.pem": b"x"}}, "is not a certificate in PEM"),
        ({"certificates": {"a.pem": PEM + b"-----BEGIN PRIVATE KEY-----"}}, "private key"),
        ({"certificates": {".x": PEM}}, "is no name for a certificate's file"),
    ],
)
def test_what_would_break_a_file_is_refused(network: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**network)


def test_keys_are_for_core_and_only_public_ones() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@here"
    wanted = Bootstrap({}, [], ssh_keys=[key + "\n"])
    users = json.loads(bootstrap_config(wanted))["passwd"]["users"]
    assert users == [{"name": "core", "sshAuthorizedKeys": [key]}]
    with pytest.raises(UsageError, match="is not a public ssh key"):
        bootstrap_config(Bootstrap({}, [], ssh_keys=["-----BEGIN OPENSSH PRIVATE KEY-----"]))


# --- merged into an installer's config -----------------------------------------------------------


def merged(document: dict[str, Any]) -> list[bytes]:
    return [data(entry) for entry in document["ignition"]["config"]["merge"]]


def test_an_installers_config_merges_ours_once() -> None:
    parent = {
        "ignition": {"version": "3.2.0", "config": {"merge": []}},
        "storage": {"files": [{"path": "/x"}]},
    }
    first = bootstrap_config(Bootstrap({"version": 1}, [PULL]))
    second = bootstrap_config(Bootstrap({"version": 1, "late": "/run/x"}, [PULL]))
    once = merge_into(json.dumps(parent).encode(), first, "b.ign")
    again = json.loads(merge_into(once, second, "b.ign"))
    assert merged(json.loads(once)) == [first]
    assert merged(again) == [second]
    assert again["storage"] == parent["storage"]
    assert again["ignition"]["version"] == "3.2.0"


def test_what_others_merge_stays() -> None:
    others = [
        {"source": "https://x.example/a.ign"},
        {"source": "data:;base64,AAAA"},
        {"source": "data:,{}"},
        {"source": "data:,%7B%7D"},
    ]
    parent = {"ignition": {"version": "3.4.0", "config": {"merge": list(others)}}}
    document = json.loads(merge_into(json.dumps(parent).encode(), b"{}", "b.ign"))
    assert document["ignition"]["config"]["merge"][:4] == others


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (b"x", "b.ign is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"ignition": {"version": "3.2.0"}, "x": "\\ud800"}', "b.ign is not JSON"),
        (b"{}", "not an Ignition config of specification 3: its version is None"),
        (b'{"ignition": {"version": "2.2.0"}}', "its version is '2.2.0'"),
        (b'{"ignition": {"version": "3.2.0", "config": {"merge": 1}}}', "merge is not a list"),
        (b'{"ignition": {"version": "3.2.0", "config": 1}}', "merge is not a list"),
    ],
)
def test_what_cannot_be_merged_into_is_refused(parent: bytes, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        merge_into(parent, b"{}", "b.ign")


# --- what a config carries -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"short", b"\0\xff,%41", b"long" * 1000])
def test_what_is_encoded_is_decoded(content: bytes) -> None:
    assert decode(encode(content), "x") == content


@pytest.mark.parametrize(
    ("resource", "content"),
    [
        ({"source": "data:,a%20b+c"}, b"a b+c"),
        ({"source": "data:text/plain;charset=utf-8;base64,YQ=="}, b"a"),
        ({"source": "data:;base64,YQ%3D%3D"}, b"a"),
        ({"source": "https://x.example/y"}, None),
        ({"source": None}, b""),
        ({}, b""),
    ],
)
def test_data_urls_of_all_kinds_are_read(resource: object, content: bytes | None) -> None:
    assert decode(resource, "x") == content


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (1, "x is not an object"),
        ({"source": 1}, "source is not a text"),
        ({"source": "data:"}, "has no data"),
        ({"source": "data:;base64,A"}, "x cannot be read"),
        ({"source": "data:,abc", "compression": "gzip"}, "x cannot be read"),
        ({"source": encode(b"a" * 2000)["source"][:-8], "compression": "gzip"}, "is cut off"),
    ],
)
def test_what_cannot_be_read_is_refused(resource: object, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        decode(resource, "x")


def test_what_unpacks_to_too_much_is_refused() -> None:
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(bytes(MAX_BYTES + 1)) + packer.flush()
    source = "data:;base64," + base64.b64encode(packed).decode()
    with pytest.raises(DefinitionError, match="is larger than"):
        decode({"source": source, "compression": "gzip"}, "x")
