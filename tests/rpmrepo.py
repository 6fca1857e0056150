"""Repositories of tiny real packages, made by rpmbuild and createrepo_c."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from strata.rpm.repofile import RepoConfig

_SPEC = """\
%global __os_install_post %{{nil}}
Name: {name}
Version: {version}
Release: 1
Summary: {name}
License: MIT
BuildArch: noarch
{extra}
%description
{name}
%install
mkdir -p %{{buildroot}}/usr/share/{name} %{{buildroot}}/usr/share/doc/{name}
echo {version} > %{{buildroot}}/usr/share/{name}/file
echo doc > %{{buildroot}}/usr/share/doc/{name}/README
{install}
%files
/usr/share/{name}
%doc /usr/share/doc/{name}
{file}
"""


def make_repository(
    folder: Path,
    packages: Mapping[str, str],
    revision: int = 1_700_000_000,
    files: Mapping[str, str] | None = None,
) -> RepoConfig:
    """A repository of tiny real packages: "name version" to extra spec lines.

    files: a further file of a package, by its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for label, extra in packages.items():
        name, version = label.split()
        file = (files or {}).get(name, "")
        install = f"install -D /dev/null %{{buildroot}}{file}" if file else ""
        spec = folder / f"{name}.spec"
        text = _SPEC.format(name=name, version=version, extra=extra, install=install, file=file)
        spec.write_text(text)
        defines = [f"_topdir {folder}/build", f"_rpmdir {folder}"]
        argv = ["rpmbuild", "-bb", "--quiet", str(spec)]
        for define in defines:
            argv += ["--define", define]
        subprocess.run(argv, check=True, capture_output=True)
    subprocess.run(
        ["createrepo_c", "-q", "--revision", str(revision), "--checksum", "sha256", folder],
        check=True,
    )
    return RepoConfig(folder.name, folder.name, f"file://{folder}", 99, False, "test.repo")
