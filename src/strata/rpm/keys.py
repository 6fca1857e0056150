"""A repository's public keys, as its `.repo` file names them: read by gpg, in a home of their own.

A key that has expired or was revoked counts no more, and neither does such a subkey: rpm does not
look at that, so what rpm and gpgv are given is exported without them.
"""

from __future__ import annotations

import tempfile
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path

from strata.core.clock import rfc3339
from strata.core.errors import SignatureError
from strata.core.process import Completed, run
from strata.rpm.download import FetchError, fetch
from strata.rpm.repofile import RepoConfig

MAX_KEY_BYTES = 1 << 20
_LAPSED = {"e": "expired", "r": "was revoked", "d": "is disabled", "i": "is not valid"}


@dataclass(frozen=True)
class Key:
    """A public key, or a subkey of one. id: the last 16 digits of its fingerprint, in lower case.

    lapsed: why it does not count, as a verb ("expired on 2018-01-01"); empty when it does.
    """

    id: str
    fingerprint: str
    owner: str
    lapsed: str
    primary: bool

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.owner})"


@dataclass(frozen=True)
class Keys:
    """The keys of one repository, of which at least one counts.

    armored, binary: those that count and no others, as rpm and as gpgv read them.
    """

    repo: RepoConfig
    keys: tuple[Key, ...]
    armored: bytes
    binary: bytes

    def complain(
        self, what: str, key_id: str, *, changed: bool = False, output: str = ""
    ) -> SignatureError:
        """The error of something whose signature does not count.

        what: "the index of repository base". key_id: 8 or 16 digits of who signed it, empty when
        nobody did. changed: it is not what was signed. output: what the verifying tool said.
        """
        key = next((key for key in self.keys if key_id and key.id.endswith(key_id.lower())), None)
        wanted = ", ".join(str(key) for key in self.keys if key.primary and not key.lapsed)
        if changed:
            message = f"{what} was changed after it was signed"
            hint = "do not use it; have the repository made anew"
        elif key and key.lapsed:
            files = ", ".join(_shown(address) for address in self.repo.gpgkeys)
            message = f"{what} is signed by key {key.fingerprint}, which {key.lapsed}"
            hint = f"put the renewed key into {files}"
        elif key:
            message = f"{what} has a signature of key {key.fingerprint} that does not hold"
            hint = "it may have expired, or be of a kind that this machine does not know"
        elif key_id:
            message = f"{what} is signed by key {key_id.upper()}, which is none of its repository's"
            hint = f"wanted: {wanted}; if the other key is right too, add its file to gpgkey="
        else:
            message = f"{what} is not signed, and {self.repo.source} wants it to be"
            hint = f"have it signed by {wanted}, or correct {self.repo.source}"
        return SignatureError(
            message,
            hint=hint,
            context={"repository": self.repo.id, "file": self.repo.source, "said": output},
        )


def load_keys(repo: RepoConfig) -> Keys:
    """Read the keys a repository's signatures are checked by.

    Raises SignatureError when none is named, one cannot be read, or none of them counts.
    """
    context = {"repository": repo.id, "file": repo.source}
    if not repo.gpgkeys:
        raise SignatureError(
            f"repository {repo.id} asks for signatures to be checked, and {repo.source} names no "
            "key to check them by",
            hint="add gpgkey=FILE there, or gpgcheck=0 and repo_gpgcheck=0 to do without",
            context=context,
        )
    with tempfile.TemporaryDirectory(prefix="strata-keys.", dir=_short_folder()) as name:
        home = Path(name)
        for number, address in enumerate(repo.gpgkeys):
            file = home / f"{number}.key"
            file.write_bytes(_read(repo, address))
            done = _gpg(home, "--import", str(file), check=False)
            if done.status != 0:
                raise SignatureError(
                    f"{_shown(address)}, a key of repository {repo.id}, is no public key that gpg "
                    "can read",
                    hint=f"correct the file, or gpgkey= in {repo.source}",
                    context={**context, "output": done.stderr},
                )
        keys = parse_keys(_gpg(home, "--with-colons", "--fixed-list-mode", "--list-keys").stdout)
        # `FINGERPRINT!` means this key or subkey and none of its others.
        counting = [f"{key.fingerprint}!" for key in keys if not key.lapsed]
        if not counting:
            told = "; ".join(f"{key} {key.lapsed}" for key in keys if key.primary)
            raise SignatureError(
                f"no key of repository {repo.id} counts any more: {told}",
                hint=f"put the renewed key into {', '.join(map(_shown, repo.gpgkeys))}",
                context=context,
            )
        exported = []
        for form in ("--armor", "--no-armor"):
            out = home / f"keys{form}"
            _gpg(home, form, "--output", str(out), "--export", *counting)
            exported.append(out.read_bytes())
    return Keys(repo, keys, *exported)


def _short_folder() -> str:
    """Where a home of gpg may be: it asks for sockets in there, whose names have 107 characters."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 60 else "/tmp"


def parse_keys(text: str) -> tuple[Key, ...]:
    """Keys and subkeys from gpg's `--with-colons` listing (doc/DETAILS of GnuPG). Pure.

    Each key's rows are pub (or sub), fpr and, for a pub, uid. A subkey has its key's owner, and
    lapses with it.
    """
    keys: list[Key] = []
    owner = of_primary = ""
    for line in text.splitlines():
        row = line.split(":")
        if row[0] in ("pub", "sub"):
            lapsed = _LAPSED.get(row[1], "")
            if row[1] == "e" and row[6].isdigit():
                lapsed += f" on {rfc3339(int(row[6]))[:10]}"
            if row[0] == "pub":
                owner, of_primary = "", lapsed
            lapsed = lapsed or of_primary
            keys.append(Key(row[4].lower(), "", owner, lapsed, row[0] == "pub"))
        elif keys and row[0] == "fpr" and not keys[-1].fingerprint:
            keys[-1] = replace(keys[-1], fingerprint=row[9])
        elif keys and row[0] == "uid" and not owner:
            owner = row[9]
            keys[-1] = replace(keys[-1], owner=owner)
    return tuple(keys)


def _read(repo: RepoConfig, address: str) -> bytes:
    context = {"repository": repo.id, "file": repo.source, "key": "gpgkey"}
    if not address.startswith("file:"):
        raise SignatureError(
            f"the key of repository {repo.id} is at {address}: a build cannot ask anyone whether "
            "what it would get there is the right one",
            hint="fetch it, compare its fingerprint, put it beside "
            f"{repo.source} and name the file in gpgkey=",
            context=context,
        )
    try:
        return fetch(address, MAX_KEY_BYTES)
    except FetchError as error:
        raise SignatureError(
            f"repository {repo.id} asks for signatures to be checked, but its key "
            f"{_shown(address)} cannot be read: {error}",
            hint=f"have the key's file there, or correct gpgkey= in {repo.source}",
            context=context,
        ) from error


def _shown(address: str) -> str:
    """A key's address as a person would write it."""
    return urllib.parse.unquote(urllib.parse.urlsplit(address).path)


def _gpg(home: Path, *arguments: str, check: bool = True) -> Completed:
    # The sole home is a folder of our own: the keys, options and trust of whoever calls play no
    # part, and public keys need no agent.
    return run(
        ["gpg", "--homedir", str(home), "--batch", "--no-autostart", *arguments], check=check
    )
