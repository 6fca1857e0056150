"""Packages and indexes signed by real keys, and everything that is wrong with others."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rpmrepo import index, make_repository
from strata.core.errors import DigestError, RepositoryError, SignatureError
from strata.rpm import dnf
from strata.rpm.cache import PackageCache
from strata.rpm.keys import load_keys
from strata.rpm.lock import Lock
from strata.rpm.repofile import RepoConfig, load_repo_file
from strata.rpm.repostate import read_state, read_states
from strata.rpm.solve import Request, solve
from strata.sample.signing import Signer

pytestmark = pytest.mark.tools

TIME = "1577836800!"
EXPIRED_AT = "2020-02-01"


def gpg(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--passphrase", "", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@contextmanager
def new_key(home: Path, owner: str, expires: str = "never") -> Iterator[Signer]:
    """A key that was made in January 2020."""
    home.mkdir(mode=0o700, parents=True)
    try:
        gpg(home, "--faked-system-time", TIME, "--quick-gen-key", owner, "rsa2048", "sign", expires)
        lines = gpg(home, "--with-colons", "--list-keys").splitlines()
        fingerprint = next(line.split(":")[9] for line in lines if line.startswith("fpr:"))
        public = gpg(home, "--armor", "--export").encode()
        home.with_suffix(".asc").write_bytes(public)
        yield Signer(home, fingerprint, public)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@dataclass(frozen=True)
class Signers:
    """Three who sign, and where their public keys are (`right.asc`…)."""

    folder: Path
    right: Signer
    other: Signer
    old: Signer


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    # An agent's socket needs a short name.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        with (
            new_key(folder / "right", "right") as right,
            new_key(folder / "other", "other") as other,
            new_key(folder / "old", "old", EXPIRED_AT) as old,
        ):
            yield Signers(folder, right, other, old)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repos") / "r"
    make_repository(folder, {"lib 1.0": "", "app 1.0": "Requires: lib"})
    return folder


@pytest.fixture
def repository(unsigned: Path, tmp_path: Path) -> Path:
    """A copy of a repository whose packages are not signed."""
    return Path(shutil.copytree(unsigned, tmp_path / "r"))


def sign(repository: Path, signer: Signer, *names: str) -> None:
    """Sign some packages, index the repository, sign the index."""
    for name in names:
        (path,) = repository.glob(f"noarch/{name}-*.rpm")
        signer.sign_package(path)
    index(repository)
    (repository / "repodata/repomd.xml.asc").unlink(missing_ok=True)
    signer.sign_file(repository / "repodata/repomd.xml")


def config(repository: Path, *keys: Path, repo_gpgcheck: bool = True) -> RepoConfig:
    addresses = tuple(f"file://{key}" for key in keys)
    address = f"file://{repository}"
    return RepoConfig("r", "r", address, 99, True, "r.repo", repo_gpgcheck, addresses)


def locked(repo: RepoConfig, tmp_path: Path) -> Lock:
    return solve(
        [repo],
        read_states([repo], tmp_path / "metadata"),
        [Request("app", "m.yaml:1")],
        arch="x86_64",
        metadata_cache=tmp_path / "metadata",
    )


def fetched(repo: RepoConfig, tmp_path: Path) -> list[str]:
    paths = PackageCache(tmp_path / "packages").fetch(locked(repo, tmp_path), [repo])
    return sorted(nevra.name for nevra in paths)


def test_what_the_repositorys_key_signed_is_taken(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    sign(repository, signers.right, "lib", "app")
    assert fetched(config(repository, signers.folder / "right.asc"), tmp_path) == ["app", "lib"]


def test_packages_may_be_signed_by_several_keys_of_one_file_or_of_several(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    sign(repository, signers.other, "lib")
    sign(repository, signers.right, "app")
    both = tmp_path / "both.asc"
    both.write_bytes(signers.old.public + signers.other.public + signers.right.public)
    assert fetched(config(repository, both), tmp_path) == ["app", "lib"]
    two = config(repository, signers.folder / "right.asc", signers.folder / "other.asc")
    assert fetched(two, tmp_path) == ["app", "lib"]


def test_a_package_without_a_signature_is_refused(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    sign(repository, signers.right, "lib")
    with pytest.raises(SignatureError) as caught:
        fetched(config(repository, signers.folder / "right.asc"), tmp_path)
    assert caught.value.message == (
        "app-1.0-1.noarch from repository r is not signed, and r.repo wants it to be"
    )
    assert caught.value.hint == (
        f"have it signed by {signers.right.fingerprint} (right), or correct r.repo"
    )
    repo = replace(config(repository), gpgcheck=False, repo_gpgcheck=False)
    assert fetched(repo, tmp_path) == ["app", "lib"]


def test_a_package_signed_by_another_key_is_refused(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    sign(repository, signers.other, "lib", "app")
    signers.right.sign_file(replaced(repository))
    with pytest.raises(SignatureError) as caught:
        fetched(config(repository, signers.folder / "right.asc"), tmp_path)
    assert caught.value.message == (
        f"app-1.0-1.noarch (and 1 more) from repository r is signed by key "
        f"{signers.other.fingerprint[-8:]}, which is none of its repository's"
    )
    assert caught.value.hint is not None
    assert signers.right.fingerprint in caught.value.hint


def replaced(repository: Path) -> Path:
    """The index, its signature taken away."""
    (repository / "repodata/repomd.xml.asc").unlink()
    return repository / "repodata/repomd.xml"


def test_a_key_that_expired_signs_no_more(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    both = tmp_path / "both.asc"
    both.write_bytes(signers.old.public + signers.right.public)
    sign(repository, signers.old, "lib", "app")
    with pytest.raises(SignatureError) as caught:
        fetched(config(repository, both), tmp_path)
    assert caught.value.message == (
        "the index of repository r is signed by key "
        f"{signers.old.fingerprint}, which expired on {EXPIRED_AT}"
    )
    assert caught.value.hint == f"put the renewed key into {both}"
    with pytest.raises(SignatureError, match=r"^app-1.0-1.noarch .* which expired on 2020-02-01$"):
        fetched(config(repository, both, repo_gpgcheck=False), tmp_path)
    with pytest.raises(SignatureError, match="no key of repository r counts any more"):
        fetched(config(repository, signers.folder / "old.asc"), tmp_path)


def test_a_package_changed_in_repository_and_lock_is_refused(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    """Whoever can change a package can index it anew; the signature is what he cannot make."""
    sign(repository, signers.right, "lib", "app")
    repo = config(repository, signers.folder / "right.asc", repo_gpgcheck=False)
    (path,) = repository.glob("noarch/app-*.rpm")
    data = bytearray(path.read_bytes())
    lock = locked(repo, tmp_path)
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestError):  # the digest is looked at first
        PackageCache(tmp_path / "packages").fetch(lock, [repo])
    index(repository)
    with pytest.raises(SignatureError, match=r"^app-1.0-1.noarch from repository r was changed"):
        fetched(repo, tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((), "repository r asks for signatures to be checked, and r.repo names no key"),
        (("nowhere.asc",), "its key .*/nowhere.asc cannot be read: No such file or directory"),
        (("nonsense.asc",), "nonsense.asc, a key of repository r, is no public key"),
    ],
)
def test_keys_that_are_not_there_are_told_before_anything_is_fetched(
    repository: Path, tmp_path: Path, keys: tuple[str, ...], message: str
) -> None:
    (tmp_path / "nonsense.asc").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnonsense\n")
    repo = config(repository, *(tmp_path / key for key in keys), repo_gpgcheck=False)
    lock = locked(repo, tmp_path)
    with pytest.raises(SignatureError, match=message):
        PackageCache(tmp_path / "packages").fetch(lock, [repo])
    assert not (tmp_path / "packages").exists()
    with pytest.raises(SignatureError, match=message):
        read_state(replace(repo, repo_gpgcheck=True), tmp_path)


def test_a_key_from_the_network_is_nobodys_choice(repository: Path, tmp_path: Path) -> None:
    repo = replace(config(repository), gpgkeys=("https://registry.example/key.asc",))
    with pytest.raises(
        SignatureError, match=r"is at https://registry.example/key.asc: a build can"
    ):
        load_keys(repo)


def test_an_index_is_verified_before_it_is_believed(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    repo = config(repository, signers.folder / "right.asc")
    with pytest.raises(SignatureError, match=r"repomd.xml.asc: No such file or directory$"):
        read_state(repo, tmp_path)
    sign(repository, signers.right)
    assert read_state(repo, tmp_path).revision == 1_700_000_000
    path = repository / "repodata/repomd.xml"
    good = path.read_bytes()
    path.write_bytes(b"no XML at all")
    with pytest.raises(SignatureError) as caught:
        read_state(repo, tmp_path)
    assert caught.value.message == "the index of repository r was changed after it was signed"
    path.write_bytes(good)
    (repository / "repodata/repomd.xml.asc").write_text("nonsense")
    with pytest.raises(SignatureError, match="the index of repository r is not signed"):
        read_state(repo, tmp_path)
    sign(repository, signers.other)
    with pytest.raises(SignatureError, match=r"signed by key \w{16}, which is none of its"):
        read_state(repo, tmp_path)
    both = gpg(signers.right.home, "--armor", "--detach-sign", "--output", "-", str(path)) + gpg(
        signers.other.home, "--armor", "--detach-sign", "--output", "-", str(path)
    )
    (repository / "repodata/repomd.xml.asc").write_text(both)
    assert read_state(repo, tmp_path).revision == 1_700_000_000


def test_dnf_solves_with_the_index_that_was_verified_or_not_at_all(
    repository: Path, signers: Signers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(repository, signers.right, "lib", "app")
    repo = config(repository, signers.folder / "right.asc")
    asked = dnf.call

    def change_first(task: dict[str, object]) -> object:
        index(repository, 1_700_000_001)  # between our reading it and dnf's
        return asked(task)

    monkeypatch.setattr(dnf, "call", change_first)
    with pytest.raises(RepositoryError, match="repository r changed while it was read"):
        locked(repo, tmp_path)


def test_a_subkey_that_was_revoked_or_expired_signs_no_more(
    repository: Path, signers: Signers, tmp_path: Path
) -> None:
    home = signers.folder / "sub"
    with new_key(home, "sub") as signer:
        made = ("--faked-system-time", TIME, "--quick-add-key", signer.fingerprint)
        gpg(home, *made, "rsa2048", "sign", EXPIRED_AT)
        rows = [row.split(":") for row in gpg(home, "--with-colons", "--list-keys").splitlines()]
        subkey = next(row[4] for row in rows if row[0] == "sub")
        home.with_suffix(".asc").write_text(gpg(home, "--armor", "--export"))
        for name in ("lib", "app"):
            (path,) = repository.glob(f"noarch/{name}-*.rpm")
            replace(signer, fingerprint=f"{subkey}!").sign_package(path)
        index(repository)
        repo = config(repository, home.with_suffix(".asc"), repo_gpgcheck=False)
        with pytest.raises(SignatureError, match=rf"{subkey}, which expired on {EXPIRED_AT}"):
            fetched(repo, tmp_path)
        for name in ("lib", "app"):
            (path,) = repository.glob(f"noarch/{name}-*.rpm")
            replace(signer, fingerprint=f"{signer.fingerprint}!").sign_package(path)
        index(repository)
        assert fetched(repo, tmp_path) == ["app", "lib"]


def test_repo_files_name_keys_by_address_and_path_several_of_them(tmp_path: Path) -> None:
    path = tmp_path / "definitions/r.repo"
    path.parent.mkdir()
    path.write_text(
        "[a]\nbaseurl=http://h/a\ngpgcheck=1\nrepo_gpgcheck=1\n"
        "gpgkey=file://$store/one.asc keys/two.asc\n  file:///three.asc\n"
        "[b]\nbaseurl=http://h/b\ngpgcheck=0\n[c]\nbaseurl=http://h/c\n"
    )
    a, b, c = load_repo_file(path, variables={"store": "/s"}, arch="x86_64")
    beside = f"file://{tmp_path}/definitions/keys/two.asc"
    assert a.gpgkeys == ("file:///s/one.asc", beside, "file:///three.asc")
    assert (a.gpgcheck, a.repo_gpgcheck) == (True, True)
    assert (b.gpgcheck, b.repo_gpgcheck, b.gpgkeys) == (False, False, ())
    assert (c.gpgcheck, c.repo_gpgcheck) == (True, False)
