"""os-release: what a build makes of it, what a node layer may add, what its readers read now."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lookimages import system, write
from strata.cli.main import main
from strata.compose import osrelease
from strata.core.errors import DefinitionError
from strata.inspect.osrelease import Reading, look, node_changes, os_version, parse, readings
from strata.treefile.treefile import Flattened, flatten

pytestmark = pytest.mark.unit

VERSION = "9.8.20260403-0"
RHEL = """\
# a comment
NAME="Red Hat Enterprise Linux"

VERSION="9.8 (Plow)"
ID="rhel"
VERSION_ID="9.8"
PRETTY_NAME="Red Hat Enterprise Linux 9.8 (Plow)"
HOME_URL='https://www.example/2019.8'
"""
# Of machines of 4.18 and 4.19, as bug reports show them.
OLD = parse("""\
NAME="Red Hat Enterprise Linux CoreOS"
ID="rhcos"
ID_LIKE="rhel fedora"
VERSION="418.94.202506251005-0"
VERSION_ID="4.18"
VARIANT="CoreOS"
VARIANT_ID=coreos
PRETTY_NAME="Red Hat Enterprise Linux CoreOS 418.94.202506251005-0"
OPENSHIFT_VERSION="4.18"
RHEL_VERSION=9.4
OSTREE_VERSION="418.94.202506251005-0"
""")
NEW = parse("""\
NAME="Red Hat Enterprise Linux CoreOS"
VERSION="9.6.20250530-0 (Plow)"
ID="rhel"
ID_LIKE="fedora"
VERSION_ID="9.6"
PRETTY_NAME="Red Hat Enterprise Linux CoreOS 9.6.20250530-0 (Plow)"
OSTREE_VERSION='9.6.20250530-0'
IMAGE_VERSION='9.6.20250530-0'
VARIANT=CoreOS
VARIANT_ID=coreos
OPENSHIFT_VERSION="4.19"
""")


# --- what a build makes of it --------------------------------------------------------------------


def test_r2_2_the_version_takes_the_tokens_place() -> None:
    """Comments and blank lines go; order, quotes and VERSION_ID stay."""
    assert osrelease.mutate(RHEL, "9.8", VERSION).splitlines() == [
        'NAME="Red Hat Enterprise Linux"',
        'VERSION="9.8.20260403-0 (Plow)"',
        'ID="rhel"',
        'VERSION_ID="9.8"',
        'PRETTY_NAME="Red Hat Enterprise Linux 9.8.20260403-0 (Plow)"',
        "HOME_URL='https://www.example/2019.8'",
        "OSTREE_VERSION='9.8.20260403-0'",
        "IMAGE_VERSION='9.8.20260403-0'",
    ]


def test_r2_3_a_script_goes_on_from_it(tmp_path: Path) -> None:
    """As upstream's does, which looks for a quoted NAME and takes VERSION as it finds it."""
    file = tmp_path / "os-release"
    file.write_text(osrelease.mutate(RHEL, "9.8", "9.8.20260817-0"))
    script = """
        printf 'VARIANT=CoreOS\\nVARIANT_ID=coreos\\n' >> "$1"
        sed -i 's/^NAME="\\(.*\\)"/NAME="\\1 CoreOS"/' "$1"
        . "$1"
        sed -i "s/^PRETTY_NAME=.*/PRETTY_NAME=\\"$NAME $VERSION\\"/" "$1"
    """
    subprocess.run(["bash", "-eu", "-c", script, "script", file], check=True)
    done = parse(file.read_text())
    assert done["PRETTY_NAME"] == "Red Hat Enterprise Linux CoreOS 9.8.20260817-0 (Plow)"
    assert done["NAME"] == "Red Hat Enterprise Linux CoreOS"
    assert (done["VARIANT"], done["VARIANT_ID"]) == ("CoreOS", "coreos")


