"""skopeo's proxy as newer versions speak it, played by a small stand-in.

Debian's skopeo speaks 0.2.3. From 0.2.5 on other tools' stores are read through the proxy: their
layers lie uncompressed, under digests the manifest does not have.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from strata.core.errors import SignatureError, TransportError
from strata.oci import skopeo
from strata.oci.digest import Digest
from strata.oci.model import CONFIG, LAYER, LAYER_GZIP, Descriptor, ImageConfig, Manifest
from strata.oci.reference import BY_POLICY, BY_REMOTE, ImageReference, SignaturePolicy
from strata.oci.source import open_source

pytestmark = pytest.mark.unit

TAR = b"a layer, uncompressed" * 5000
STAND_IN = """\
#!{python}
import array, hashlib, json, os, socket, sys, threading
here = os.path.dirname(os.path.abspath(__file__))
def file(name):
    with open(os.path.join(here, name), "rb") as stream:
        return stream.read()
with open(os.path.join(here, "log"), "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
link = socket.socket(fileno=os.dup(0))
writer = None
def piped(data):
    global writer
    ours, theirs = os.pipe()
    def write():
        with os.fdopen(theirs, "wb") as stream:
            stream.write(data)
    writer = threading.Thread(target=write)
    writer.start()
    return ours
while True:
    request = link.recv(32768)
    if not request:
        break
    call = json.loads(request)
    method, fd, value, error = call["method"], -1, None, ""
    with open(os.path.join(here, "log"), "a") as log:
        log.write(method + "\\n")
    if method == "Initialize":
        value = "{version}"
    elif method == "OpenImage":
        value = 1
    elif method == "GetManifest":
        data = file("manifest")
        value, fd = "sha256:" + hashlib.sha256(data).hexdigest(), piped(data)
    elif method == "GetFullConfig":
        fd = piped(file("config"))
    elif method == "GetLayerInfo":
        value = json.loads(file("layers"))
    elif method == "GetLayerInfoPiped":
        fd = piped(file("layers"))
    elif method == "GetBlob":
        fd = piped(file(call["args"][1]))
    elif method == "FinishPipe":
        writer.join()
    else:
        error = "unknown method: " + method
    reply = dict(success=not error, value=value, pipeid=1 if fd >= 0 else 0, error=error)
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
    link.sendmsg([json.dumps(reply).encode()], extra)
    if fd >= 0:
        os.close(fd)
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> Path:
    """A skopeo of this protocol with one image of one layer; returns its log."""
    folder.mkdir()
    program = folder / "skopeo"
    text = STAND_IN.replace("{python}", sys.executable).replace("{version}", version)
    program.write_text(text)
    program.chmod(0o755)
    config = ImageConfig("amd64", "linux", "", {}, (Digest.of(TAR),)).to_bytes()
    layer = Descriptor(LAYER_GZIP, Digest.of(b"as it was pushed"), 1234)
    described = Descriptor(CONFIG, Digest.of(config), len(config))
    (folder / "manifest").write_bytes(Manifest(described, (layer,)).to_bytes())
    (folder / "config").write_bytes(config)
    (folder / str(Digest.of(TAR))).write_bytes(TAR)
    stored = {"digest": str(Digest.of(TAR)), "size": len(TAR), "media_type": LAYER}
    (folder / "layers").write_text(json.dumps([stored]))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "log"


STORED = ImageReference.parse("containers-storage:localhost/os:4.19")


@pytest.mark.parametrize(
    ("version", "method"),
    [
        ("0.2.5", "GetLayerInfo"),
        ("0.2.6", "GetLayerInfo"),
        ("0.2.7", "GetLayerInfoPiped"),
        ("0.10.0-dev", "GetLayerInfoPiped"),
    ],
)
def test_a_newer_proxy_reads_stores_without_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, method: str
) -> None:
    log = stand_in(tmp_path / "bin", monkeypatch, version)
    with open_source(STORED, architecture="x86_64") as source:
        (layer,) = source.manifest.layers
        assert (layer.digest, layer.media_type) == (Digest.of(TAR), LAYER)
        assert Manifest.parse(source.manifest_bytes) == source.manifest
        original = (tmp_path / "bin/manifest").read_bytes()
        assert source.manifest_digest == Digest.of(original)
        with source.open_layer(layer) as stream:
            data = b""
            while piece := stream.read(1 << 16):
                data += piece
    assert data == TAR
    calls = log.read_text().splitlines()
    assert method in calls
    assert not any(" copy " in call for call in calls)


@pytest.mark.parametrize(
    "rows", ["{}", "[1]", '[{"digest":"sha256:00"}]', '[{"digest":"x","size":-1,"media_type":"y"}]']
)
def test_layers_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    stand_in(tmp_path / "bin", monkeypatch, "0.2.7")
    (tmp_path / "bin/layers").write_text(rows)
    with pytest.raises(TransportError):
        with open_source(STORED, architecture="x86_64"):
            pass
    (tmp_path / "bin/layers").write_text("[]")
    with pytest.raises(TransportError, match="names 0 layers"):
        with open_source(STORED, architecture="x86_64"):
            pass


def test_the_policy_and_the_platform_are_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default":[{"type":"reject"}]}')
    monkeypatch.setenv("CONTAINERS_POLICY_JSON", str(policy))
    log = stand_in(tmp_path / "bin", monkeypatch, "0.2.8")
    with open_source(STORED, architecture="x86_64", signature=SignaturePolicy(BY_POLICY)):
        pass
    expected = f"--policy {policy} --override-arch amd64 experimental-image-proxy"
    assert expected in log.read_text().splitlines()
    options = skopeo.Options(None, "arm", "v7").arguments()
    assert options == ["--override-arch", "arm", "--override-variant", "v7"]


def test_a_protocol_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "bin", monkeypatch, "newest")
    with pytest.raises(TransportError, match="version 'newest' of its protocol"):
        skopeo.protocol()


def test_a_remotes_keys_are_not_passed_over() -> None:
    with pytest.raises(SignatureError, match="keys of the OSTree remote fedora"):
        with open_source(
            STORED, architecture="x86_64", signature=SignaturePolicy(BY_REMOTE, "fedora")
        ):
            pass
