"""The order of merging is rpm-ostree's, and conditions are its own (rust/src/treefile.rs)."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core.errors import DefinitionError, UsageError
from strata.treefile.conditions import Condition, Variable, parse_variable
from strata.treefile.treefile import Flattened, flatten, split_packages
from strata.treefile.yaml import Place

pytestmark = pytest.mark.unit
HERE = Place("m.yaml", 3, 5)


def read(folder: Path, variables: dict[str, Variable] | None = None, **files: str) -> Flattened:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return flatten(folder / "m.yaml", variables=variables or {}, arch="x86_64")


def script(name: str) -> str:
    return f"postprocess: ['#!/bin/sh {name}']\n"


def scripts(flat: Flattened) -> list[str]:
    return [item.text.split()[-1] for item in flat.postprocess]


def test_r1_11_a_later_includes_scripts_run_before_an_earlier_ones(tmp_path: Path) -> None:
    """What RCC#12 is about: a script of the last include runs first of all."""
    flat = read(
        tmp_path,
        None,
        m="include: [a.yaml, b.yaml]\narch-include: {x86_64: c.yaml}\n"
        "conditional-include:\n"
        '  - if: basearch == "x86_64"\n    include: d.yaml\n'
        '  - if: basearch == "x86_64"\n    include:\n      '
        + script("inline-1")
        + '  - if: basearch == "x86_64"\n    include:\n      '
        + script("inline-2")
        + script("own"),
        a=script("a") + "include: a-inner.yaml\n",
        b=script("b"),
        c=script("c"),
        d=script("d"),
        **{"a-inner": script("a-inner")},
    )
    order = ["d", "c", "b", "a-inner", "a", "inline-2", "inline-1", "own"]
    assert scripts(flat) == order


def test_r1_1_of_single_values_the_includers_wins_then_the_earliest_includes(
    tmp_path: Path,
) -> None:
    flat = read(
        tmp_path,
        m="include: [a.yaml, b.yaml]\nref: own\nmetadata: {k: own}\n"
        'conditional-include:\n  - if: basearch == "x86_64"\n    include: {rpmdb: ndb}\n',
        a="ref: a\ndefault-target: a\nrpmdb: sqlite\nmetadata: {k: a, l: a}\n",
        b="default-target: b\nmetadata: {l: b, m: b}\nselinux: false\n",
    )
    assert flat.fields["ref"] == "own"
    assert flat.fields["default-target"] == "a"
    assert flat.fields["rpmdb"] == "ndb"  # an inline treefile is part of the file itself
    assert flat.fields["selinux"] is False
    assert flat.metadata == {"k": "own", "l": "a", "m": "b"}


def test_r1_9_variables_of_the_includer_win_and_reach_what_comes_after(tmp_path: Path) -> None:
    flat = read(
        tmp_path,
        m="variables: {a: own}\ninclude: [x.yaml, y.yaml]\n",
        x="variables: {a: x, b: x}\n",
        y='conditional-include:\n  - if: [a == "own", b == "x"]\n    include: z.yaml\n',
        z="packages: [z]\n",
    )
    assert [item.text for item in flat.packages] == ["z"]
    with pytest.raises(DefinitionError, match="the variable late is not set"):
        # An include's variables come too late for the conditions of its includer.
        read(
            tmp_path,
            m="include: x.yaml\nconditional-include: [{if: late == true, include: z.yaml}]\n",
            x="variables: {late: true}\n",
        )


def test_r1_9_releasever_is_a_variable(tmp_path: Path) -> None:
    text = "releasever: 41\nref: os/${releasever}/${basearch}\nconditional-include:\n"
    text += "  - if: releasever >= 41\n    include: {packages: [new]}\n"
    text += "  - if: releasever < 41\n    include: {packages: [old]}\n"
    flat = read(tmp_path, m=text)
    assert [item.text for item in flat.packages] == ["new"]
    assert flat.fields["ref"] == "os/41/x86_64"
    assert read(tmp_path, {"releasever": 40}, m=text).packages[0].text == "old"


def test_variables_are_put_in_where_rpm_ostree_puts_them(tmp_path: Path) -> None:
    flat = read(
        tmp_path,
        {"stream": "stable", "dev": False},
        m='metadata: {a: "x-${stream}", b: ["${stream}"], c: 5}\nmutate-os-release: v${dev}\n'
        'add-commit-metadata: {s: "${stream}"}\npackages: ["p${stream}"]\n',
    )
    assert flat.metadata == {"a": "x-stable", "b": ["${stream}"], "c": 5}
    assert flat.mutate_os_release == "vfalse"
    assert flat.fields["add-commit-metadata"] == {"s": "stable"}
    assert flat.packages[0].text == "p${stream}"
    with pytest.raises(DefinitionError, match=r"m.yaml:1: the variable nope is not set"):
        read(tmp_path, m="ref: ${nope}\n")


def test_a_file_is_included_once(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(
            tmp_path,
            m="include: [a.yaml, b.yaml]\n",
            a="include: c.yaml\n",
            b="include: c.yaml\n",
            c="",
        )
    assert caught.value.message == "b.yaml:1: c.yaml is included already, at a.yaml:1"


def test_r1_19_a_default_variant_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "m-9.yaml").write_text("packages: [nine]\n")
    (tmp_path / "m.yaml").symlink_to("m-9.yaml")
    flat = flatten(tmp_path / "m.yaml", variables={}, arch="x86_64")
    assert (flat.packages[0].text, str(flat.packages[0].source)) == ("nine", "m-9.yaml:1")


