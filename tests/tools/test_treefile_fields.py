"""What treefile fields make of a tree, a commit and an image (R1), as other tools see it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Strata, make_store
from strata.compose.commitsign import SIGNATURES
from strata.compose.revision import REVISION, SOURCE
from tinydist import TARGET, tiny_definitions

pytestmark = pytest.mark.tools

FIELDS = """\
edition: "2014"
opt-usrlocal: root
readonly-executables: true
boot-location: new
no-initramfs: true
container-cmd: [/usr/bin/bash, -l]
initramfs-args: [--zstd]
add-commit-metadata:
  sample.production: false
  sample.count: 7
  sample.list: [a, {b: "c"}]
  sample.arch: ${basearch}
ref: sample/${basearch}/tiny
rojig: {name: tinyos, summary: Tiny OS, license: MIT}
"""
SCRIPT = """\
ldconfig
echo 'chrony:x:990:990::/:/usr/sbin/nologin' >> /etc/passwd
printf 'wheel:x:10:\\nchrony:x:990:\\n' >> /etc/group
mkdir -p /opt/app /usr/local/share
echo app > /opt/app/file
echo local > /usr/local/share/file
mknod /usr/lib/device c 1 3
echo 0123456789abcdef > /etc/machine-id
"""


@pytest.fixture
def store(tmp_path: Path, sample_repos: Path) -> Path:
    """An empty store with the sample's repositories."""
    return make_store(tmp_path / "store", sample_repos)