@pytest.mark.parametrize(
    ("value", "token", "expected"),
    [
        ("9", "9", "VERSION"),
        ("CentOS Stream 9", "9", "CentOS Stream VERSION"),
        ("9 of 2019, not 1.9 and 9.1", "9", "VERSION of 2019, not 1.9 and 9.1"),
        ("9.8 (Plow), 19.8, 9.80, 9.8.1", "9.8", "VERSION (Plow), 19.8, 9.80, 9.8.1"),
        ("9x8", "9.8", "9x8"),
    ],
)
def test_r2_2_a_token_has_no_accidental_hits(value: str, token: str, expected: str) -> None:
    """Upstream replaces the bare text: "9" in 2019 as well."""
    for key in ("VERSION", "PRETTY_NAME"):
        done = parse(osrelease.mutate(f'{key}="{value}"\nVERSION_ID={token}\n', token, VERSION))
        assert done[key] == expected.replace("VERSION", VERSION)
        assert done["VERSION_ID"] == token


def test_r2_2_the_version_of_a_layer_below_gives_way_where_it_stands() -> None:
    below = osrelease.mutate(RHEL, "9.8", VERSION) + "VARIANT=CoreOS\n"
    for token in ("9.8", ""):
        done = osrelease.mutate(below, token, "9.8.20260403-11")
        assert done == below.replace(VERSION, "9.8.20260403-11")
    assert osrelease.mutate(RHEL, "", VERSION) == RHEL


def test_os_release_that_is_none_is_refused() -> None:
    for line in ("rm -rf", "A=b c", 'A="b', "1=2"):
        with pytest.raises(DefinitionError, match=f"os-release line 2 is not KEY=VALUE: {line}"):
            parse(f"A=1\n{line}\n")
    # Who only looks takes it as it is.
    assert look(b'A=1\nrm -rf\nB="b\n\xff') == {"A": "1", "rm -rf": "", "B": '"b', "\\xff": ""}


# --- what a node layer may add (R2.4) ------------------------------------------------------------

BASE = f"{osrelease.mutate(RHEL, '9.8', VERSION)}VARIANT=CoreOS\n"


def node_treefile(folder: Path, ocp_version: str = '"5.0"') -> Flattened:
    (folder / "node.yaml").write_text(
        f"metadata:\n  ocp_version: {ocp_version}\n"
        "postprocess:\n  - echo hello\n  - echo OPENSHIFT_VERSION=5.0 >> /usr/lib/os-release\n"
    )
    return flatten(folder / "node.yaml", variables={}, arch="x86_64")