def test_how_an_item_came_to_be_included_is_kept(tmp_path: Path) -> None:
    flat = read(
        tmp_path,
        m="include: a.yaml\n",
        a='conditional-include:\n  - if: basearch != "s390x"\n    include:\n      packages: [p]\n',
    )
    steps = flat.packages[0].chain
    assert [(str(s.place), s.name, s.conditions) for s in steps] == [
        ("m.yaml:1", "a.yaml", ()),
        ("a.yaml:3", "", ('basearch != "s390x"',)),
    ]


def test_old_spellings_name_the_same_field(tmp_path: Path) -> None:
    flat = read(tmp_path, m="boot_location: modules\nbootstrap_packages: [a]\npackages: [b]\n")
    assert flat.fields["boot-location"] == "modules"
    assert flat.fields["packages"] == ["a", "b"]
    with pytest.raises(DefinitionError, match="stands beside boot-location"):
        read(tmp_path, m="boot-location: new\nboot_location: modules\n")


def test_json_treefiles_may_have_unknown_keys(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"comment": "of old", "packages": ["a"]}')
    flat = flatten(tmp_path / "m.json", variables={}, arch="x86_64")
    assert flat.fields == {"packages": ["a"]}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cri-o  cri-tools", ("cri-o", "cri-tools")),
        ("'podman >= 4.1'", ("podman >= 4.1",)),
        ("a 'b c' d", ("a", "b c", "d")),
        ("dnf-command(versionlock)", ("dnf-command(versionlock)",)),
        ("", ()),
    ],
)
def test_r1_5_entries_are_split_unless_quoted(text: str, names: tuple[str, ...]) -> None:
    assert split_packages(text) == names


def test_r1_5_a_quote_that_is_not_closed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"m.yaml:2: .* has a quote that is not closed"):
        read(tmp_path, m='packages:\n  - "\'podman >= 4"\n')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("check-passwd: {type: file}\n", "m.yaml:1: check-passwd must be"),
        ("check-groups: {type: data, entries: {a: x}}\n", "m.yaml:1: check-groups must be"),
        ("remove-from-packages:\n  - [a]\n  - b\n", "m.yaml:3: remove-from-packages must be"),
        ("repo-packages:\n  - {repo: r}\n", "m.yaml:2: repo-packages must be"),
        ("rpmdb: berkeley\n", "rpmdb must be one of bdb, b-d-b, sqlite, ndb, target, host"),
        ("packages-s390x: [1]\n", "m.yaml:1: packages-s390x must be a list of text"),
        ("releasever: [1]\n", "releasever must be true or false or a number or text"),
    ],
)
def test_shapes_are_checked_to_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(tmp_path, m=text)
    assert message in caught.value.message


# --- conditions ----------------------------------------------------------------------------------

VARIABLES: dict[str, Variable] = {"s": "rhel-9.8", "empty": "", "n": 35, "yes": True, "no": False}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('s == "rhel-9.8"', True),
        ("s != 'rhel-9.8'", False),
        ('  s=="rhel-9.8" ', True),
        ('empty == ""', True),
        ("n == 35", True),
        ("n != 35", False),
        ("n < 35", False),
        ("n <= 35", True),
        ("n > 34", True),
        ("n >= 36", False),
        ("yes == true", True),
        ("no == false", True),
        ("no != false", False),
        ('s == "a \\"b"', False),
    ],
)
def test_r1_2_conditions(text: str, holds: bool) -> None:
    assert Condition.parse(text, HERE).holds(VARIABLES) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("garbage", "m.yaml:3: 'garbage' is not a condition"),
        ("s garbage true", "is not a condition"),
        ("s == garbage", "is not a condition"),
        ("s > 8", 's is "rhel-9.8", which cannot be compared to 8'),
        ("yes <= 5", "yes is true, which cannot be compared to 5"),
        ('s > "asd"', "> compares numbers, and s is none"),
        ("yes > false", "> compares numbers, and yes is none"),
        ('nope == "x"', "the variable nope is not set"),
    ],
)
def test_r1_2_what_is_no_condition_is_named(text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Condition.parse(text, HERE).holds(VARIABLES)
    assert message in caught.value.message


def test_r1_2_all_conditions_are_asked_so_that_mistakes_show(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="the variable nope is not set"):
        read(
            tmp_path,
            m='conditional-include:\n  - if: [basearch == "x", nope == true]\n    include: a\n',
        )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=b", "b"),
        ("a=", ""),
        ("a=true", True),
        ("a=41", 41),
        ('a="41"', "41"),
        ("a='true'", "true"),
        ("a=x=y", "x=y"),
        ("a=9.8", "9.8"),
    ],
)
def test_variables_of_a_command_line(text: str, value: Variable) -> None:
    assert parse_variable(text) == ("a", value)


@pytest.mark.parametrize("text", ["a", "=b", "a-b=c"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not NAME=VALUE"):
        parse_variable(text)
