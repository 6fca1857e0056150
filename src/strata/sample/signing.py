"""The sample's own key: made once, kept in the cache, and what it signs.

The secret key is one file of the cache, mode 0600. gpg gets it in a home that lives as long as a
run does; the agent that gpg starts there ends with it. Signatures are RSA and made "at" one fixed
time, so the same key gives the same bytes; a key of another cache gives others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.core.files import atomic_write, remove_tree
from strata.core.process import run
from strata.core.tools import find_tool

KEY_FILE = "sample-signing-key.asc"
PUBLIC_KEY = "RPM-GPG-KEY-sample"
OWNER = "strata sample"
# 2020-01-01: the key is made and signs at this time, whenever that is.
_TIME = 1577836800
_FROZEN = f"{_TIME}!"


@dataclass(frozen=True)
class Signer:
    """A key that can sign. public: it, for others, in ASCII armour."""

    home: Path
    fingerprint: str
    public: bytes

    def sign_package(self, rpm: Path) -> None:
        """Put a signature into an RPM's header."""
        macros = {
            "__gpg": find_tool("gpg"),
            "_gpg_name": self.fingerprint,
            "_gpg_digest_algo": "sha256",
            "_gpg_sign_cmd_extra_args": f"--batch --faked-system-time {_FROZEN}",
        }
        argv = ["rpmsign", "--addsign"]
        for key, value in macros.items():
            argv += ["--define", f"{key} {value}"]
        run([*argv, str(rpm)], env={"GNUPGHOME": str(self.home), "HOME": str(self.home)})

    def sign_file(self, path: Path) -> None:
        """Write `PATH.asc`, a detached signature of a file."""
        sign = ("--armor", "--digest-algo", "sha256", "--detach-sign")
        _gpg(
            self.home, "--local-user", self.fingerprint, "--output", f"{path}.asc", *sign, str(path)
        )


@contextmanager
def signing(cache: Path) -> Iterator[Signer]:
    """The sample's key, made when there is none; only while holding the sample cache."""
    # gpg's agent listens in its home, and a socket's name has to be short: not in the cache.
    home = Path(tempfile.mkdtemp(prefix="strata-gpg.", dir="/tmp"))
    try:
        secret = cache / KEY_FILE
        if secret.exists():
            _gpg(home, "--import", str(secret))
        else:
            _gpg(
                home, "--passphrase", "", "--quick-generate-key", OWNER, "rsa3072", "sign", "never"
            )
            key = _gpg(home, "--armor", "--export-secret-keys")
            atomic_write(secret, key.encode(), 0o600)
        listing = _gpg(home, "--with-colons", "--list-keys").splitlines()
        fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr:"))
        yield Signer(home, fingerprint, _gpg(home, "--armor", "--export", fingerprint).encode())
    finally:
        run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
        remove_tree(home)


def _gpg(home: Path, *arguments: str) -> str:
    frozen = ("--faked-system-time", _FROZEN)
    return run(["gpg", "--homedir", str(home), "--batch", *frozen, *arguments]).stdout
