"""From clone to lock as docs/okd.md says, on stand-ins built like the public definitions.

`scripts/okd-check DIR` does the same with the real ones.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import okd
from recorded import Recorded, record
from strata.rpm.lock import LockFile

pytestmark = pytest.mark.tools

GITHUB = "https://github.com/"
IMAGE = f"registry.example/bootc:10@sha256:{'0' * 64}"
REPO = "[{}]\nname=x\nbaseurl=https://{}/$basearch/os\ngpgcheck=1\n"


def repo_file(host: str, *names: str) -> str:
    return "".join(REPO.format(name, f"{host}/{name}") for name in names)


# openshift/os and rhel-coreos-config both have a c10s.repo: the same ids are other places in each.
BASE = {
    "build-args-c10s.conf": "# c10s\nID=centos\nNAME=scos\nSTREAM=c10s\nDESCRIPTION=CoreOS\n"
    f"VERSION=10.0\nMUTATE_OS_RELEASE=10\nBUILDER_IMG={IMAGE}\nMANIFEST=manifest-c10s.yaml\n"
    "IMAGE_CONFIG=image-c10s.yaml\nPASSWD_GROUP_DIR=.\n",
    "manifest-c10s.yaml": "metadata: {build_with_buildah: true}\ninclude:\n  - common.yaml\n"
    "repos:\n  - c10s-baseos\n  - c10s-appstream\npackages:\n - centos-stream-release\n",
    "common.yaml": "include:\n  - fedora-coreos-config/manifests/shared-el.yaml\n"
    "  - packages-overrides.yaml\nostree-layers:\n  - overlay.d/05rhcos\n"
    'conditional-include:\n  - if: osversion == "centos-10"\n    include: [el10.yaml]\n'
    "documentation: false\nrecommends: false\npostprocess:\n  - |\n    #!/usr/bin/bash\n    true\n"
    "packages:\n  - audit kernel\n  - \"'skopeo >= 2:1.7.0'\"\n  - 'dnf-command(versionlock)'\n"
    "packages-x86_64: [irqbalance]\n",
    "el10.yaml": "packages: [sos]\npackages-x86_64: [amd-ucode-firmware]\n",
    "packages-overrides.yaml": 'conditional-include:\n  - if: osversion == "centos-10"\n'
    "    include:\n      repos: [c10s-baseos-mirror]\n      packages: [chrony-4.8-1.el10]\n",
    "c10s.repo": repo_file("mirror.stream.centos.org", "c10s-baseos", "c10s-appstream")
    + repo_file("mirror.stream.centos.org", "c10s-baseos-mirror"),
    "image-c10s.yaml": "size: 16\n",
    "passwd": "root:x:0:0:::\n",
    "group": "root:x:0:\n",
    "overlay.d/05rhcos/etc/a": "",
}
SHARED = {
    "manifests/shared-el.yaml": 'conditional-include:\n  - if: id == "fedora"\n'
    '    include: shared-el9.yaml\n  - if: osversion == "centos-10"\n'
    '    include: shared-el10.yaml\n  - if:\n    - basearch != "ppc64le"\n'
    '    - basearch != "s390x"\n    include:\n      packages: [azure-vm-utils]\n',
    "manifests/shared-el9.yaml": "packages: [ssh-key-dir]\n",
    "manifests/shared-el10.yaml": "packages: [makedumpfile]\nostree-layers: [overlay/06el10]\n",
    "overlay.d/06el10/etc/b": "",
    "Containerfile": "ARG BUILDER_IMG=overridden\nFROM ${BUILDER_IMG} as builder\nCOPY . /src\n"
    "RUN --mount=type=cache,id=c,target=/cache \\\n    --mount=type=secret,id=build/yumrepos \\\n"
    "    /src/build-rootfs\nFROM oci-archive:./out.ociarchive\n",
}
NODE = {
    "packages-openshift.yaml": 'metadata:\n  ocp_version: "5.0"\nconditional-include:\n'
    '  - if:\n    - osversion != "rhel-9.8"\n    - osversion != "centos-10"\n    include:\n'
    '      repos: [ENOEXIST]\n  - if: osversion == "rhel-9.8"\n    include:\n'
    '      repos:\n        - rhel-9.8-baseos\n  - if: osversion == "centos-10"\n    include:\n'
    "      repos:\n        - c10s-baseos\n        - c10s-sig-cloud-okd\n"
    "        - rhel-10.2-server-ose-5.0-okd\n"
    "packages:\n  - cri-o cri-tools\n  - openshift-clients openshift-kubelet\n"
    "postprocess:\n  - |\n    #!/usr/bin/bash\n    true\n",
    "c10s.repo": repo_file("composes.stream.centos.org", "c10s-baseos")
    + repo_file("mirror.stream.centos.org", "c10s-sig-cloud-okd"),
    "c10s-mirror.repo": repo_file("mirror.stream.centos.org", "c10s-baseos-mirror"),
    "build-args-c10s-5.0.conf": "IMAGE_FROM=registry.example/ci/base:10\n",
    "Containerfile": "ARG IMAGE_FROM=overridden\nFROM ${IMAGE_FROM} as build\n"
    "RUN --mount=type=secret,id=yumrepos,target=/etc/secret.repo /run/src/build\n",
    "extensions/centos-10.yaml": "repos: [c10s-baseos-mirror]\nextensions:\n"
    "  kernel-rt:\n    repos: [c10s-rt]\n    packages: [kernel-rt]\n",
    "extensions/Containerfile": "FROM registry.example/os:latest as os\n"
    "FROM registry.example/ubi\nCOPY --from=os /a /a\n",
}


def git(folder: Path, *arguments: str) -> None:
    identity = (
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.example",
        "-c",
        "protocol.file.allow=always",
    )
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def make_checkout(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q")


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "stand-in")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """Repositories to clone, with the structure of the public ones."""
    top = tmp_path / "public"
    make_checkout(top / "coreos/fedora-coreos-config", SHARED)
    commit(top / "coreos/fedora-coreos-config")
    base = top / "coreos/rhel-coreos-config"
    make_checkout(base, BASE)
    git(base, "submodule", "add", "-q", str(top / "coreos/fedora-coreos-config"))
    (base / "Containerfile").symlink_to("fedora-coreos-config/Containerfile")
    (base / "build-args.conf").symlink_to("build-args-c10s.conf")
    commit(base)
    make_checkout(top / "openshift/os", NODE)
    commit(top / "openshift/os")
    return top


def test_r3_16_from_clone_to_lock_as_the_document_says(public: Path, tmp_path: Path) -> None:
    folder, recordings = tmp_path / "definitions", tmp_path / "recorded"
    okd.lay_out(folder)
    local = {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{public}/.insteadOf",
        "GIT_CONFIG_VALUE_0": GITHUB,
        "GIT_CONFIG_KEY_1": "protocol.file.allow",
        "GIT_CONFIG_VALUE_1": "always",
    }
    outputs: dict[str, str] = {}
    for argv in okd.commands():
        if argv[:2] == ["strata", "lock"] and not recordings.exists():
            okd.use_recorded(folder, recordings)
            newer = [Recorded("kernel", "9.0"), Recorded("audit", "9.0")]
            for arch in okd.ARCHES:
                place = recordings / f"composes.stream.centos.org/c10s-baseos/{arch}/os"
                record(place, [*newer, Recorded("cri-o")], arch=arch, revision=okd.REVISION)
                # the allow-list of the internal repository holds
                place = recordings / f"rpms.example/rhel-10.2-server-ose-5.0/{arch}"
                own = [Recorded("openshift-clients"), Recorded("openshift-kubelet")]
                foreign = [Recorded("cri-tools", "9.0")]
                record(place, [*own, *foreign], arch=arch, revision=okd.REVISION)
                place = recordings / f"mirror.stream.centos.org/c10s-sig-cloud-okd/{arch}/os"
                tools = Recorded("cri-tools", requires=("kernel", "sos"))
                record(place, [tools], arch=arch, revision=okd.REVISION)
        done = okd.run(argv, folder, **local)
        assert done.returncode == okd.status_of(argv), f"{argv}: {done.stderr}"
        outputs[" ".join(argv)] = done.stdout

    looked = list(okd.look(folder))
    assert len(looked) == (1 + 3) * 4
    assert [one for one in looked if one.findings or not one.packages] == []
    said = {key.split("strata ", 1)[1]: text for key, text in outputs.items() if "strata" in key}
    assert "node/5.0@c10s" in said["ls"]
    assert "0 errors, 0 warnings" in said["treefile lint rhel-coreos-config/build-args-c10s.conf"]
    for line in (
        f"rhel-coreos-config/build-args-c10s.conf:8: image {IMAGE}: it is not declared public",
        "rhel-coreos-config/Containerfile:4: secret build/yumrepos: a build mounts it",
        "os/build-args-c10s-5.0.conf:1: image registry.example/ci/base:10: it is not declared "
        "public",
        "os/packages-openshift.yaml:18: repository rhel-10.2-server-ose-5.0-okd: "
        "https://rpms.example/rhel-10.2-server-ose-5.0/x86_64 (internal.repo) "
        "is not declared public",
        "os/extensions/centos-10.yaml:4: repository c10s-rt: no .repo file defines it",
        "os/extensions/Containerfile:1: image registry.example/os:latest: it is not declared "
        "public",
    ):
        assert line + "\n" in said["lint --public"]
    assert said["lint --public"].endswith("not public: 2 repositories, 4 images, 2 secrets\n")
    assert "ENOEXIST" not in said["lint --public"]
    assert "2 targets checked: 0 faults" in said["lock check"]
    check_locks(folder)


def check_locks(folder: Path) -> None:
    base = LockFile.load(folder / "locks/c10s.lock").locks
    node = LockFile.load(folder / "locks/node-5.0.lock").locks
    for arch in okd.ARCHES:
        names = {str(one.nevra) for one in base["coreos/c10s", arch].packages}
        assert f"chrony-4.8-1.el10.{arch}" in names
        assert f"skopeo-2:1.7.0-1.{arch}" in names
        assert f"dnf-command-versionlock-1.0-1.{arch}" in names
        assert (f"azure-vm-utils-1.0-1.{arch}" in names) == (arch in ("x86_64", "aarch64"))
        assert (f"irqbalance-1.0-1.{arch}" in names) == (arch == "x86_64")
        # the base's kernel is nowhere but in the base's own c10s-baseos, and stays (R3.4)
        packages = node["node/5.0@c10s", arch].packages
        assert {(one.nevra.name, one.nevra.version, one.repo) for one in packages} == {
            ("cri-o", "1.0", "c10s-baseos"),
            ("cri-tools", "1.0", "c10s-sig-cloud-okd"),
            ("openshift-clients", "1.0", "rhel-10.2-server-ose-5.0-okd"),
            ("openshift-kubelet", "1.0", "rhel-10.2-server-ose-5.0-okd"),
        }
        assert all(one.source.startswith("os/packages-openshift.yaml:") for one in packages)