def ostree(store: Path, *arguments: str) -> str:
    argv = ["ostree", f"--repo={store}/repo", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def listed(store: Path, *paths: str) -> dict[str, str]:
    """What ostree says of paths: mode and type, and a link's target."""
    found = {}
    for line in ostree(store, "ls", TARGET, *paths).splitlines():
        kind, _, _, _, *name = line.split()
        found[name[0]] = kind + ("" if len(name) == 1 else f" {name[2]}")
    return found


def config_of(store: Path) -> dict[str, object]:
    argv = ["skopeo", "inspect", "--config", f"oci:{store}:{TARGET}"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = json.loads(text)["config"]
    assert isinstance(found, dict)
    return found


def test_r1_22_a_treefile_of_2014_decides_over_tree_commit_and_image(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    definitions = tiny_definitions(tmp_path / "definitions", SCRIPT, fields=FIELDS)
    strata("-C", str(definitions), "--store", str(store), "build", TARGET, "--verify")
    found = listed(store, "/", "/usr/etc/machine-id", "/usr/bin/bash", "/usr/lib/modules")
    assert found["/tmp"] == "l00777 sysroot/tmp"
    assert found["/opt"] == "d00755"
    assert found["/usr/etc/machine-id"] == "-00644"
    assert found["/usr/bin/bash"] == "-00555"
    assert ostree(store, "cat", TARGET, "/usr/etc/machine-id") == ""
    assert ostree(store, "cat", TARGET, "/opt/app/file") == "app\n"
    assert ostree(store, "cat", TARGET, "/usr/local/share/file") == "local\n"
    assert "/usr/lib/device" not in ostree(store, "ls", TARGET, "/usr/lib")
    boot = ostree(store, "ls", "-C", TARGET, "/usr/lib/ostree-boot").split()[-1]
    assert "/vmlinuz-" in boot
    kept = {
        "sample.production": "false",
        "sample.count": "int64 7",
        "sample.list": "[<'a'>, <{'b': <'c'>}>]",
        "sample.arch": "'x86_64'",
        "ostree.container-cmd": "['/usr/bin/bash', '-l']",
        "rpmostree.initramfs-args": "['--zstd']",
    }
    ref = "sample/x86_64/tiny"
    for key, value in kept.items():
        assert ostree(store, "show", f"--print-metadata-key={key}", ref).strip() == value
    config = config_of(store)
    assert config["Cmd"] == ["/usr/bin/bash", "-l"]
    labels = config["Labels"]
    assert isinstance(labels, dict)
    assert labels["com.coreos.osname"] == "tinyos"
    assert labels["org.opencontainers.image.title"] == "Tiny OS"


def test_a_treefile_of_2024_and_state_overlays(store: Path, tmp_path: Path, strata: Strata) -> None:
    fields = 'edition: "2024"\nmachineid-compat: false\nopt-usrlocal: state-overlay\n'
    definitions = tiny_definitions(tmp_path / "definitions", SCRIPT, fields=fields)
    strata("-C", str(definitions), "--store", str(store), "build", TARGET)
    found = listed(store, "/", "/usr/etc", "/usr/local/share", "/usr/lib/opt/app")
    assert found["/tmp"] == "d01777"
    assert found["/opt"] == "l00777 usr/lib/opt"
    assert "/usr/etc/machine-id" not in found
    assert {"/usr/lib/opt/app/file", "/usr/local/share/file"} <= set(found)
    wants = "/usr/lib/systemd/system/local-fs.target.requires"
    unit = f"{wants}/ostree-state-overlay@usr-lib-opt.service"
    assert listed(store, wants)[unit] == "l00777 ../ostree-state-overlay@usr-lib-opt.service"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("ignore-devices: false\n", "the tree has a device, /usr/lib/device, which no commit"),
        ("selinux: true\n", "bootc.yaml:1: selinux is true, but the tree has no SELinux policy"),
        ("ima: true\n", "bootc.yaml:1: ima: true keeps signatures"),
        ("boot-location: kernel-install\n", "bootc.yaml:1: the kernel of a tree is in"),
        ("ref: bootc/tiny-1\n", "bootc.yaml:1: ref cannot be bootc/tiny-1: the store keeps"),
        ("gpg-key: NOBODY\n", "bootc.yaml:1: gpg has no secret key NOBODY"),
        ("add-commit-metadata: {version: x}\n", "may not set version, which follows from"),
        ("check-passwd: {type: data, entries: {chrony: 7}}\n", "chrony is 990:990, not 7:7"),
        ("sysusers: compose-forced\n", "the tree has no /usr/bin/systemd-sysusers"),
    ],
)
def test_what_cannot_be_is_an_error_at_its_line(
    store: Path, tmp_path: Path, strata: Strata, field: str, message: str
) -> None:
    definitions = tiny_definitions(tmp_path / "definitions", SCRIPT, fields=field)
    done = strata("-C", str(definitions), "--store", str(store), "build", TARGET, check=False)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split()).replace("│ ", "")
    assert not (store / "records").exists() or not list((store / "records").rglob("*.json"))
    assert list((store / "work").iterdir()) == []


