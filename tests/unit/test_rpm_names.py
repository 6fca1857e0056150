"""Versions, names, .repo files, locks and headers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from strata.core.errors import DefinitionError, PackageError, RepositoryError
from strata.rpm.evr import Evr
from strata.rpm.header import Header, HeaderError
from strata.rpm.inventory import package_of, read_database, read_inventory
from strata.rpm.lock import Lock, LockedPackage, LockFile, find_line
from strata.rpm.nevra import NEVRA
from strata.rpm.problems import explain
from strata.rpm.repofile import RepoConfig, parse_repo_file
from strata.rpm.repostate import read_state
from strata.rpm.solve import solve

pytestmark = pytest.mark.unit

DATA = Path(__file__).parents[1] / "data/rpmdb"


@pytest.mark.parametrize("text", ["bash-5.2.15-2.x86_64", "zlib1g-1:1.2.13.dfsg-1.x86_64"])
def test_nevras_read_and_write_the_same(text: str) -> None:
    assert str(NEVRA.parse(text)) == text


@pytest.mark.parametrize("text", ["", "bash", "bash-5.x86_64", "a-b:1-1.noarch", "-1-1.noarch"])
def test_what_is_no_nevra_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not name-"):
        NEVRA.parse(text)


def test_versions_are_ordered_as_rpm_orders_them() -> None:
    ordered = ["0:1.0~rc1-1", "1.0-1", "1.0^git1-1", "1.0.1-1", "1.10-1", "1:0.1-1"]
    parsed = [Evr.parse(text) for text in ordered]
    assert all(one < two for one, two in itertools.pairwise(parsed))


REPO = "[a]\nname=A\nbaseurl=file://$store/$basearch\npriority=5\ngpgcheck=0\n"


def test_repo_files_are_read_with_their_variables() -> None:
    (repo,) = parse_repo_file(REPO, file="x.repo", variables={"store": "/s", "basearch": "x86_64"})
    assert repo == RepoConfig("a", "A", "file:///s/x86_64", 5, False, "x.repo")


def test_repo_files_say_what_they_have_and_who_may() -> None:
    text = REPO + "includepkgs=a-*, b\nexcludepkgs=c\nexclude=d e\nsslclientkey=/k\nusername=\n"
    (repo,) = parse_repo_file(text, file="x.repo", variables={"store": "/s", "basearch": "x86_64"})
    assert (repo.include, repo.exclude) == (("a-*", "b"), ("c", "d", "e"))
    assert repo.credentials == ("sslclientkey",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REPO.replace("$store", "$stor"), "uses $stor, which is not set"),
        ("[a]\nname=A\n", "repository a has no baseurl"),
        ("[a]\nbaseurl=x\npriority=high\n", "repository a: invalid literal"),
        ("name=A\n", "no section headers"),
        ("[a]\nbaseurl=x\n[a]\nbaseurl=y\n", "already exists"),
    ],
)
def test_what_is_wrong_in_a_repo_file_is_named(text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_repo_file(text, file="x.repo", variables={"store": "/s", "basearch": "x"})
    assert message in caught.value.message


def test_a_repository_whose_index_is_no_xml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "repodata").mkdir()
    (tmp_path / "repodata/repomd.xml").write_text("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>")
    repo = RepoConfig("a", "A", f"file://{tmp_path}", 99, False, "x.repo")
    with pytest.raises(RepositoryError, match=r"declares entities"):
        read_state(repo, tmp_path)


LOCK = Lock(
    "x86_64",
    1_700_000_000,
    {"base": "sha256:" + "11" * 32},
    (
        LockedPackage(NEVRA.parse("a-1-1.noarch"), "base", "a.rpm", "22" * 32, 10, "m.yaml:3", ""),
        LockedPackage(
            NEVRA.parse("b-1-1.noarch"), "base", "b.rpm", "33" * 32, 10, "", "a-1-1.noarch"
        ),
    ),
)


def test_a_lock_is_written_whole_and_explains() -> None:
    data = LockFile({}).with_lock("t/1", LOCK).to_bytes()
    document = json.loads(data)
    assert document["version"] == 2
    assert document["targets"]["t/1"]["x86_64"]["packages"][1] == {
        "nevra": "b-1-1.noarch",
        "repo": "base",
        "location": "b.rpm",
        "sha256": "33" * 32,
        "size": 10,
        "required-by": "a-1-1.noarch",
    }
    assert LockFile.parse(data).locks == {("t/1", "x86_64"): LOCK}
    assert LockFile.parse(LockFile({}).to_bytes()).locks == {}
    deep = b'{"version": 2, "targets": ' + b"[" * 100_000
    for wrong in (b"{", b"[]", b'{"version": 2}', data.replace(b"b.rpm", b"../b"), deep):
        with pytest.raises(DefinitionError, match="l is not a lock: "):
            LockFile.parse(wrong, "l")
    assert LOCK.explain(NEVRA.parse("a-1-1.noarch")) == "it is named at m.yaml:3"
    expected = "b is required by a-1-1.noarch, a is named at m.yaml:3"
    assert LOCK.explain(NEVRA.parse("b-1-1.noarch")) == expected
    assert LOCK.explain(NEVRA.parse("c-1-1.noarch")) == "it was there before"


def test_a_locks_identity_is_what_it_installs_not_who_asked() -> None:
    first, second = LOCK.packages
    moved = replace(LOCK, packages=(replace(first, source="m.yaml:4"), second))
    assert moved.identity() == LOCK.identity()
    other = replace(LOCK, packages=(replace(first, sha256="44" * 32), second))
    assert other.identity() != LOCK.identity()


@pytest.mark.parametrize(
    ("nevra", "location"),
    [("a-1-1.noarch", "../a.rpm"), ("a-1-1.noarch", "/a.rpm"), ("../a-1-1.noarch", "a.rpm")],
)
def test_a_repository_whose_packages_are_outside_of_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nevra: str, location: str
) -> None:
    row = {"nevra": nevra, "repo": "base", "location": location, "size": 1}
    row["checksum"] = ["sha256", "22" * 32]
    monkeypatch.setattr("strata.rpm.dnf.call", lambda task: {"packages": [row], "indexes": {}})
    with pytest.raises(RepositoryError, match="no package is called or stored like that"):
        solve((), (), (), arch="x86_64", metadata_cache=tmp_path)


def test_a_real_header_is_read() -> None:
    data = (DATA / "claircore-package.header").read_bytes()
    package = package_of(Header.parse(data))
    assert package.nevra.name
    assert package.files
    assert package.source_rpm.endswith(".src.rpm")


def test_cut_headers_never_do_anything_but_raise() -> None:
    data = (DATA / "claircore-package.header").read_bytes()
    for length in range(0, len(data), 97):
        with pytest.raises(HeaderError):
            package_of(Header.parse(data[:length]))


def test_a_database_without_rpms_tables_is_named() -> None:
    with pytest.raises(PackageError, match="is damaged: no such table: Packages"):
        read_database(DATA / "claircore-no_packages.sqlite")


def test_a_root_without_packages_or_with_an_old_database_says_so(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="has no package database"):
        read_inventory(tmp_path)
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    (tmp_path / "var/lib/rpm/Packages").write_bytes(b"x")
    with pytest.raises(PackageError, match="is in Berkeley DB format"):
        read_inventory(tmp_path)
    (tmp_path / "usr/lib/sysimage/rpm").mkdir(parents=True)
    (tmp_path / "usr/lib/sysimage/rpm/rpmdb.sqlite").write_bytes(b"not sqlite, but long enough" * 9)
    with pytest.raises(PackageError, match=r"rpmdb\.sqlite is damaged"):
        read_inventory(tmp_path)


def test_a_solvers_explanation_is_short_and_names_the_lines() -> None:
    message = (
        "\n Problem: package linux-image-6.1-6.1.176-1.x86_64 requires wireless, but none of the "
        "providers can be installed\n  - package app-lib-1.0-1.noarch conflicts with app-1.0-1\n"
        "  - package app-lib-1.0-1.noarch conflicts with app-1.0-1\n"
        + "  - conflicting requests\n Problem 2: conflicting requests\n"
        + "".join(f"  - reason {number}\n" for number in range(9))
    )
    requests = [("linux-image-6.1", "m.yaml:1"), ("app", "m.yaml:2"), ("app-lib", "m.yaml:3")]
    text, asked = explain(message, requests)
    assert text.startswith("package linux-image-6.1-6.1.176-1.x86_64 requires wireless")
    assert text.count("app-lib") == 1
    assert text.endswith("; reason 3; and 5 more reasons")
    assert "conflicting requests" not in text
    assert asked == ("linux-image-6.1 at m.yaml:1", "app-lib at m.yaml:3")
    assert explain(" Problem: conflicting requests\n", ()) == ("conflicting requests", ())


def test_a_place_in_a_lock_file_is_found_behind_its_target_and_architecture() -> None:
    first, second = (
        LockedPackage(NEVRA.parse(f"{name}-1-1.noarch"), "r", f"{name}.rpm", "0" * 64, 1)
        for name in ("a", "b")
    )
    needs = replace(first, required_by="b-1-1.noarch")
    locks = LockFile({})
    for target in ("bootc/s", "node/1@s"):
        for arch in ("aarch64", "x86_64"):
            locks = locks.with_lock(target, Lock(arch, 1, {}, (needs, second)))
    text = locks.to_bytes().decode()
    lines = text.splitlines()
    for number, target in enumerate(("bootc/s", "node/1@s")):
        for at, arch in enumerate(("aarch64", "x86_64")):
            nth = 2 * number + at
            asked = [i for i, line in enumerate(lines, 1) if '"asked"' in line]
            of_b = [i for i, line in enumerate(lines, 1) if '"nevra": "b-1-1' in line]
            assert find_line(text, target, arch) == asked[nth]
            assert find_line(text, target, arch, second.nevra) == of_b[nth]
    nowhere = NEVRA.parse("c-1-1.noarch")
    header = next(i for i, line in enumerate(lines, 1) if '"x86_64": {' in line)
    assert find_line(text, "bootc/s", "x86_64", nowhere) == header
    assert find_line(text, "bootc/other", "x86_64") == 1
