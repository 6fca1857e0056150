"""Parts of what treefile fields do: users, a policy's aliases, the kernel's places, values."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from strata.compose.accounts import (
    Accounts,
    accounts_before,
    join_accounts,
    read_accounts,
    seed_accounts,
    settle_rpmnew,
    split_accounts,
    with_altfiles,
)
from strata.compose.commitmeta import ref_of, to_variant
from strata.compose.policy import with_aliases
from strata.compose.revision import without_password
from strata.compose.rpmformat import check_database
from strata.compose.sysusers import make_users
from strata.compose.treelayout import WHITEOUT_PREFIX, settle_boot, settle_files
from strata.core.errors import DefinitionError
from strata.core.record import BuildRecord, Input
from strata.rpm.advisories import first_of_each
from strata.treefile.layout import Layout
from strata.treefile.treefile import Flattened, flatten

pytestmark = pytest.mark.unit


def read(folder: Path, text: str) -> Flattened:
    (folder / "m.yaml").write_text(text)
    return flatten(folder / "m.yaml", variables={}, arch="x86_64")


def put(root: Path, path: str, text: str = "") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def record(accounts: Accounts, before: Accounts, inputs: list[Input]) -> BuildRecord:
    outputs: dict[str, object] = {"accounts": accounts.to_json()}
    if before.digest():
        outputs["accounts-before"] = before.to_json()
    return BuildRecord(
        "bootc/s", "x86_64", tuple(sorted([*inputs, *before.inputs()])), outputs, (), ""
    )


def test_r1_17_the_same_inputs_start_from_the_same_users(tmp_path: Path) -> None:
    flat = read(tmp_path, "preserve-passwd: true\n")
    one, two = [Input("lock", "x", "1")], [Input("lock", "x", "2")]
    nobody, first = Accounts(), Accounts("a:x:1:1::/:\n", "a:x:1:\n")
    assert accounts_before(flat, tmp_path, None, one) == nobody
    built = record(first, nobody, one)
    # Nothing changed: the build before knew nobody, and is not made again for having made users.
    assert accounts_before(flat, tmp_path, built, one) == nobody
    assert accounts_before(flat, tmp_path, built, two) == first
    again = record(first, first, two)
    assert accounts_before(flat, tmp_path, again, two) == first
    off = read(tmp_path, "packages: [a]\n")
    assert accounts_before(off, tmp_path, built, two) == nobody


def test_r1_17_one_list_of_a_file_and_one_of_the_last_build_do_not_go_together(
    tmp_path: Path,
) -> None:
    put(tmp_path, "p", "root:x:0:0:::\n")
    flat = read(tmp_path, "check-passwd: {type: file, filename: p}\n")
    with pytest.raises(
        DefinitionError, match=r"^m\.yaml:1: check-passwd is of type file, and check-groups is not"
    ):
        accounts_before(flat, tmp_path, None, [])
    flat = read(tmp_path, "check-passwd: {type: file, filename: p}\npreserve-passwd: false\n")
    assert accounts_before(flat, tmp_path, None, []) == Accounts()


def test_r1_17_both_lists_of_files_are_who_is_there_first_and_locked(tmp_path: Path) -> None:
    put(tmp_path, "p", "root:x:0:0:::\nchrony:x:990:990:::\n")
    put(tmp_path, "g", "root:x:0:\nchrony:x:990:\n")
    put(tmp_path, "added")
    text = "check-passwd: {type: file, filename: p}\ncheck-groups: {type: file, filename: g}\n"
    flat = read(tmp_path, text + "add-files: [[added, /etc/added]]\n")
    lists = accounts_before(flat, tmp_path, None, [])
    texts = ((tmp_path / "p").read_text(), (tmp_path / "g").read_text())
    assert lists == Accounts(*texts, locked=True)
    assert lists.inputs() == ()  # the files are inputs themselves
    assert Accounts(*texts).inputs()[0].digest == lists.digest()
    assert Accounts(group="a:x:1:\n").digest() != Accounts().digest() == ""
    root = tmp_path / "root"
    put(root, "etc/passwd", "root:x:0:0:::\n")
    put(root, "etc/shadow", "root:*::0:99999:7:::\n")
    seed_accounts(root, lists)
    assert (root / "etc/passwd").read_text() == texts[0]
    assert (root / "etc/group").read_text() == texts[1]
    shadow = "root:*::0:99999:7:::\nchrony:*::0:99999:7:::\n"
    assert (root / "etc/shadow").read_text() == shadow
    assert (root / "etc/gshadow").read_text() == "root:::\nchrony:::\n"
    assert (root / "etc/gshadow").stat().st_mode & 0o777 == 0
    # The ones of the last build come with packages' own lines in shadow(5): none are made for them.
    other = tmp_path / "other"
    put(other, "etc/passwd", texts[0])
    seed_accounts(other, Accounts(*texts))
    assert (other / "etc/group").read_text() == texts[1]
    assert sorted(os.listdir(other / "etc")) == ["group", "passwd"]


def test_r1_17_an_id_that_the_layer_below_gave_away_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd", "root:x:0:0:::\nnew:x:990:990:::\n")
    with pytest.raises(
        DefinitionError, match=r"^chrony had id 990 in /etc/passwd before, and it is"
    ):
        seed_accounts(tmp_path, Accounts("root:x:0:0:::\nchrony:x:990:990:::\n"))
    assert (tmp_path / "etc/passwd").read_text().count("\n") == 2


def test_a_packages_own_list_joins_the_one_that_was_there(tmp_path: Path) -> None:
    put(tmp_path, "etc/group", "root:x:0:\nchrony:x:990:\n").chmod(0o600)
    put(tmp_path, "etc/group.rpmnew", "root:x:0:\nbin:x:1:\n").chmod(0o640)
    settle_rpmnew(tmp_path)
    assert (tmp_path / "etc/group").read_text() == "root:x:0:\nchrony:x:990:\nbin:x:1:\n"
    assert (tmp_path / "etc/group").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "etc") == ["group"]


def test_splitting_and_joining_users_are_each_others_reverse(tmp_path: Path) -> None:
    passwd, group = "root:x:0:0:::\nbin:x:1:1:::\n", "root:x:0:\nwheel:x:10:\nbin:x:1:\n"
    put(tmp_path, "etc/passwd", passwd)
    put(tmp_path, "etc/group", group)
    assert not split_accounts(tmp_path, ["wheel"])
    assert (tmp_path / "etc/passwd").read_text() == passwd
    put(tmp_path, "usr/lib/libnss_altfiles.so.2")
    assert split_accounts(tmp_path, ["wheel"])
    assert (tmp_path / "etc/group").read_text() == "root:x:0:\nwheel:x:10:\n"
    assert sorted(read_accounts(tmp_path).group.splitlines()) == sorted(group.splitlines())
    join_accounts(tmp_path)
    assert (tmp_path / "etc/passwd").read_text() == passwd
    assert not (tmp_path / "usr/lib/passwd").exists()


def test_only_a_file_nsswitch_is_told_of_altfiles(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd", "root:x:0:0:::\n")
    put(tmp_path, "usr/lib/libnss_altfiles.so.2")
    split_accounts(tmp_path, [])
    assert not (tmp_path / "etc/nsswitch.conf").exists()
    file = put(tmp_path, "etc/nsswitch.conf", "passwd: files\n")
    split_accounts(tmp_path, [])
    assert file.read_text() == "passwd: files altfiles\n"
    file.unlink()
    generated = put(tmp_path, "etc/authselect/nsswitch.conf", "passwd: files\n")
    file.symlink_to("authselect/nsswitch.conf")
    split_accounts(tmp_path, [])
    assert generated.read_text() == "passwd: files\n"


def test_nsswitch_looks_into_altfiles_once() -> None:
    text = "# x\npasswd:   sss files\ngroup: sss\nhosts: files\n"
    once = "# x\npasswd: sss files altfiles\ngroup: sss altfiles\nhosts: files\n"
    assert with_altfiles(text) == once
    assert with_altfiles(once) == once


def test_aliases_of_a_policy_are_there_once() -> None:
    once = with_aliases("/run /var/run\n/etc/systemd/system /usr/lib/systemd/system\n")
    assert with_aliases("/var/home /home\n").startswith("# /var/home /home\n/home /var/home\n")
    assert "/usr/etc/systemd/system /usr/lib/systemd/system\n" in once
    assert "/home /var/home\n/usr/etc /etc\n/usr/lib/opt /opt\n" in once
    assert with_aliases(once) == once


@pytest.mark.parametrize(
    ("macros", "text", "fails"),
    [
        ("%_db_backend\t      sqlite\n", "packages: [a]\n", False),
        ("%_db_backend ndb\n", "rpmdb: ndb\n", True),
        ("%_db_backend bdb\n", "rpmdb: host\n", False),
        ("", "rpmdb: target\n", False),
    ],
)
def test_the_trees_rpm_reads_the_database(
    tmp_path: Path, macros: str, text: str, fails: bool
) -> None:
    put(tmp_path, "usr/lib/rpm/macros", macros)
    flat = read(tmp_path, text)
    if fails:
        with pytest.raises(
            DefinitionError, match=r"^m\.yaml:1: the tree's rpm keeps packages as ndb"
        ):
            check_database(tmp_path, flat)
    else:
        check_database(tmp_path, flat)


def test_users_are_made_where_the_trees_rpm_makes_them(tmp_path: Path) -> None:
    calls = []

    def tell(command: list[str]) -> str:
        calls.append(command[0])
        return "/usr/bin/systemd-sysusers\n" if command[0] == "rpm" else ""

    assert not make_users(tmp_path, read(tmp_path, "packages: [a]\n"), tell)
    put(tmp_path, "usr/bin/rpm")
    put(tmp_path, "usr/bin/systemd-sysusers")
    assert make_users(tmp_path, read(tmp_path, "packages: [a]\n"), tell)
    assert calls == ["rpm", "/usr/bin/systemd-sysusers"]
    assert make_users(tmp_path, read(tmp_path, "sysusers: compose-forced\n"), lambda _: "")


def test_the_kernel_is_in_ostree_boot_under_its_boot_checksum(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/modules/6.1/vmlinuz", "k")
    put(tmp_path, "usr/lib/modules/6.1/initramfs.img", "i")
    put(tmp_path, "usr/lib/ostree-boot/vmlinuz-6.0-old")
    put(tmp_path, "usr/lib/ostree-boot/efi/x")
    settle_boot(tmp_path, "6.1", Layout(ostree_boot=True))
    digest = hashlib.sha256(b"ki").hexdigest()
    assert sorted(os.listdir(tmp_path / "usr/lib/ostree-boot")) == [
        "efi",
        f"initramfs-6.1.img-{digest}",
        f"vmlinuz-6.1-{digest}",
    ]
    settle_boot(tmp_path, "6.1", Layout())
    assert os.listdir(tmp_path / "usr/lib/ostree-boot") == ["efi"]


def test_a_whiteout_in_a_tree_is_kept_by_libostrees_name(tmp_path: Path) -> None:
    os.mknod(tmp_path / "gone", 0o020000, 0)
    assert settle_files(tmp_path, Layout()) == 0
    assert os.listdir(tmp_path) == [f"{WHITEOUT_PREFIX}gone"]


def test_values_of_a_commit_that_gvariant_does_not_have(tmp_path: Path) -> None:
    assert to_variant(1.5).type == "d"
    assert to_variant({"a": [True]}).type == "a{sv}"
    for value, why in ((1 << 70, "does not fit into 64 bits"), (None, "keeps no null")):
        with pytest.raises(DefinitionError, match=why):
            to_variant(value, key="k")


def test_a_ref_is_one_that_is_not_the_stores_own(tmp_path: Path) -> None:
    assert ref_of(read(tmp_path, "packages: [a]\n")) == ""
    assert ref_of(read(tmp_path, "ref: fedora/x86_64/coreos\n")) == "fedora/x86_64/coreos"
    for ref, why in (("a..//b", "is wrong: "), ("ostree/container/blob/x", "the store keeps")):
        with pytest.raises(DefinitionError, match=rf"^m\.yaml:1: ref .*{why}"):
            ref_of(read(tmp_path, f"ref: {ref}\n"))


def test_an_address_is_given_without_its_password() -> None:
    assert without_password("https://u:p@git.example:8443/os.git") == (
        "https://git.example:8443/os.git"
    )
    assert without_password("git@git.example:os.git") == "git@git.example:os.git"
    assert without_password("/home/someone/os") == ""


def test_a_reference_is_the_first_that_names_a_cve() -> None:
    bugs = [("u2", "CVE-1-1 CVE-1-2"), ("u1", "CVE-1-1"), ("u3", "no"), ("u4", "XCVE-1-3")]
    bugs.append(("u5", "CVE-1-2"))
    assert first_of_each(bugs) == (("u1", "CVE-1-1"), ("u2", "CVE-1-1 CVE-1-2"))
