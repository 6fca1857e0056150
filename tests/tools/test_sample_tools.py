"""Conversions with the real tools: same bytes twice, what an RPM says, failures with a reason."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import SAMPLE, Strata, cache_folder
from strata.core.errors import PackageError
from strata.rpm.keys import load_keys
from strata.rpm.repofile import load_repo_file
from strata.rpm.signatures import verify_index, verify_packages
from strata.sample.convert import convert
from strata.sample.signing import KEY_FILE, PUBLIC_KEY, signing

pytestmark = pytest.mark.tools


def make_deb(folder: Path, control: str) -> Path:
    """A small real Debian package."""
    tree = folder / "deb"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(control)
    for name in ("bin/tool", "etc/tool.conf", "usr/share/doc/tool/README", "usr/lib/a [b] %c"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/link").symlink_to("/bin/tool")
    (tree / "bin/tool").chmod(0o4755)
    target = folder / "tool_1.0-1_amd64.deb"
    subprocess.run(["dpkg-deb", "--build", tree, target], check=True, capture_output=True)
    return target


CONTROL = """\
Package: tool
Version: 1:1.0-1
Architecture: amd64
Maintainer: A <a@b.example>
Depends: libc6 (>= 2.34), crun | runc
Description: a tool
"""


def query(rpm: Path, what: str) -> list[str]:
    done = subprocess.run(
        ["rpm", "-qp", "--nosignature", "--qf", what, rpm],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def converted(deb: Path, folder: Path) -> Path:
    out = folder / "out"
    out.mkdir(parents=True)
    return convert(deb, out, folder)


def test_a_conversion_keeps_files_owners_modes_and_dependencies(tmp_path: Path) -> None:
    rpm = converted(make_deb(tmp_path, CONTROL), tmp_path / "one")
    assert query(rpm, "%{NEVRA}\n") == ["tool-1:1.0-1.x86_64"]
    files = query(rpm, "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME} %{FILEFLAGS:fflags}\n]")
    assert "/usr/bin/tool -rwsr-xr-x root " in files
    assert "/etc/tool.conf -rw-r--r-- root cn" in files
    assert any(line.startswith("/usr/lib/a [b] %c ") for line in files)
    assert any(
        line.startswith("/usr/share/doc/tool/README ") and line.endswith(" d") for line in files
    )
    requires = query(rpm, "[%{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}\n]")
    assert "libc6 >= 2.34" in requires
    assert any(line.startswith("(crun or runc)") for line in requires)


def test_the_same_package_gives_the_same_bytes(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, CONTROL)
    one = converted(deb, tmp_path / "one")
    time.sleep(1.1)
    two = converted(deb, tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()


def test_a_conversion_that_fails_names_the_package_and_why(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, CONTROL.replace("Architecture: amd64", "Architecture: sparc"))
    with pytest.raises(PackageError) as caught:
        converted(deb, tmp_path / "one")
    assert caught.value.message == (
        "tool_1.0-1_amd64.deb could not be made into an RPM: architecture sparc is not supported"
    )
    (tmp_path / "broken.deb").write_bytes(b"not a package")
    with pytest.raises(PackageError, match=r"broken\.deb could not be made into an RPM"):
        converted(tmp_path / "broken.deb", tmp_path / "two")


@pytest.mark.parametrize("who", ["user", "group"])
def test_an_owner_this_host_does_not_know_names_the_package(tmp_path: Path, who: str) -> None:
    deb = make_deb(tmp_path, CONTROL)
    number = 54321
    owner = {"user": (number, 0), "group": (0, number)}[who]
    os.chown(tmp_path / "deb/bin/tool", *owner)
    subprocess.run(["dpkg-deb", "--build", tmp_path / "deb", deb], check=True, capture_output=True)
    with pytest.raises(PackageError) as caught:
        converted(deb, tmp_path / "one")
    assert caught.value.message.startswith(
        "tool_1.0-1_amd64.deb could not be made into an RPM: "
        f"/usr/bin/tool belongs to {who} {number}, "
    )


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    with signing(tmp_path) as signer:
        home = signer.home
        made = (signer.fingerprint, signer.public)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o7777 == 0o600
    with signing(tmp_path) as signer:
        assert (signer.fingerprint, signer.public) == made
    with signing(tmp_path / "another") as signer:
        assert signer.fingerprint != made[0]
    assert not home.exists()
    assert running("gpg-agent", "strata-gpg.") == []


def running(*words: str) -> list[str]:
    """Command lines of processes that hold all of some words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if all(word in command for word in words):
            found.append(command)
    return found


def test_the_same_key_signs_with_the_same_bytes(tmp_path: Path) -> None:
    rpm = converted(make_deb(tmp_path, CONTROL), tmp_path / "one")
    unsigned = rpm.read_bytes()
    signed, index = [], tmp_path / "repomd.xml"
    index.write_text("an index")
    for name in ("first", "second", "other"):
        rpm.write_bytes(unsigned)
        index.with_suffix(".xml.asc").unlink(missing_ok=True)
        with signing(tmp_path / ("other" if name == "other" else "cache")) as signer:
            signer.sign_package(rpm)
            signer.sign_file(index)
        signed.append((rpm.read_bytes(), index.with_suffix(".xml.asc").read_bytes()))
        time.sleep(1.1)
    assert signed[0] == signed[1]
    assert signed[0][0] != unsigned
    assert signed[0][0] != signed[2][0]
    assert signed[0][1] != signed[2][1]


def test_the_samples_packages_and_indexes_are_signed(sample_repos: Path) -> None:
    repos = load_repo_file(SAMPLE / "sample.repo", variables={"store": "/store"}, arch="x86_64")
    assert all(repo.gpgcheck and repo.repo_gpgcheck for repo in repos)
    assert {key for repo in repos for key in repo.gpgkeys} == {f"file:///store/sample/{PUBLIC_KEY}"}
    for repo in repos:
        here = replace(repo, gpgkeys=(f"file://{sample_repos / PUBLIC_KEY}",))
        keys = load_keys(here)
        folder = sample_repos / repo.id
        verify_packages(keys, sorted(folder.glob("*.rpm")))
        index = folder / "repodata/repomd.xml"
        verify_index(keys, index.read_bytes(), index.with_suffix(".xml.asc").read_bytes())


def test_a_second_run_takes_no_time_and_converts_nothing(
    sample_repos: Path, strata: Strata
) -> None:
    started = time.monotonic()
    done = strata("sample", "repos", str(sample_repos), "--json")
    assert time.monotonic() - started < 5
    assert '"converted": 0' in done.stdout


def test_the_updates_differ_by_real_packages_and_no_package_is_in_both_repositories(
    sample_repos: Path, strata: Strata
) -> None:
    updates = cache_folder() / "tests" / "sample-updates"
    strata("sample", "repos", str(updates), "--compose", "updates")

    def packages(folder: Path) -> set[str]:
        return {path.name for path in folder.glob("*/*.rpm")}

    assert packages(updates) - packages(sample_repos)
    baseos = {path.name for path in (sample_repos / "sample-12-baseos").glob("*.rpm")}
    node = {path.name for path in (sample_repos / "sample-12-node-4.19").glob("*.rpm")}
    assert not baseos & node
    assert any(name.startswith("containerd-") for name in node)
    assert any(name.startswith("podman-") for name in baseos)
