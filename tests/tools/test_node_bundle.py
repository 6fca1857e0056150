"""`strata-node bundle`: what is in it, and that no secret is."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fake_disk import make_disk
from importlab import make_lab
from layertar import Tar
from strata.core.process import Completed
from strata.node import bundle, cli, host
from strata.ostree.repo import Repo

pytestmark = pytest.mark.tools

SECRETS = {
    "proxy=http://user:{}@proxy.example:3128": "hunter2-proxy",
    "Authorization: Basic {}": "dXNlcjpodW50ZXIyCg==",
    "got header 'Proxy-Authorization: {}'": "Negotiate-YIIabc",
    "using bearer {} now": "abcdefgh12345678",
    '"auth": "{}"': "cm9vdDpzZWNyZXQ=",
    '{{"registrytoken" : "{}"}}': "tok-a1b2c3",
    "coreos.inst.password={}": "kernel-arg-pass",
    "GET https://blobs.example/x?X-Signature={}&y=1": "sig-77aa",
    "token {}": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----": "MIIEow",
    "-----BEGIN PRIVATE KEY-----\n{}": "cut-off-at-the-end",
}


@pytest.mark.parametrize(("text", "secret"), SECRETS.items())
def test_a_secret_is_cut_out(text: str, secret: str) -> None:
    done = bundle.redact(f"before\n{text.format(secret)}")
    assert secret not in done
    assert bundle.CUT in done
    assert done.startswith("before\n")


def test_what_is_no_secret_stays() -> None:
    text = (
        "pulled docker://registry.example/ns/node@sha256:" + "0" * 64 + "\n"
        "kept /etc/hosts: it was changed here\nroot=UUID=1234 console=ttyS0\n"
    )
    assert bundle.redact(text) == text


def test_the_archive_has_what_support_needs_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = make_lab(tmp_path / "lab")
    lab.derive(Tar().add("usr/bin/new", b"new").bytes())
    disk = make_disk(lab, tmp_path / "machine", Repo.init(tmp_path / "machine/repo"), monkeypatch)
    state = disk.pull()
    told = "\n".join(text.format(secret) for text, secret in SECRETS.items())
    auth = tmp_path / "auth.json"
    auth.write_text('{"auths": {"registry.example": {"auth": "only-in-the-auth-file"}}}')
    config = tmp_path / "node.json"
    config.write_text(f'{{"image": "{disk.image}", "auth": "{auth}"}}')
    arguments = tmp_path / "cmdline"
    arguments.write_text(told)
    monkeypatch.setattr(bundle, "PATH", config)
    monkeypatch.setattr(host, "KERNEL_ARGUMENTS", arguments)

    def said(argv: list[str], *, check: bool, timeout_s: float) -> Completed:
        return Completed(tuple(argv), 0, f"{argv[0]} said\n{told}", told)

    monkeypatch.setattr(bundle, "run", said)
    dest = tmp_path / "bundle.tar.gz"
    assert cli.main(["bundle", str(dest)]) == 0
    assert dest.stat().st_mode & 0o777 == 0o600
    found = {}
    with tarfile.open(fileobj=io.BytesIO(dest.read_bytes())) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            found[member.name.removeprefix("strata-node/")] = stream.read().decode()
    assert found.keys() >= {"state.json", "phases.jsonl", "status.json", "node.json", "mounts"}
    assert found.keys() >= bundle.COMMANDS.keys()
    assert str(state.manifest_digest) in found["state.json"]
    assert "journalctl said" in found["journal.txt"]
    assert '"checkout"' in found["phases.jsonl"]
    whole = "".join(found.values())
    assert [secret for secret in SECRETS.values() if secret in whole] == []
    assert "only-in-the-auth-file" not in whole
    assert f"{dest}: " in capsys.readouterr().out


def test_what_cannot_be_had_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "COMMANDS", {"x.txt": ["no-such-tool-anywhere"]})
    make_disk(make_lab(tmp_path / "lab"), tmp_path / "m", Repo.init(tmp_path / "m/r"), monkeypatch)
    dest = tmp_path / "bundle.tar.gz"
    assert cli.main(["bundle", str(dest)]) == 0
    with tarfile.open(dest) as archive:
        for name, told in (
            ("x.txt", "not had: no-such-tool-anywhere is not installed"),
            ("overlay-plan.json", "not had: there is no pulled node image"),
        ):
            stream = archive.extractfile(f"strata-node/{name}")
            assert stream is not None
            assert stream.read().decode().startswith(told)
