"""`strata-node pull` on a machine that `strata ignition bootstrap` set up, against real registries:
mirrors, releases, credentials, CAs, proxies, policies, digests (requirements R6.3, R6.23).

The network is a namespace with nothing but loopback: `registry.example` cannot be reached.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT
from importlab import make_lab
from layertar import Tar
from lookimages import write
from pulling import PullingMachine
from registry import ADDRESS, Registry

pytestmark = pytest.mark.tools

UNREACHABLE = "registry.example"
MIRROR = ("--mirror", f"{UNREACHABLE}=http://{ADDRESS}")
# `secret`, by bcrypt.
PASSWORDS = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
PROXY_PORT = 3128
_CA = """\
[ca]
default_ca = lab
[lab]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
default_days = 2
policy = any
copy_extensions = copy
x509_extensions = own
[any]
commonName = supplied
[own]
basicConstraints = critical, CA:TRUE
"""
TOOL = b"of the node layer\n"
# Exit statuses (docs/node.md).
REGISTRY, SIGNATURE, USAGE = 12, 16, 2


class Site:
    """A registry with a node image and a release that names it, and a machine beside it."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder, self.registry = folder, registry
        self.machine = PullingMachine(folder, registry)
        lab = make_lab(folder / "lab")
        lab.derive(Tar().add("usr/bin/new", TOOL).bytes())
        registry.start()
        self.node = registry.push(str(lab.reference()), "lab/node")
        self.release = registry.push(self._payload(), "lab/release")
        registry.stop()

    def _payload(self) -> str:
        name = f"{UNREACHABLE}/lab/node@{self.node}"
        tag = {"name": "rhel-coreos", "from": {"kind": "DockerImage", "name": name}}
        document = {
            "kind": "ImageStream",
            "apiVersion": "image.openshift.io/v1",
            "metadata": {"name": "4.19.0"},
            "spec": {"tags": [tag]},
        }
        references = json.dumps(document).encode()
        layer = Tar().add("release-manifests/image-references", references)
        return write(self.folder / "release", layer.bytes())

    def image(self, host: str = UNREACHABLE) -> tuple[str, str]:
        """The option that names the node image, at a host."""
        return "--image", f"{host}/lab/node@{self.node}"

    def pulls(self, *options: str) -> bool:
        """Set the machine up and pull; whether the node image is there, whole."""
        self.machine.set_up(*options)
        done = self.machine.pull()
        assert done.returncode == 0, done.stderr
        assert f"pulled {self.node}" in done.stdout
        return self.machine.checked_out("usr/bin/new") == TOOL

    def refusal(self, status: int, *options: str) -> str:
        """Set the machine up, and have the pull end with a status; what it says."""
        self.machine.set_up(*options)
        done = self.machine.pull()
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr

    def certificate(self, name: str, since: str = "") -> Path:
        """A self-signed certificate for a name as subjectAltName has it; its key is beside it.
        since: when it becomes valid; now."""
        certificate = self.folder / "lab.pem"
        key, request = certificate.with_suffix(".key"), self.folder / "lab.csr"
        config, index = self.folder / "ca.conf", self.folder / "index.txt"
        config.write_text(_CA.format(folder=self.folder))
        index.write_text("")
        for command in (
            [
                *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-subj", "/CN=lab", "-addext", f"subjectAltName={name}"),
                *("-keyout", str(key), "-out", str(request)),
            ],
            [
                *("ca", "-batch", "-selfsign", "-notext", "-config", str(config)),
                *("-keyfile", str(key), "-in", str(request), "-out", str(certificate)),
                *(["-startdate", since, "-enddate", "20490101000000Z"] if since else []),
            ],
        ):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        return certificate


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The images are pushed; the registry is stopped, for the test to guard and start."""
    with Registry(tmp_path / "registry") as registry:
        yield Site(tmp_path, registry)


def test_a_mirror_serves_a_host_that_cannot_be_reached(site: Site) -> None:
    site.registry.start()
    assert (
        f"{UNREACHABLE}/lab/node@{site.node}: no name server answers for the registry's name"
        in (site.refusal(REGISTRY, *site.image()))
    )
    assert site.pulls(*site.image(), *MIRROR)


def test_a_release_is_followed_to_its_image_through_the_mirror(site: Site) -> None:
    """R6.3: payload and image by digest, neither at the place it names."""
    site.registry.start()
    release = ("--release", f"{UNREACHABLE}/lab/release@{site.release}")
    missing = site.refusal(USAGE, *release, "--release-tag", "rhel-coreos-10", *MIRROR)
    assert "4.19.0 has no image rhel-coreos-10" in missing
    assert site.pulls(*release, *MIRROR)


def test_an_image_is_named_after_boot(site: Site) -> None:
    site.registry.start()
    late = site.folder / "pullspec"
    options = ("--late", str(late), *MIRROR)
    assert f"{late} is not written" in site.refusal(REGISTRY, *options)
    late.write_text(f"{UNREACHABLE}/lab/node@{site.node}\n")
    assert site.pulls(*options)


def test_a_self_signed_ca_is_trusted_when_it_is_named(site: Site) -> None:
    certificate = site.certificate("IP:127.0.0.1")
    site.registry.guard(certificate=certificate)
    site.registry.start()
    assert "certificate is not trusted" in site.refusal(REGISTRY, *site.image(ADDRESS))
    assert site.pulls(*site.image(ADDRESS), "--ca", str(certificate))


def test_a_clock_that_is_wrong_for_the_certificate_is_named(site: Site) -> None:
    """It is waited for as all network errors are: the time may still come from the network."""
    certificate = site.certificate("IP:127.0.0.1", since="20400101000000Z")
    site.registry.guard(certificate=certificate)
    site.registry.start()
    options = (*site.image(ADDRESS), "--ca", str(certificate))
    said = site.refusal(REGISTRY, *options)
    assert "the registry's certificate is not valid by this machine's clock" in said
    assert "is before 2040-01-01T00:00:00Z" in said
    site.registry.stop()
    certificate = site.certificate("IP:127.0.0.1")
    site.registry.start()
    assert site.pulls(*options)


def test_a_ca_that_the_machine_has_for_one_host_counts(site: Site) -> None:
    certificate = site.certificate("IP:127.0.0.1")
    site.registry.guard(certificate=certificate)
    site.registry.start()
    place = site.machine.root / "etc/containers/certs.d" / ADDRESS
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(certificate.read_bytes())
    assert site.pulls(*site.image(ADDRESS))


def test_credentials_open_a_registry_that_asks_for_them(site: Site) -> None:
    certificate = site.certificate("IP:127.0.0.1")
    passwords = site.folder / "passwords"
    passwords.write_text(PASSWORDS)
    site.registry.guard(certificate=certificate, passwords=passwords)
    site.registry.start()
    options = (*site.image(ADDRESS), "--ca", str(certificate))
    assert "refuses access" in site.refusal(REGISTRY, *options)
    auth = site.folder / "auth.json"

    def log_in(password: str) -> None:
        login = base64.b64encode(f"me:{password}".encode()).decode()
        auth.write_text(json.dumps({"auths": {ADDRESS: {"auth": login}}}))

    log_in("wrong")
    assert "refuses access" in site.refusal(REGISTRY, *options, "--auth", str(auth))
    log_in("secret")
    assert site.pulls(*options, "--auth", str(auth))


@contextmanager
def relay(registry: Registry, port: int, mode: Path) -> Iterator[subprocess.Popen[str]]:
    """A relay in front of the registry, in its namespace; what it says comes out."""
    driver = str(ROOT / "tests/relay.py")
    to_port = ADDRESS.rpartition(":")[2]
    argv = registry.inside(sys.executable, driver, str(port), to_port, str(mode))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_proxy_is_the_way_out(site: Site) -> None:
    certificate = site.certificate(f"DNS:{UNREACHABLE}")
    site.registry.guard(certificate=certificate)
    site.registry.start()
    mode = site.folder / "mode"
    mode.write_text("connect")
    proxy = (*site.image(), "--ca", str(certificate), "--proxy", f"http://127.0.0.1:{PROXY_PORT}")
    with relay(site.registry, PROXY_PORT, mode) as process:
        # Around the proxy there is no way.
        assert UNREACHABLE in site.refusal(REGISTRY, *proxy, "--no-proxy", UNREACHABLE)
        assert site.pulls(*proxy)
        process.kill()
        said = process.stdout.read().splitlines() if process.stdout else []
    assert set(said) == {f"CONNECT {UNREACHABLE}:443 HTTP/1.1"}


def test_a_policy_refuses_what_it_does_not_name(site: Site) -> None:
    site.registry.start()
    policy = site.folder / "policy.json"
    options = (*site.image(), *MIRROR, "--policy", str(policy))
    rules: dict[str, object] = {"default": [{"type": "reject"}]}
    policy.write_text(json.dumps(rules))
    assert "policy" in site.refusal(SIGNATURE, *options)
    accepted = {f"{UNREACHABLE}/lab": [{"type": "insecureAcceptAnything"}]}
    policy.write_text(json.dumps({**rules, "transports": {"docker": accepted}}))
    assert site.pulls(*options)


def test_a_policy_asks_the_release_and_its_image_for_signatures(site: Site) -> None:
    """The release is allowed unsigned, the image that it names has to be signed, and is not."""
    site.registry.start()
    policy = site.folder / "policy.json"
    key = site.folder / "key.pub"
    key.write_bytes(b"no signature will be looked at with it")
    signed = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(key)}]
    scopes = {
        f"{UNREACHABLE}/lab/release": [{"type": "insecureAcceptAnything"}],
        f"{UNREACHABLE}/lab/node": signed,
    }
    rules = {"default": [{"type": "reject"}], "transports": {"docker": scopes}}
    policy.write_text(json.dumps(rules))
    release = ("--release", f"{UNREACHABLE}/lab/release@{site.release}")
    said = site.refusal(SIGNATURE, *release, *MIRROR, "--policy", str(policy))
    assert "signature" in said


def test_a_digest_that_names_nothing_is_no_other_image(site: Site) -> None:
    site.registry.start()
    image = f"{UNREACHABLE}/lab/node@sha256:{'0' * 64}"
    said = site.refusal(REGISTRY, "--image", image, *MIRROR)
    assert f"{image}: there is no such image (its mirror)" in said
    assert not (site.machine.root / "ostree/node-image").exists()
