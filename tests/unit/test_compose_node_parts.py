"""What a node layer is checked for, its tags in a registry, and hotfixes, as values."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

from strata.compose.amend import (
    AHEAD,
    LABEL,
    REDUNDANT,
    Amendment,
    Debt,
    Swap,
    parse_ahead,
    swapped_of,
    weigh,
)
from strata.compose.hotfix import (
    CONFLICTING,
    NEEDED,
    SUPERSEDED,
    check_not_expired,
    standings,
)
from strata.compose.nodechecks import check_release, product_labels, stream_class
from strata.compose.publish import check_policy, tags_of
from strata.compose.pyc import keep_pyc
from strata.core.errors import DefinitionError, PackageError
from strata.oci.digest import Digest
from strata.rpm.nevra import NEVRA
from strata.treefile.project import Hotfix, Project, parse_project
from strata.treefile.target import Target

pytestmark = pytest.mark.unit
DIGEST = Digest("ab" * 32)
TOML = """\
schema = 1
registry = "docker://registry.example/os"
[stream.s-9]
version = "9.8"
arches = ["x86_64"]
coreos = {{ treefile = "m.yaml" }}
{coreos}
[release."4.19".node.s-9]
primary = true
treefile = "m.yaml"
extensions = "m.yaml"
tag = "{node}"
[[hotfix]]
name = "{hotfix}"
target = "node/4.19"
packages = ["a-1-1"]
expires = 2030-01-01
reason = "r"
"""


def test_what_was_swapped_below_is_in_the_image_too() -> None:
    mine = Amendment(swaps=(Swap("/usr/bin/x", Path("x"), "aa", "hotfix h"),))
    below = {
        LABEL: json.dumps([{"path": "/", "file": "r", "sha256": "", "of": "overrides/rootfs"}])
    }
    assert Amendment().labels({}) == {}
    assert [row["of"] for row in swapped_of(mine.labels({}))] == ["hotfix h"]
    both = swapped_of(mine.labels(below))
    assert [(row["path"], row["of"]) for row in both] == [
        ("/", "overrides/rootfs"),
        ("/usr/bin/x", "hotfix h"),
    ]
    for damaged in ("[", "{}", "[1]", "[" * 100_000):
        assert swapped_of({LABEL: damaged}) == [{"file": damaged, "of": "?"}]


def project(
    tmp_path: Path,
    coreos: str = 'tag = "coreos-{version}"',
    node: str = "4.19-{stream-version}-node-image",
    hotfix: str = "case-1",
) -> Project:
    (tmp_path / "m.yaml").write_text("packages: [a]\n")
    return parse_project(TOML.format(coreos=coreos, node=node, hotfix=hotfix), tmp_path)


@pytest.mark.parametrize(
    ("target", "unique", "moving"),
    [
        ("coreos/s-9", "coreos-9.8.20260403-0", "coreos-9.8"),
        ("node/4.19@s-9", f"4.19-9.8.20260403-0-node-image-{'ab' * 6}", "4.19-9.8-node-image"),
        (
            "extensions/4.19@s-9",
            f"4.19-9.8.20260403-0-node-image-extensions-{'ab' * 6}",
            "4.19-9.8-node-image-extensions",
        ),
        ("hotfix/case-1", f"hotfix-case-1-{'ab' * 6}", "hotfix-case-1"),
    ],
)
def test_r3_13_every_image_has_a_tag_that_moves_and_one_that_never_does(
    tmp_path: Path, target: str, unique: str, moving: str
) -> None:
    tags = tags_of(project(tmp_path), Target.parse(target), "9.8.20260403-0", DIGEST)
    assert (tags.unique, tags.moving) == (unique, moving)


def test_r3_13_no_hotfix_has_an_official_tag(tmp_path: Path) -> None:
    mine = project(tmp_path, node="hotfix-{stream-version}", hotfix="9.8")
    hotfix = Target("hotfix", "9.8")
    with pytest.raises(DefinitionError, match=r"hotfix/9\.8 and node/4\.19@s-9 would both be"):
        check_policy(mine, hotfix, tags_of(mine, hotfix, "", DIGEST))
    fine = project(tmp_path)
    for target in (Target("hotfix", "case-1"), Target("coreos", "s-9")):
        check_policy(fine, target, tags_of(fine, target, "9.8.20260403-0", DIGEST))
    wrong = project(tmp_path, coreos='tag = "coreos-{date}"')
    with pytest.raises(DefinitionError, match="has a part that means nothing"):
        tags_of(wrong, Target("coreos", "s-9"), "9.8.20260403-0", DIGEST)
    without = project(tmp_path, coreos="")
    with pytest.raises(DefinitionError, match="names no tag for coreos/s-9"):
        tags_of(without, Target("coreos", "s-9"), "9.8.20260403-0", DIGEST)


def test_r3_15_packages_of_another_release_are_refused() -> None:
    nevras = [
        NEVRA.parse("openshift-clients-4.19.0-1.rhaos4.19.el9.x86_64"),
        NEVRA.parse("cri-o-1.33.0-1.rhaos4.20.el9.x86_64"),
        NEVRA.parse("bash-5.1-1.el9.x86_64"),
    ]
    with pytest.raises(PackageError, match=r"cri-o-.* is of 4\.20"):
        check_release(nevras, "4.19", ())
    check_release(nevras, "4.19", ["cri-o"])
    check_release(nevras, "", ())


def test_r3_9_labels_are_asked_for_on_rhel_and_nowhere_else() -> None:
    given = {"IMAGE_NAME": "openshift/node", "IMAGE_CPE": "cpe:/a:redhat:openshift:5.0::el9"}
    assert product_labels(given, "rhel", "amd64", 0) == {
        "architecture": "amd64",
        "cpe": "cpe:/a:redhat:openshift:5.0::el9",
        "name": "openshift/node",
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
    }
    assert product_labels({}, "centos", "amd64", 0) == {}
    with pytest.raises(DefinitionError, match="lack IMAGE_NAME and IMAGE_CPE"):
        product_labels({}, "rhel", "amd64", 0)
    with pytest.raises(DefinitionError, match="lack IMAGE_CPE"):
        product_labels({"IMAGE_NAME": "x", "IMAGE_CPE": ""}, "centos", "amd64", 0)


@pytest.mark.parametrize(
    ("osversion", "found"), [("rhel-9.8", "rhel-9"), ("centos-10", "centos-10")]
)
def test_r3_10_the_stream_class_is_the_os_and_its_major(osversion: str, found: str) -> None:
    assert stream_class({"osversion": osversion}) == found


def test_r3_3_compiled_python_of_the_base_stays_as_it_is(tmp_path: Path) -> None:
    root, aside = tmp_path / "root", tmp_path / "aside"
    cache = root / "usr/lib/python3/__pycache__"
    cache.mkdir(parents=True)
    for name in ("kept", "changed", "gone", "removed"):
        (cache.parent / f"{name}.py").write_text("pass\n")
        (cache / f"{name}.cpython-311.pyc").write_bytes(name.encode())
    (cache.parent / "plain.py").write_text("pass\n")
    (cache / "changed.cpython-311.pyc").chmod(0o600)
    before = keep_pyc(root, aside)
    (cache / "changed.cpython-311.pyc").write_bytes(b"anew")
    (cache / "changed.cpython-311.pyc").chmod(0o644)
    (cache / "gone.cpython-311.pyc").unlink()
    (cache / "removed.cpython-311.pyc").unlink()
    (cache.parent / "removed.py").unlink()
    (cache / "plain.cpython-311.pyc").write_bytes(b"new of a base's source")
    (cache.parent / "own.py").write_text("pass\n")
    (cache / "own.cpython-311.pyc").write_bytes(b"of a package of the node")
    assert before.restore(root) == [
        "usr/lib/python3/__pycache__/plain.cpython-311.pyc",
        "usr/lib/python3/__pycache__/changed.cpython-311.pyc",
        "usr/lib/python3/__pycache__/gone.cpython-311.pyc",
    ]
    found = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert found == {
        "kept.cpython-311.pyc": b"kept",
        "changed.cpython-311.pyc": b"changed",
        "gone.cpython-311.pyc": b"gone",
        "own.cpython-311.pyc": b"of a package of the node",
    }
    assert os.stat(cache / "changed.cpython-311.pyc").st_mode & 0o777 == 0o600


def test_r3_3_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    root, host = tmp_path / "root", tmp_path / "host"
    for folder in (root / "usr/lib/py", host):
        (folder / "__pycache__").mkdir(parents=True)
        (folder / "a.py").write_text("pass\n")
        (folder / "__pycache__/a.cpython-311.pyc").write_text(folder.name)
    before = keep_pyc(root, tmp_path / "aside")
    (root / "usr/lib/py").rename(root / "usr/lib/was")
    (root / "usr/lib/py").symlink_to(host)
    before.restore(root)
    assert (host / "__pycache__/a.cpython-311.pyc").read_text() == "host"


def test_r3_12_an_override_is_ahead_or_redundant() -> None:
    base = [NEVRA.parse("crun-1.8.1-1.x86_64"), NEVRA.parse("jq-1.6-1.x86_64")]
    texts = ("crun-1.9-1", "jq-1.6-1", "new-2:1-1")
    ahead, debts = weigh([parse_ahead(text, "BUG", "t") for text in texts], base)
    assert [one.text for one in ahead] == ["crun-1.9-1", "new-2:1-1"]
    assert [(debt.base, debt.state) for debt in debts] == [
        ("1.8.1-1", AHEAD),
        ("1.6-1", REDUNDANT),
        ("", AHEAD),
    ]
    assert str(debts[2]) == "new-2:1-1 is not in the base at all (BUG)"
    with pytest.raises(DefinitionError, match="is not name-version-release"):
        parse_ahead("crun", "BUG", "t")


def test_r3_13_a_hotfix_stands_somewhere_until_its_day(tmp_path: Path) -> None:
    swap = Swap("/usr/bin/x", tmp_path, "cc", "hotfix h")
    debt = Debt("a-1-1", "1-2", "r", REDUNDANT)

    def state(before: str, earlier: dict[str, str]) -> list[str]:
        return [one.state for one in standings([swap], {"/usr/bin/x": before}, earlier, [debt])]

    assert state("aa", {}) == [NEEDED, SUPERSEDED]
    assert state("aa", {"/usr/bin/x": "aa"}) == [NEEDED, SUPERSEDED]
    assert state("bb", {"/usr/bin/x": "aa"}) == [CONFLICTING, SUPERSEDED]
    assert state("cc", {"/usr/bin/x": "aa"}) == [SUPERSEDED, SUPERSEDED]
    day = datetime.date(2026, 1, 1)
    hotfix = Hotfix("h", Target("node", "1", "s"), {}, (), day, "case", "strata.toml:9")
    check_not_expired(hotfix, datetime.date(2025, 12, 31))
    with pytest.raises(
        DefinitionError, match=r"^strata\.toml:9: hotfix h expired on 2026-01-01: case"
    ):
        check_not_expired(hotfix, day)
