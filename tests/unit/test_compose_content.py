"""What a treefile does to a root beside packages, overlays and scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.compose.content import add_files, enable_units, remove_from_packages
from strata.compose.users import check_users
from strata.core.errors import DefinitionError
from strata.rpm.inventory import Inventory, Package
from strata.rpm.nevra import NEVRA
from strata.treefile.treefile import Flattened, flatten

pytestmark = pytest.mark.unit


def read(folder: Path, text: str, **files: str) -> Flattened:
    for name, content in {"m.yaml": text, **files}.items():
        (folder / name).write_text(content)
    return flatten(folder / "m.yaml", variables={}, arch="x86_64")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with some files, /lib a link as usr-merge has it."""
    top = tmp_path / "root"
    for name in ("etc/grub.d/08_x", "etc/grub.d/10_y", "usr/bin/tool", "usr/lib/both", "etc/keep"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / "lib").symlink_to("usr/lib")
    return top


def package(name: str, *files: str) -> Package:
    return Package(NEVRA(name, 0, "1", "1", "x86_64"), f"{name}-1-1.src.rpm", 0, 0, (), files)


INVENTORY = Inventory(
    (
        package("grub2", "/etc/grub.d/08_x", "/etc/grub.d/10_y", "/etc/grub.d", "/lib/both"),
        package("other", "/usr/bin/tool", "/usr/lib/both", "/lib/both", "/gone"),
    )
)


def left(root: Path) -> set[str]:
    return {
        str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "lib/" not in str(p)
    }


def test_r1_16_files_of_a_package_go_by_regex(root: Path, tmp_path: Path) -> None:
    flat = read(tmp_path, "remove-from-packages:\n  - [grub2, /etc/grub.d/08.*, both]\n")
    assert remove_from_packages(root, flat, INVENTORY) == 1
    assert left(root) == {"etc/grub.d/10_y", "usr/bin/tool", "etc/keep"}
    # A file that another package owns too stays, until a rule is for both.
    assert (root / "usr/lib/both").exists()
    flat = read(tmp_path, "remove-from-packages:\n  - [grub2, both]\n  - [other, ^/usr/lib]\n")
    assert remove_from_packages(root, flat, INVENTORY) == 1
    assert not (root / "usr/lib/both").exists()


def test_r1_16_a_regex_that_is_none_is_named(root: Path, tmp_path: Path) -> None:
    flat = read(tmp_path, "\nremove-from-packages:\n  - [grub2, '*']\n")
    with pytest.raises(DefinitionError, match=r"m.yaml:3: '\*' of remove-from-packages"):
        remove_from_packages(root, flat, INVENTORY)


def test_add_files_puts_files_of_the_definitions(root: Path, tmp_path: Path) -> None:
    text = "add-files:\n  - [a, /usr/share/x/a]\n  - [b, etc/b]\n"
    flat = read(tmp_path, text, a="a", b="b")
    (tmp_path / "b").chmod(0o777)
    add_files(root, flat.files, tmp_path)
    assert (root / "usr/share/x/a").read_text() == "a"
    assert (root / "usr/share/x/a").stat().st_mode & 0o7777 == 0o644
    assert (root / "etc/b").stat().st_mode & 0o7777 == 0o755
    assert {"a", "b"} <= {name for name, _ in flat.inputs}
    flat = read(tmp_path, "add-files:\n  - [a, /var/a]\n")
    with pytest.raises(DefinitionError, match=r"m.yaml:2: add-files cannot put anything at /var/a"):
        add_files(root, flat.files, tmp_path)
    with pytest.raises(DefinitionError, match=r"m.yaml:2: none cannot be read"):
        read(tmp_path, "add-files:\n  - [none, /usr/a]\n")
    with pytest.raises(DefinitionError, match="is outside of the definitions"):
        read(tmp_path, "add-files:\n  - [../x, /usr/a]\n")


def test_units_are_wanted_and_a_target_is_the_default(root: Path, tmp_path: Path) -> None:
    flat = read(tmp_path, "units: [a.service, b.timer]\ndefault-target: multi-user.target\n")
    with pytest.raises(DefinitionError, match="the tree has no /usr/lib/systemd/system/multi-user"):
        enable_units(root, flat)
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "multi-user.target").write_text("")
    enable_units(root, flat)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    assert {p.name: str(p.readlink()) for p in wants.iterdir()} == {
        "a.service": "/usr/lib/systemd/system/a.service",
        "b.timer": "/usr/lib/systemd/system/b.timer",
    }
    assert str((units / "default.target").readlink()) == "multi-user.target"
    with pytest.raises(DefinitionError, match="is no unit's name"):
        enable_units(root, read(tmp_path, "units: [../x]\n"))


PASSWD = "root:x:0:0::/root:/bin/sh\nbin:x:2:2:bin:/bin:/sbin/nologin\n# x\nchrony:x:990:989::/:\n"
GROUP = "root:x:0:\nbin:x:2:\nsudo:x:16:core\n"


@pytest.mark.parametrize(
    ("text", "files", "problem"),
    [
        ("check-passwd: {type: none}\n", {}, ""),
        ("check-passwd: {type: previous}\n", {}, ""),
        ("check-passwd: {type: file, filename: p}\n", {"p": PASSWD}, ""),
        ("check-passwd: {type: file, filename: p}\n", {"p": "new:x:5:5::/:\n"}, "new is missing"),
        (
            "check-passwd: {type: file, filename: p}\nignore-removed-users: [new]\n",
            {"p": "new:x:5:5::/:\n"},
            "",
        ),
        (
            "check-passwd: {type: file, filename: p}\nignore-removed-users: ['*']\n",
            {"p": "new:x:5:5::/:\n"},
            "",
        ),
        (
            "check-passwd: {type: data, entries: {bin: 2, chrony: [990, 990]}}\n",
            {},
            "chrony is 990:989, not 990:990",
        ),
        ("check-passwd: {type: data, entries: {bin: 3}}\n", {}, "bin is 2:2, not 3:3"),
        ("check-groups: {type: data, entries: {sudo: 16}}\n", {}, ""),
        ("check-groups: {type: data, entries: {sudo: 27}}\n", {}, "sudo is 16, not 27"),
        ("check-groups: {type: file, filename: g}\n", {"g": "wheel:x:10:\n"}, "wheel is missing"),
    ],
)
def test_r1_17_users_keep_their_ids(
    root: Path, tmp_path: Path, text: str, files: dict[str, str], problem: str
) -> None:
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    flat = read(tmp_path, text, **files)
    assert set(files) <= {name for name, _ in flat.inputs}
    if not problem:
        check_users(root, flat, tmp_path, {})
        return
    with pytest.raises(DefinitionError) as caught:
        check_users(root, flat, tmp_path, {})
    assert caught.value.message.startswith("m.yaml:1: /etc/")
    assert caught.value.message.endswith(problem)