def test_r2_6_a_stream_without_a_version_counts_as_its_treefile_says(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    fields = 'edition: "2024"\nreleasever: 9\nautomatic-version-prefix: ${releasever}.<date:%Y%m>\n'
    definitions = tiny_definitions(tmp_path / "definitions", fields=fields)
    toml = definitions / "strata.toml"
    toml.write_text(toml.read_text().replace('version = "1.0"\n', ""))
    common = ("-C", str(definitions), "--store", str(store))

    def built() -> str:
        strata(*common, "build", TARGET)
        return ostree(store, "show", "--print-metadata-key=version", TARGET).strip()

    assert built() == "'9.202607.0'"
    assert built() == "'9.202607.0'"
    with open(definitions / "bootc.yaml", "a") as stream:
        stream.write("automatic-version-suffix: '-'\n")
    assert built() == "'9.202607-0'"
    with open(definitions / "bootc.yaml", "a") as stream:
        stream.write("# changed\n")
    assert built() == "'9.202607-1'"
    text = (definitions / "bootc.yaml").read_text()
    (definitions / "bootc.yaml").write_text(
        text.replace("automatic-version-prefix", "platform-module")
    )
    done = strata(*common, "build", TARGET, check=False)
    assert done.returncode == 3
    assert "has no version: its stream has none in strata.toml" in " ".join(done.stderr.split())


CONTEXTS = """\
/.*\tsystem_u:object_r:default_t:s0
/usr/bin(/.*)?\tsystem_u:object_r:bin_t:s0
/etc(/.*)?\tsystem_u:object_r:etc_t:s0
"""


@pytest.mark.parametrize(
    ("fields", "bash", "etc"),
    [
        ('edition: "2024"\n', "bin_t", "etc_t"),
        ("selinux: true\nselinux-label-version: 1\n", "bin_t", "etc_t"),
        ("selinux: false\n", "", ""),
    ],
)
def test_the_policy_of_the_tree_labels_it(
    store: Path, tmp_path: Path, strata: Strata, fields: str, bash: str, etc: str
) -> None:
    policy = "etc/selinux/targeted/contexts/files"
    fields += "add-files:\n  - [config, /etc/selinux/config]\n"
    fields += f"  - [contexts, /{policy}/file_contexts]\n"
    fields += f"  - [aliases, /{policy}/file_contexts.subs_dist]\n"
    definitions = tiny_definitions(tmp_path / "definitions", fields=fields)
    (definitions / "config").write_text("SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    (definitions / "contexts").write_text(CONTEXTS)
    (definitions / "aliases").write_text("/run /var/run\n/var/home /home\n")
    strata("-C", str(definitions), "--store", str(store), "build", TARGET)
    for path, label in (("/usr/bin/bash", bash), ("/usr/etc/selinux/config", etc)):
        shown = ostree(store, "ls", "-X", TARGET, path)
        wanted = f"b'system_u:object_r:{label}:s0'"
        assert (wanted in shown) if label else ("security.selinux" not in shown)
    aliases = ostree(store, "cat", TARGET, f"/usr/{policy}/file_contexts.subs_dist").splitlines()
    assert aliases == [
        "/run /var/run",
        "# /var/home /home",
        "/home /var/home",
        "/usr/etc /etc",
        "/usr/lib/opt /opt",
    ]
    assert "no errors found" in ostree(store, "fsck")


# --- users ---------------------------------------------------------------------------------------


def passwd(store: Path, path: str = "/usr/etc/passwd") -> list[str]:
    return ostree(store, "cat", TARGET, path).splitlines()


def test_r1_17_the_ids_of_the_last_build_are_kept(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    common = ("-C", str(tmp_path / "definitions"), "--store", str(store))
    fields = 'edition: "2024"\n'
    chrony = "echo 'chrony:x:990:990::/:' >> /etc/passwd"
    tiny_definitions(tmp_path / "definitions", chrony, fields=fields)
    strata(*common, "build", TARGET)

    def again(script: str, more: str) -> subprocess.CompletedProcess[str]:
        treefile = tmp_path / "definitions/bootc.yaml"
        treefile.unlink()
        other = tiny_definitions(tmp_path / script[-6:], script, fields=fields + more)
        treefile.write_text((other / "bootc.yaml").read_text())
        return strata(*common, "build", TARGET, check=False)

    changed = "echo 'chrony:x:991:991::/:' >> /etc/passwd # one"
    done = again(changed, "")
    assert done.returncode == 3
    assert "chrony is 991:991, not 990:990" in " ".join(done.stderr.split())
    assert "preserve-passwd: true" in done.stderr
    # A tool that finds chrony there makes none.
    polite = "grep -q ^chrony /etc/passwd || echo 'chrony:x:991:991::/:' >> /etc/passwd # two"
    assert again(polite, "preserve-passwd: true\n").returncode == 0
    assert passwd(store) == ["chrony:x:990:990::/:"]
    done = strata(*common, "build", TARGET, "--verify")
    assert "up to date" in done.stderr
    assert "equal to the byte" in done.stderr
    accepted = "check-passwd: {type: none}\n"
    assert again(changed.replace("one", "three"), accepted).returncode == 0
    assert passwd(store) == ["chrony:x:991:991::/:"]


def test_r1_17_lists_are_there_before_packages_and_members_stay_in_etc(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    fields = (
        "etc-group-members: [wheel]\n"
        "check-passwd: {type: file, filename: users}\n"
        "check-groups: {type: file, filename: groups}\n"
        "add-files:\n  - [nss, /usr/lib64/libnss_altfiles.so.2]\n"
        "  - [nsswitch, /etc/nsswitch.conf]\n"
    )
    script = "grep -q ^chrony:x:990 /etc/passwd && grep -q ^chrony /etc/shadow"
    definitions = tiny_definitions(tmp_path / "definitions", script, fields=fields)
    users = "root:x:0:0::/root:/bin/bash\nchrony:x:990:990::/:/usr/sbin/nologin\n"
    (definitions / "users").write_text(users)
    (definitions / "groups").write_text("root:x:0:\nwheel:x:10:\nchrony:x:990:\n")
    (definitions / "nss").write_text("")
    (definitions / "nsswitch").write_text("passwd: files systemd\ngroup: files\nhosts: dns\n")
    strata("-C", str(definitions), "--store", str(store), "build", TARGET, "--verify")
    assert passwd(store) == ["root:x:0:0::/root:/bin/bash"]
    assert passwd(store, "/usr/lib/passwd") == ["chrony:x:990:990::/:/usr/sbin/nologin"]
    assert passwd(store, "/usr/etc/group") == ["root:x:0:", "wheel:x:10:"]
    assert passwd(store, "/usr/lib/group") == ["wheel:x:10:", "chrony:x:990:"]
    assert passwd(store, "/usr/etc/nsswitch.conf") == [
        "passwd: files altfiles systemd",
        "group: files altfiles",
        "hosts: dns",
    ]
    assert listed(store, "/usr/etc/shadow") == {"/usr/etc/shadow": "-00000"}


# --- commits -------------------------------------------------------------------------------------


@pytest.fixture
def gpg_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A home with one secret key, KEY's."""
    home = subprocess.run(
        ["mktemp", "-d", "/tmp/strata-key.XXXXXX"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # The key is older than the content of the sample, whose time a signature has.
    gpg = ["gpg", "--homedir", home, "--batch", "--faked-system-time", "1577836800!"]
    make = ["--passphrase", "", "--quick-generate-key", "KEY", "rsa3072", "sign", "never"]
    subprocess.run([*gpg, *make], check=True, capture_output=True)
    try:
        yield home
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
        subprocess.run(["rm", "-rf", home], check=True)


def test_gpg_key_signs_the_commit_as_ostree_verifies(
    store: Path, tmp_path: Path, strata: Strata, gpg_home: str
) -> None:
    fields = 'edition: "2024"\ngpg-key: KEY\n'
    definitions = tiny_definitions(tmp_path / "definitions", fields=fields)
    common = ("-C", str(definitions), "--store", str(store))
    strata(*common, "build", TARGET, "--verify", GNUPGHOME=gpg_home)
    assert SIGNATURES == "ostree.gpgsigs"
    export = ["gpg", "--homedir", gpg_home, "--batch", "--output", str(tmp_path / "pubring.gpg")]
    subprocess.run([*export, "--export", "KEY"], check=True, capture_output=True)
    shown = ostree(store, "show", f"--gpg-homedir={tmp_path}", TARGET)
    assert "Found 1 signature" in shown
    assert "Good signature from" in shown


def test_r3_10_an_image_says_the_revision_that_changed_it(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    definitions = tiny_definitions(tmp_path / "definitions")
    common = ("-C", str(definitions), "--store", str(store))

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        argv = ["git", "-C", str(definitions), *identity, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    def label(key: str) -> object:
        labels = config_of(store)["Labels"]
        assert isinstance(labels, dict)
        return labels.get(key)

    toml = definitions / "strata.toml"
    toml.write_text(
        toml.read_text().replace("schema = 1\n", "schema = 1\nrevision-labels = true\n")
    )
    git("init", "-q")
    git("remote", "add", "origin", "https://user:secret@git.example/os.git")
    git("add", "-A")
    git("commit", "-qm", "one")
    first = git("rev-parse", "HEAD")
    strata(*common, "build", TARGET, "--verify")
    assert label(REVISION) == first
    assert label(SOURCE) == "https://git.example/os.git"
    # A commit to something else is another HEAD, and changes no image.
    (definitions / "README.md").write_text("x\n")
    git("add", "-A")
    git("commit", "-qm", "two")
    assert "up to date" in strata(*common, "build", TARGET).stderr
    with open(definitions / "bootc.yaml", "a") as stream:
        stream.write("# changed\n")
    strata(*common, "build", TARGET)
    assert label(REVISION) == f"{first}-dirty"
    git("commit", "-qam", "three")
    strata(*common, "build", TARGET)
    assert label(REVISION) == git("rev-parse", "HEAD")


UPDATEINFO = """\
<updates><update from="x" status="final" type="security" version="1">
<id>ADV-1</id><title>bash</title><severity>Important</severity><issued date="2026-01-01"/>
<references>
<reference href="https://bugs.example/2" type="bugzilla" title="CVE-2026-1 again"/>
<reference href="https://bugs.example/1" type="bugzilla" title="CVE-2026-1: bash"/>
</references>
<pkglist><collection><package name="{name}" epoch="0" version="{version}" release="{release}"
 arch="{arch}"><filename>x.rpm</filename></package></collection></pkglist></update></updates>
"""


def test_repositories_and_advisories_are_said_of_a_commit(
    tmp_path: Path, sample_repos: Path, strata: Strata
) -> None:
    store = tmp_path / "store"
    folder = store / "sample/sample-12-baseos"
    store.mkdir()
    subprocess.run(["cp", "-al", sample_repos, store / "sample"], check=True)
    shutil.rmtree(folder / "repodata")
    shutil.copytree(sample_repos / "sample-12-baseos/repodata", folder / "repodata")
    bash = next(folder.rglob("bash-*.rpm"))
    query = ["rpm", "-qp", "--qf", "%{NAME} %{VERSION} %{RELEASE} %{ARCH}", str(bash)]
    done = subprocess.run(query, capture_output=True, text=True, check=True)
    name, version, release, arch = done.stdout.split()
    text = UPDATEINFO.format(name=name, version=version, release=release, arch=arch)
    (tmp_path / "updateinfo.xml").write_text(text)
    modify = ["modifyrepo_c", str(tmp_path / "updateinfo.xml"), str(folder / "repodata")]
    subprocess.run(modify, check=True, capture_output=True)
    fields = 'edition: "2024"\nrepo-metadata: inline\nadvisories-metadata: detached\n'
    definitions = tiny_definitions(tmp_path / "definitions", fields=fields)
    repos = definitions / "sample.repo"
    repos.write_text(repos.read_text().replace("repo_gpgcheck=1", "repo_gpgcheck=0"))
    common = ("-C", str(definitions), "--store", str(store))
    strata(*common, "build", TARGET, "--verify")
    shown = ostree(store, "show", "--print-metadata-key=rpmostree.rpmmd-repos", TARGET)
    assert re.fullmatch(r"\[{'id': <'sample-12-baseos'>, 'timestamp': <uint64 [1-9]\d+>}]\n", shown)
    key = "--print-detached-metadata-key=rpmostree.advisories"
    nevra = f"{name}-{version}-{release}.{arch}"
    assert ostree(store, "show", key, TARGET).strip() == (
        f"[('ADV-1', uint32 1, uint32 3, ['{nevra}'], "
        "{'cve_references': <[('https://bugs.example/1', 'CVE-2026-1: bash')]>})]"
    )
    assert "up to date" in strata(*common, "build", TARGET).stderr
