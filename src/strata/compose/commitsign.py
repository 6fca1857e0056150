"""`gpg-key`: a commit signed by the key of who builds, in its detached metadata.

The signature is made "at" the commit's time, so that an RSA or Ed25519 key gives the same bytes for
the same commit. Source: libostree's ostree-repo.c (`ostree.gpgsigs`, an array of signatures).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from strata.core.process import run
from strata.ostree.gvariant import Variant, pack_array
from strata.ostree.repo import Repo
from strata.treefile.yaml import Place, definition_error

SIGNATURES = "ostree.gpgsigs"


def signing_key(name: str, place: Place) -> str:
    """The fingerprint of a secret key of who builds. Raises DefinitionError when it is not there.

    name: the treefile's `gpg-key`, an id as gpg takes it.
    """
    argv = ["gpg", "--batch", "--with-colons", "--list-secret-keys", "--", name]
    done = run(argv, check=False)
    prints = [line.split(":")[9] for line in done.stdout.splitlines() if line.startswith("fpr:")]
    if done.status or not prints:
        raise definition_error(
            place,
            f"gpg has no secret key {name}",
            "import it into the home of who builds (or GNUPGHOME), or leave gpg-key out",
            key="gpg-key",
        )
    return prints[0]


def signature_of(repo: Repo, commit: str, fingerprint: str) -> Variant:
    """The value of SIGNATURES for a commit in a repository. Raises ToolFailedError."""
    when = repo.commit(commit).timestamp
    with tempfile.TemporaryDirectory(prefix="strata-sign.") as scratch:
        data, target = Path(scratch, "commit"), Path(scratch, "signature")
        data.write_bytes(repo.read_metadata(commit, "commit"))
        argv = ["gpg", "--batch", "--no-tty", "--faked-system-time", f"{when}!"]
        argv += ["--ignore-time-conflict", "--ignore-valid-from", "--local-user", fingerprint]
        argv += ["--digest-algo", "sha256", "--output", str(target), "--detach-sign", str(data)]
        run(argv)
        return Variant("aay", pack_array([target.read_bytes()]))
