"""Packages of images: where they are read from, what differs, who brought it; none is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from layertar import Tar
from lookimages import META, RPMDB, database, header, looking, pkglist, write
from strata.core.errors import ArchitectureError, ImageError, PackageError
from strata.inspect.diff import check_comparable, compare_packages
from strata.inspect.files import read_files
from strata.inspect.owner import Owner, owner_of, read_locks
from strata.inspect.packagediff import by_name, diff_packages, mark_of, with_marks
from strata.inspect.packages import (
    NoDatabaseError,
    parse_pkglist,
    read_inventory_in,
    read_packages,
)
from strata.inspect.same import same_system
from strata.rpm.lock import Lock, LockedPackage, LockFile
from strata.rpm.nevra import NEVRA

pytestmark = pytest.mark.unit

LABEL = {"io.openshift.metalayer": "true"}


def nevras(text: str) -> tuple[NEVRA, ...]:
    return tuple(sorted(NEVRA.parse(word) for word in text.split()))


def changes(old: str, new: str) -> list[tuple[str, str, str]]:
    found = diff_packages(nevras(old), nevras(new))
    return [(of.kind, str(of.old or ""), str(of.new or "")) for of in found]


def test_changes_additions_and_removals() -> None:
    assert changes("a-1-1.x c-1-1.x", "a-2-1.x b-1-1.x") == [
        ("changed", "a-1-1.x", "a-2-1.x"),
        ("added", "", "b-1-1.x"),
        ("removed", "c-1-1.x", ""),
    ]
    assert changes("a-1-1.x", "a-1-1.x") == []


def test_packages_installed_more_than_once_are_not_lost() -> None:
    assert changes("kernel-1-1.x", "kernel-1-1.x kernel-2-1.x") == [("added", "", "kernel-2-1.x")]
    assert changes("kernel-1-1.x kernel-2-1.x", "kernel-3-1.x") == [
        ("removed", "kernel-1-1.x", ""),
        ("changed", "kernel-2-1.x", "kernel-3-1.x"),
    ]
    assert changes("a-1-1.x a-1-1.x", "a-1-1.x") == [("removed", "a-1-1.x", "")]


def test_architectures_are_kept_apart_and_paired_last() -> None:
    assert changes("a-1-1.i686 a-1-1.x86_64", "a-2-1.x86_64 a-1-1.i686") == [
        ("changed", "a-1-1.x86_64", "a-2-1.x86_64")
    ]
    assert changes("a-1-1.noarch", "a-2-1.x86_64") == [("changed", "a-1-1.noarch", "a-2-1.x86_64")]


def test_a_difference_applied_to_the_old_packages_gives_the_new_ones() -> None:
    chance = random.Random(4)  # noqa: S311
    pool = [f"{n}-{v}-1.{a}" for n in "abc" for v in "123" for a in ("x", "noarch")]
    for _ in range(300):
        old, new = (nevras(" ".join(chance.choices(pool, k=chance.randrange(7)))) for _ in "12")
        left = list(old)
        for change in diff_packages(old, new):
            if change.old:
                left.remove(change.old)
            if change.new:
                left.append(change.new)
        assert tuple(sorted(left)) == new
        rows = by_name(diff_packages(old, new))
        assert sum(map(len, rows.values())) == len(diff_packages(old, new))


def test_the_shape_of_release_tools_hides_epoch_0_and_loses_no_name() -> None:
    old = nevras("a-0:1-1.x b-1:1-1.x k-1-1.x")
    new = nevras("a-2-1.x k-1-1.x k-2-1.x k-3-1.x l-1-1.x l-1-1.noarch l-1-1.x")
    assert by_name(diff_packages(old, new)) == {
        "changed": {"a": {"old": "1-1", "new": "2-1"}},
        "added": {
            "k-2-1.x": "2-1",
            "k-3-1.x": "3-1",
            "l.noarch": "1-1",
            "l-1-1.x": "1-1",
            "l-1-1.x (again)": "1-1",
        },
        "removed": {"b": "1:1-1"},
    }


def test_marks_base_node_and_override() -> None:
    base = nevras("a-1-1.x b-1-1.x kernel-1-1.x")
    whole = nevras("a-2-1.x b-1-1.x kernel-1-1.x kernel-2-1.x n-1-1.x")
    marks = {str(one): mark_of(one, whole, base) for one in whole}
    assert marks == {
        "a-2-1.x": "override",
        "b-1-1.x": "base",
        "kernel-1-1.x": "base",
        "kernel-2-1.x": "node",
        "n-1-1.x": "node",
    }
    removed = with_marks(diff_packages(whole, base), (whole, base), (base, base))
    assert {(of.kind, of.name, of.mark) for of in removed} == {
        ("changed", "a", "base"),
        ("removed", "kernel", "node"),
        ("removed", "n", "node"),
    }
    assert [of.mark for of in with_marks(removed, (whole, None), (base, None))] == ["", "", ""]
    assert [of.is_downgrade for of in removed] == [True, False, False]


# --- where they are read from ----------------------------------------------------------------


def db(tmp_path: Path, *names: str) -> bytes:
    return database(tmp_path / "rpmdb.sqlite", *(header(*name.split("=")) for name in names))


def packages(reference: str) -> tuple[list[str], int, str]:
    with looking(reference) as image:
        found = read_packages(*image)
    return [str(nevra) for nevra in found.nevras], found.layer.number, found.problem


def test_the_package_list_is_believed_when_it_is_the_last_layer(tmp_path: Path) -> None:
    data = pkglist(["b", "1", "2", "3", "x"], ["a", "0", "1", "1", "x"], ["gpg-pubkey"] + ["0"] * 4)
    lower = Tar().add(RPMDB, db(tmp_path, "old=1-1")).bytes()
    last = Tar().folder("usr", "usr/share").add(META, data).bytes()
    reference = write(tmp_path / "l", lower, last, labels=LABEL)
    assert packages(reference) == (["a-1-1.x", "b-1:2-3.x"], 2, "")
    unlabelled = write(tmp_path / "l", lower, last, tag="unlabelled")
    assert packages(unlabelled) == (["old-1-1.x86_64"], 1, "")


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        (Tar().add("usr/bin/more"), "holds /usr/bin/more"),
        (Tar().folder("usr"), "does not hold /usr/share/openshift/base/meta.json"),
        (Tar().add(META, b"{}"), "is not a package list"),
        (Tar().add(META, b'{"rpmdb.pkglist": [["a"]]}'), "is not a package list"),
        (Tar().add(META, pkglist(["a", "0", "1", "1", "x"])).add("etc/x"), "holds /etc/x"),
    ],
    ids=["other", "nothing", "empty", "short", "more"],
)
def test_r3_8_an_inherited_label_is_not_believed(last: Tar, problem: str, tmp_path: Path) -> None:
    lower = Tar().add(RPMDB, db(tmp_path, "real=1-1", "gpg-pubkey=1-1")).bytes()
    reference = write(tmp_path / "l", lower, last.bytes(), labels=LABEL)
    found, layer, said = packages(reference)
    assert (found, layer) == (["real-1-1.x86_64"], 1)
    assert problem in said


def test_the_topmost_database_counts_and_a_removed_one_does_not(tmp_path: Path) -> None:
    lower = Tar().add(RPMDB, db(tmp_path, "old=1-1")).bytes()
    upper = Tar().add("usr/share/rpm/rpmdb.sqlite", db(tmp_path, "new=1-1")).bytes()
    assert packages(write(tmp_path / "l", lower, upper))[0] == ["new-1-1.x86_64"]
    for whiteout in ("usr/lib/sysimage/rpm/.wh.rpmdb.sqlite", "usr/lib/.wh.sysimage", ".wh.usr"):
        gone = write(tmp_path / "l", lower, Tar().add(whiteout).bytes(), tag="gone")
        with pytest.raises(NoDatabaseError, match="has no package database"):
            packages(gone)


def test_other_formats_and_damage_are_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"/var/lib/rpm is in Berkeley DB format"):
        packages(write(tmp_path / "l", Tar().add("var/lib/rpm/Packages", b"x").bytes()))
    with pytest.raises(PackageError, match=r"usr/share/rpm is in ndb format"):
        packages(write(tmp_path / "l", Tar().add("usr/share/rpm/Packages.db", b"x").bytes()))
    with pytest.raises(PackageError, match="damaged"):
        packages(write(tmp_path / "l", Tar().add(RPMDB, b"SQLite format 3\0 not").bytes()))


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 5000, b'{"rpmdb.pkglist": {"a": 1}}'])
def test_what_is_no_package_list_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="is not a package list"):
        parse_pkglist(data)


def test_images_of_two_architectures_are_not_compared(tmp_path: Path) -> None:
    with (
        looking(write(tmp_path, Tar().bytes())) as (_, one),
        looking(write(tmp_path, Tar().add("a").bytes(), tag="b")) as (_, other),
    ):
        check_comparable(one, other)
        arm = type(other.config)("arm64", "linux", "", {}, other.config.diff_ids)
        changed = type(other)(
            "b", other.manifest_digest, other.manifest, arm, other.layers, other.base_layers
        )
        with pytest.raises(ArchitectureError, match="amd64 and b for arm64"):
            check_comparable(one, changed)


# --- owners ----------------------------------------------------------------------------------


def test_an_owner_is_layer_package_and_definition_line(tmp_path: Path) -> None:
    rpmdb = database(
        tmp_path / "rpmdb.sqlite",
        header("tool", "1-1", ["/bin/tool", "/usr/share/doc/tool"]),
        header("lib", "1-1", ["/usr/lib/lib"]),
    )
    tar = Tar().folder("usr", "usr/bin").add("usr/bin/tool").add("usr/lib/lib").add("etc/own")
    tar.symlink("bin", "usr/bin").add(RPMDB, rpmdb)
    label = {"strata.target": "node/4.19@s"}
    reference = write(tmp_path / "l", tar.bytes(), labels=label)
    lock = Lock(
        "x86_64",
        0,
        {},
        (
            LockedPackage(NEVRA.parse("tool-1-1.x86_64"), "r", "t", "0" * 64, 1, "node.yaml:7"),
            LockedPackage(
                NEVRA.parse("lib-1-1.x86_64"), "r", "l", "0" * 64, 1, "", "tool-1-1.x86_64"
            ),
        ),
    )
    (tmp_path / "locks/coreos").mkdir(parents=True)
    (tmp_path / "locks/coreos/s.lock").write_bytes(
        LockFile({}).with_lock("coreos/s", lock).to_bytes()
    )
    with looking(reference) as image:
        files = read_files(*image, digests=False).files
        inventory, _ = read_inventory_in(*image, image[1].layers)
        locks = read_locks(tmp_path, image[1])

        def owner(path: str) -> Owner:
            return owner_of(image[1], files, inventory, None, locks, path)

        tool, needed, own = owner("/bin/tool"), owner("usr/lib/lib"), owner("/etc/own")
    assert list(locks) == ["locks/coreos/s.lock"]
    assert (tool.path, tool.layer.number) == ("/usr/bin/tool", 1)
    assert [reason.words for reason in tool.reasons.values()] == ["it is named at node.yaml:7"]
    assert [reason.words for reason in needed.reasons.values()] == [
        "lib is required by tool-1-1.x86_64, tool is named at node.yaml:7"
    ]
    assert [str(nevra) for nevra, _ in needed.packages] == ["lib-1-1.x86_64"]
    assert own.packages == ()


# --- the same system -------------------------------------------------------------------------


def same(tmp_path: Path, one: list[Tar], other: list[Tar]) -> dict[str, str]:
    left = write(tmp_path / "l", *(tar.bytes() for tar in one), tag="left")
    right = write(tmp_path / "l", *(tar.bytes() for tar in other), tag="right", labels={"k": "v"})
    with looking(left) as a, looking(right) as b:
        files = (read_files(*a).files, read_files(*b).files)
        found = same_system(a, b, files, compare_packages(a, b))
    return {difference.subject: difference.what for difference in found}


def base(os_release: str = "ID=x\nVERSION_ID=1\n") -> Tar:
    return Tar().folder("usr", "usr/lib").add("usr/lib/os-release", os_release.encode())


def test_layers_labels_times_and_databases_do_not_make_two_systems(tmp_path: Path) -> None:
    one = db(tmp_path, "a=1-1", "b=1-1")
    two = db(tmp_path, "b=1-1", "a=1-1")
    assert one != two
    mono = base("# built today\nID='x'\nVERSION_ID=1\n").add("usr/bin/a", b"1").add(RPMDB, one)
    lower = base().add("usr/bin/a", b"0").add("usr/bin/gone")
    upper = Tar().add("usr/bin/a", b"1").add("usr/bin/.wh.gone").add(RPMDB, two)
    last = Tar().folder("usr/share").add(META, pkglist())
    mono.folder("usr/share")
    assert same(tmp_path, [mono], [lower, upper, last]) == {}


def test_each_difference_of_two_systems_is_named(tmp_path: Path) -> None:
    one = base().add("usr/a", b"1").add("usr/m").add("usr/g").add(RPMDB, db(tmp_path, "p=1-1"))
    two = base("ID=x\nVERSION_ID=2\nNEW=\n").add("usr/a", b"2").add("usr/m", mode=0o600)
    two.add("usr/x").add(RPMDB, db(tmp_path, "p=1-2"))
    assert same(tmp_path, [one], [two]) == {
        "package p.x86_64": "1-1 → 1-2",
        "os-release": "VERSION_ID 1 → 2",
        "/usr/a": "content",
        "/usr/g": "removed (file)",
        "/usr/m": "mode 0644 → 0600",
        "/usr/x": "added (file)",
    }


def test_a_database_on_one_side_alone_is_a_difference(tmp_path: Path) -> None:
    with_db = base().add(RPMDB, db(tmp_path, "p=1-1"))
    without = base().folder("usr/lib/sysimage", "usr/lib/sysimage/rpm")
    assert same(tmp_path, [with_db], [without]) == {"package p.x86_64": "1-1 → none"}
