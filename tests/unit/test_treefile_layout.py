"""Versions as rpm-ostree counts them, what a treefile wants of a tree, and what no build does."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core.errors import DefinitionError
from strata.treefile.autoversion import next_automatic
from strata.treefile.layout import Layout, layout_of
from strata.treefile.refused import refuse, refused
from strata.treefile.treefile import Flattened, flatten
from strata.treefile.userlists import UserLists, with_user_lists
from strata.treefile.yaml import Place

pytestmark = pytest.mark.unit

DAY = 1_784_000_000  # 2026-07-14


@pytest.mark.parametrize(
    ("prefix", "last", "version"),
    [
        # rpm-ostree's own examples
        ("10", "", "10"),
        ("10", "xyz", "10"),
        ("10", "10", "10.1"),
        ("10", "10.1", "10.2"),
        ("10", "10.1.5", "10.2"),
        ("10", "10001", "10"),
        ("10", "10x.1", "10"),
        ("10.1", "10.1", "10.1.1"),
        ("10.1", "10.1.x", "10.1.1"),
        ("10.1", "10.1.2x", "10.1.3"),
        ("10.<date:%Y%m%d>", "10.20001010.5", "10.20260714.0"),
        ("10.<date:%Y%m%d>", "10.20260714.1", "10.20260714.2"),
        ("10.<date:%Y%m%d>", "10.20260714", "10.20260714.0"),
        ("10.<date:%Y%m%d>.0", "10.20260714.0", "10.20260714.0.0"),
        ("10.<date:text %Y here>", "", "10.text 2026 here.0"),
        ("10.<date:>", "", "10..0"),
        ("10.<other: >", "", "10.<other: >"),
        ("<date:%Y>.<date:%m>", "2026.07.4", "2026.07.5"),
    ],
)
def test_r2_6_a_version_is_counted_on_from_the_last(prefix: str, last: str, version: str) -> None:
    assert next_automatic(prefix, DAY, last) == version


def test_another_suffix_and_no_format() -> None:
    assert next_automatic("10", DAY, "10-1", "-") == "10-2"
    for text in ("%E", "%B", "%"):
        with pytest.raises(ValueError, match="no format of a date"):
            next_automatic(f"10.<date:{text}>", DAY)


def test_the_defaults_are_rpm_ostrees_of_the_edition() -> None:
    assert layout_of({}) == Layout(tmp_is_dir=False, machine_id=True)
    assert layout_of({"edition": "2014"}) == layout_of({})
    assert layout_of({"edition": 2024}) == Layout(machine_id=True)
    assert layout_of({"tmp-is-dir": True, "machineid-compat": False}) == Layout()
    assert layout_of({"edition": "2024", "tmp-is-dir": False}).tmp_is_dir is False
    other = layout_of({"opt-usrlocal": "stateoverlay", "ignore-devices": False})
    assert (other.opt_usrlocal, other.ignore_devices) == ("state-overlay", False)


def read(folder: Path, text: str, *, deriving: bool = False) -> Flattened:
    (folder / "m.yaml").write_text(text)
    return flatten(folder / "m.yaml", variables={"deriving": deriving}, arch="x86_64")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("edition: '2030'\n", "edition"),
        ("boot-location: both\n", "boot-location"),
        ("container: true\n", "container"),
        ("ima: true\n", "ima"),
        ("cliwrap: true\n", "cliwrap"),
        ("cliwrap-binaries: [kernel-install]\n", "cliwrap-binaries"),
        ("selinux-label-version: 2\n", "selinux-label-version"),
        ("automatic-version-suffix: ab\n", "automatic-version-suffix"),
        ("automatic-version-prefix: 1.<date:%B>\n", "automatic-version-prefix"),
        ("basearch: s390x\n", "basearch"),
        ("units: [a.service]\nmachineid-compat: false\n", "units"),
        ("repovars: {releasever: '9'}\n", "repovars"),
        ("repovars: {basearch: s390x}\n", "repovars"),
    ],
)
def test_r1_22_what_no_build_does_is_an_error_at_its_line(
    tmp_path: Path, text: str, key: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        refuse(read(tmp_path, "packages: [a]\n" + text))
    assert caught.value.message.startswith("m.yaml:2: ")
    assert caught.value.context["key"] == key


@pytest.mark.parametrize(
    ("name", "instead"), [("releasever", "the field releasever"), ("basearch", "--arch")]
)
def test_r1_22_what_to_write_in_place_of_a_repository_variable(
    tmp_path: Path, name: str, instead: str
) -> None:
    (found,) = refused(read(tmp_path, f"packages: [a]\nrepovars: {{{name}: x}}\n"))
    assert instead in found.hint


def test_r1_22_what_is_off_or_does_not_apply_is_no_error(tmp_path: Path) -> None:
    off = "container: false\nima: false\ncliwrap: false\nbasearch: x86_64\nboot-location: modules\n"
    assert refused(read(tmp_path, off)) == ()
    assert refused(read(tmp_path, "container: true\nima: true\n", deriving=True)) == ()
    assert [one.key for one in refused(read(tmp_path, "cliwrap: true\n", deriving=True))] == [
        "cliwrap"
    ]


def test_r1_18_the_lists_of_users_are_where_the_build_args_file_says(tmp_path: Path) -> None:
    lists = UserLists("lists", Place("b.conf", 3, 1))
    (tmp_path / "users").write_text("old:x:1:1::/:\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/users").write_text("new:x:2:2::/:\n")
    (tmp_path / "lists/passwd").write_text("usual:x:3:3::/:\n")
    (tmp_path / "lists/group").write_text("usual:x:3:\n")
    plain = with_user_lists(read(tmp_path, "packages: [a]\n"), tmp_path, lists)
    assert [(item.field, item.path) for item in plain.files] == [
        ("check-passwd", "lists/passwd"),
        ("check-groups", "lists/group"),
    ]
    assert {"lists/passwd", "lists/group", "m.yaml"} == {name for name, _ in plain.inputs}
    text = "check-passwd: {type: file, filename: users}\ncheck-groups: {type: none}\n"
    own = with_user_lists(read(tmp_path, text), tmp_path, lists)
    assert [(item.field, item.path) for item in own.files] == [("check-passwd", "lists/users")]
    (tmp_path / "lists/group").unlink()
    with pytest.raises(DefinitionError, match=r"^b\.conf:3: PASSWD_GROUP_DIR leads to lists/group"):
        with_user_lists(read(tmp_path, "packages: [a]\n"), tmp_path, lists)
    with pytest.raises(DefinitionError, match="outside of the definitions"):
        outside = UserLists("../..", Place("b.conf", 3, 1))
        with_user_lists(read(tmp_path, "packages: [a]\n"), tmp_path, outside)
