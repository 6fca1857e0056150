"""A real registry for tests: Debian's docker-registry in a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

ADDRESS = "127.0.0.1:5000"
_CONFIG = """\
version: 0.1
log: {{ level: error }}
storage: {{ filesystem: {{ rootdirectory: {root} }} }}
http: {{ addr: {address}{tls} }}
{auth}"""


class Registry:
    """A registry on the loopback of a fresh namespace; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.namespace = f"strata-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
        self.path = Path("/run/netns") / self.namespace
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Registry:
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.guard()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        subprocess.run(["ip", "netns", "delete", self.namespace], check=True)

    def guard(self, *, certificate: Path | None = None, passwords: Path | None = None) -> None:
        """Have TLS (a certificate with its key beside it, `.key`) and a log-in from the next start.

        passwords: lines of `user:bcrypt`.
        """
        tls = auth = ""
        if certificate:
            tls = f", tls: {{ certificate: {certificate}, key: {certificate.with_suffix('.key')} }}"
        if passwords:
            auth = f"auth: {{ htpasswd: {{ realm: lab, path: {passwords} }} }}\n"
        config = _CONFIG.format(root=self.folder / "data", address=ADDRESS, tls=tls, auth=auth)
        (self.folder / "config.yml").write_text(config)

    def start(self) -> None:
        """Start serving; returns when it answers."""
        command = ["docker-registry", "serve", str(self.folder / "config.yml")]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self.inside(*command), stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )
        probe = f"exec 3<>/dev/tcp/{ADDRESS.replace(':', '/')}"
        deadline = time.monotonic() + 10
        while subprocess.run(self.inside("bash", "-c", probe), capture_output=True).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The registry's process."""
        if self._process is None:
            raise AssertionError("the registry is not running")
        return self._process.pid

    def stop(self) -> None:
        """End the registry."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def inside(self, *command: str) -> list[str]:
        """A command that runs in the registry's namespace."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def push(self, source: str, name: str) -> str:
        """Copy an image in; returns the digest it has there."""
        target = f"docker://{ADDRESS}/{name}"
        options = ["--quiet", "--dest-tls-verify=false", "--preserve-digests"]
        subprocess.run(
            self.inside("skopeo", "copy", *options, source, target), check=True, capture_output=True
        )
        shown = subprocess.run(
            self.inside(
                "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", target
            ),
            check=True,
            capture_output=True,
            text=True,
        )
        return shown.stdout.strip()