@pytest.mark.parametrize("product", ['"5.0"', "5.0"])
def test_r2_4_a_node_layer_adds_the_products_version(tmp_path: Path, product: str) -> None:
    flat = node_treefile(tmp_path, product)
    osrelease.check_node(BASE, f'# of the node\n{BASE}OPENSHIFT_VERSION="5.0"\n', flat)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('ID="rhel"', "ID=rhcos", "ID is 'rhcos', in the base 'rhel'"),
        ("VARIANT=CoreOS\n", "", "VARIANT is gone"),
        ("VARIANT=", "EXTRA=1\nVARIANT=", "EXTRA is added"),
        (VERSION, "5.0.1-0", "VERSION is '5.0.1-0 (Plow)', in the base '9.8.20260403-0 (Plow)'; "),
    ],
)
def test_r2_4_a_node_layer_changes_nothing_else(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        osrelease.check_node(
            BASE, f"{BASE.replace(old, new)}OPENSHIFT_VERSION=5.0\n", node_treefile(tmp_path)
        )
    assert caught.value.message.startswith(
        f"the node layer changes the base's os-release: {problem}"
    )
    assert caught.value.hint == (
        "a node layer adds OPENSHIFT_VERSION and nothing else; "
        "os-release is written by the scripts at node.yaml:5"
    )


def test_r2_4_a_base_that_has_a_product_keeps_it() -> None:
    base = {"OPENSHIFT_VERSION": "4.19"}
    assert node_changes(base, base) == ()
    changes = node_changes(base, {"OPENSHIFT_VERSION": "4.20"})
    assert changes == ("OPENSHIFT_VERSION is '4.20', in the base '4.19'",)


@pytest.mark.parametrize(
    ("added", "found"), [("OPENSHIFT_VERSION=4.19\n", "is 4.19"), ("", "is missing")]
)
def test_r1_10_the_product_is_the_treefiles(tmp_path: Path, added: str, found: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        osrelease.check_node(BASE, BASE + added, node_treefile(tmp_path))
    assert caught.value.message == (
        f"OPENSHIFT_VERSION in os-release {found}, and the treefile's ocp_version is 5.0"
    )
    assert caught.value.hint == "os-release is written by the scripts at node.yaml:5"


# --- what its readers read now (R2.4, R2.5) ------------------------------------------------------


def test_r2_5_the_os_version_is_rhel_version_else_version_id() -> None:
    assert (os_version(OLD), os_version(NEW), os_version({})) == ("9.4", "9.6", "")


def test_r2_4_what_changed_from_4_18_to_4_19_is_agreed() -> None:
    found = {of.key: of for of in readings(OLD, NEW)}
    assert found == {
        of.key: of
        for of in (
            Reading("ID", "rhcos", "rhel", True),
            Reading("ID_LIKE", "rhel fedora", "fedora", False, "the contract has it stay"),
            Reading(
                "VERSION",
                "418.94.202506251005-0",
                "9.6.20250530-0 (Plow)",
                True,
                "another scheme, newer by OS release and day",
            ),
            Reading("VERSION_ID", "4.18", "9.6", True, "it named the product"),
            Reading("PRETTY_NAME", OLD["PRETTY_NAME"], NEW["PRETTY_NAME"], True),
            Reading("OPENSHIFT_VERSION", "4.18", "4.19", True),
            Reading("RHEL_VERSION", "9.4", None, True, "VERSION_ID, 9.6, is read in its place"),
            Reading(
                "OSTREE_VERSION",
                "418.94.202506251005-0",
                "9.6.20250530-0",
                True,
                "another scheme, newer by OS release and day",
            ),
            Reading("IMAGE_VERSION", None, "9.6.20250530-0", True),
        )
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NAME", "Red Hat Enterprise Linux"),
        ("PRETTY_NAME", "Red Hat CoreOS 9.6.20250530-0 (Plow)"),
        ("VARIANT", None),
        ("VARIANT_ID", "node"),
        ("OPENSHIFT_VERSION", None),
        ("VERSION_ID", "4.19"),
        ("VERSION_ID", None),
        ("OSTREE_VERSION", None),
        ("HOME_URL", "https://www.example"),
    ],
)
def test_r2_4_what_is_to_stay_and_did_not_is_named(key: str, value: str | None) -> None:
    later = {**NEW, **({key: value} if value else {})}
    if value is None:
        del later[key]
    (found,) = readings(NEW, later)
    assert (found.key, found.agreed) == (key, False)


def test_r2_8_a_version_of_another_scheme_may_have_no_order() -> None:
    old, new = {"VERSION": "413.9.202302280609-0"}, {"VERSION": "9.0.20250510-0"}
    assert readings(old, new)[0].note == "another scheme, without an order between them"


def test_image_diff_says_what_readers_read_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def image(name: str, values: dict[str, str]) -> str:
        text = "".join(f"{key}='{value}'\n" for key, value in values.items())
        return write(tmp_path, system().add("usr/lib/os-release", text.encode()).bytes(), tag=name)

    old, new = image("old", OLD), image("new", NEW)
    assert main(["image", "diff", old, new]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert rows["VERSION_ID"].split() == [
        "VERSION_ID",
        "4.18",
        "9.6",
        "it",
        "named",
        "the",
        "product",
    ]
    assert "NOT AGREED: the contract has it stay" in rows["ID_LIKE"]
    assert "the OS's version as consumers read it: 9.4 → 9.6" in out
    assert main(["image", "diff", new, new]) == 0
    assert "os-release" not in capsys.readouterr().out
