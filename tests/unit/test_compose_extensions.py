"""Extensions of a node: what they bring together, and what they stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.compose.extensionsolve import Solved, together
from strata.compose.graph import build_order
from strata.core.errors import PackageError
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.treefile.extensions import parse_extensions
from strata.treefile.project import load_project
from strata.treefile.target import Target

pytestmark = pytest.mark.unit

SAMPLE = Path(__file__).parents[2] / "definitions" / "sample"


def solved(name: str, *packages: str, sha256: str = "ab" * 32) -> Solved:
    text = f"extensions:\n  {name}:\n    packages: [x]\n"
    locked = tuple(
        LockedPackage(NEVRA.parse(nevra), "r", f"{nevra}.rpm", sha256, 1, f"of {name}")
        for nevra in packages
    )
    lock = Lock("x86_64", 7, {"r": "sha256:1"}, locked)
    return Solved(parse_extensions(text, "x.yaml").extensions[0], lock)


def test_what_two_extensions_share_is_there_once() -> None:
    lock = together(
        [solved("b", "tool-2-1.noarch", "lib-1:1-1.noarch"), solved("a", "lib-1:1-1.noarch")]
    )
    assert [str(package.nevra) for package in lock.packages] == [
        "lib-1:1-1.noarch",
        "tool-2-1.noarch",
    ]
    assert lock.packages[0].source == "of b"
    assert (lock.arch, lock.generated) == ("x86_64", 7)


@pytest.mark.parametrize("other", ["lib-1-2.noarch", "lib-1-1.x86_64"])
def test_r4_6_two_builds_of_one_name_are_told_with_their_extensions(other: str) -> None:
    with pytest.raises(PackageError) as caught:
        together([solved("a", "lib-1-1.noarch"), solved("b", "x-1-1.noarch", other)])
    assert caught.value.message == (
        f"extension a brings lib-1-1.noarch of r, and extension b {other} of r"
    )


def test_r4_6_one_build_with_other_bytes_is_another() -> None:
    with pytest.raises(PackageError, match=r"extension a brings lib-1-1\.noarch of r"):
        together([solved("a", "lib-1-1.noarch"), solved("b", "lib-1-1.noarch", sha256="cd" * 32)])


def test_r4_7_extensions_stand_on_their_node_image() -> None:
    project = load_project(SAMPLE)
    target = Target.parse("extensions/4.19")
    order = [str(each) for each in build_order(project, [target], base_given=False)]
    assert order == [
        "bootc/sample-12",
        "coreos/sample-12",
        "node/4.19@sample-12",
        "extensions/4.19@sample-12",
    ]
    given = [str(each) for each in build_order(project, [target], base_given=True)]
    assert given == order[2:]
