"""Verifying what a repository's keys signed: its index by gpgv, its packages by rpm itself.

A signature is required, not only checked where there is one: rpm is told so by its own macro
(`_pkgverify_level signature`) and finds the repository's keys, and no others, in a database made
for the purpose.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from strata.core.errors import RepositoryError
from strata.core.process import run
from strata.rpm.keys import Keys

_RPM_KEY = re.compile(r"key ID ([0-9a-fA-F]{8,16}): (NOKEY|BAD|NOTTRUSTED)")
_GPG_KEY = re.compile(r"\[GNUPG:\] (NO_PUBKEY|BADSIG|EXPSIG|ERRSIG) ([0-9A-F]{8,16})\b")


def verify_index(keys: Keys, index: bytes, signature: bytes) -> None:
    """Check a detached signature of a repository's index. Raises SignatureError."""
    with tempfile.TemporaryDirectory(prefix="strata-keys.") as name:
        home = Path(name)
        files = {"keys.gpg": keys.binary, "repomd.xml": index, "repomd.xml.asc": signature}
        for file, data in files.items():
            (home / file).write_bytes(data)
        done = run(
            [
                *("gpgv", "--homedir", name, "--keyring", str(home / "keys.gpg")),
                *("--status-fd", "1", str(home / "repomd.xml.asc"), str(home / "repomd.xml")),
            ],
            check=False,
        )
    # An index may have several signatures, one of them by a key that is still to come; gpgv fails
    # when it does not know one. GOODSIG is said of what is right and has not expired.
    said = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")}
    if {"GOODSIG", "VALIDSIG"} <= said and "BADSIG" not in said:
        return
    found = _GPG_KEY.search(done.stdout)
    raise keys.complain(
        f"the index of repository {keys.repo.id}",
        found[2] if found else "",
        changed="BADSIG" in said,
        output=done.stderr,
    )


def verify_packages(keys: Keys, packages: Sequence[Path]) -> None:
    """Check that each package file is signed by one of the keys. Raises SignatureError.

    Nothing of it is remembered: rpm takes some 3 ms a package.
    """
    if not packages:
        return
    with tempfile.TemporaryDirectory(prefix="strata-keys.") as name:
        home = Path(name)
        (home / "keys.asc").write_bytes(keys.armored)
        done = _rpmkeys(home, "--import", str(home / "keys.asc"))
        if done:
            raise RepositoryError(
                f"rpm cannot take the keys of repository {keys.repo.id}",
                hint="rpm reads OpenPGP keys of version 4",
                context={"repository": keys.repo.id, "output": done},
            )
        # The status decides; who and why is asked for only when it is not 0.
        failed = _rpmkeys(home, "--checksig", *(str(path) for path in packages))
        if not failed:
            return
        each = [(path, _rpmkeys(home, "--checksig", "--verbose", str(path))) for path in packages]
    wrong = [(path, said) for path, said in each if said] or [(packages[0], failed)]
    path, said = wrong[0]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    what = f"{path.name.removesuffix('.rpm')}{more} from repository {keys.repo.id}"
    found = _RPM_KEY.search(said)
    changed = re.search(r"(?:digest|key ID [0-9a-f]+): BAD", said) is not None
    raise keys.complain(what, found[1] if found else "", changed=changed, output=said)


def _rpmkeys(home: Path, *arguments: str) -> str:
    """Run rpmkeys on a database in `home`; returns what it said of a failure, or nothing."""
    macros = {"_pkgverify_level": "signature", "_pkgverify_flags": "0x0"}
    argv = ["rpmkeys", "--dbpath", str(home / "db")]
    for key, value in macros.items():
        argv += ["--define", f"{key} {value}"]
    # HOME: macros of whoever calls play no part.
    done = run([*argv, *arguments], env={"HOME": str(home)}, check=False)
    return (done.stdout + done.stderr).strip() or "failed" if done.status else ""
