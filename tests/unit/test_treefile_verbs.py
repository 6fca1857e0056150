"""`strata treefile`: what is printed is right, and what is wrong is said where it stands."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest

from strata.cli.main import main
from strata.core.errors import DefinitionError
from strata.treefile.buildargs import osversion, parse_build_args
from strata.treefile.jsonschema import treefile_schema
from strata.treefile.treefile import flatten
from strata.treefile.yaml import Value, parse_yaml, reformat

pytestmark = pytest.mark.unit

MANIFEST = """\
# The base.
include:
  - common.yaml
repos: [baseos]
packages:
 - release # tweaked below
conditional-include:
  - if: basearch != "s390x"
    include:
      packages:
        - fwupd-plugin-flashrom
postprocess:
  - |
    #!/bin/sh
    # Say who we are
    echo 4.19

    exit 0
"""
COMMON = """\
documentation: false
packages:
  - cri-o cri-tools
  - kernel-5.14.0-722.el9
  - "no"
exclude-packages: [grubby]
remove-from-packages:
  - [grub2-tools, /etc/grub.d/.*]
metadata: {name: "x: y", on: true}
"""
ARGS = """\
# one variant
ID=rhel
NAME=rhcos
STREAM=rhel-9.8
DESCRIPTION=Red Hat Enterprise Linux CoreOS 9.8
VERSION=9.8
MUTATE_OS_RELEASE=9.8
BUILDER_IMG=registry.example/rhel-bootc:9.8@sha256:{digest}
MANIFEST=manifest.yaml
IMAGE_CONFIG=image.yaml
""".replace("{digest}", "ab" * 32)


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    folder = tmp_path / "defs"
    folder.mkdir()
    (folder / "manifest.yaml").write_text(MANIFEST)
    (folder / "common.yaml").write_text(COMMON)
    (folder / "args.conf").write_text(ARGS)
    return folder


def strata(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main([*arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


# --- flatten -------------------------------------------------------------------------------------


def test_what_is_printed_says_the_same(
    definitions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("-C", str(definitions), "treefile", "flatten", "manifest.yaml", "--arch", "x86_64")
    status, out, _ = strata(capsys, *at)
    assert status == 0
    assert "  - kernel-5.14.0-722.el9  # common.yaml:4\n" in out
    assert '# manifest.yaml, 2 files; basearch="x86_64", deriving=false\n' in out
    again = tmp_path / "again.yaml"
    again.write_text(out)
    first = flatten(definitions / "manifest.yaml", variables={}, arch="x86_64").fields
    assert flatten(again, variables={}, arch="x86_64").fields == first
    status, out, _ = strata(capsys, *at, "--json")
    document = json.loads(out)
    assert document["treefile"] == first
    assert sorted(document["files"]) == ["common.yaml", "manifest.yaml"]
    assert document["variables"] == {"basearch": "x86_64", "deriving": False}


def test_r1_18_a_build_args_file_names_treefile_and_variables(
    definitions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("-C", str(definitions), "treefile", "flatten", "args.conf", "--json")
    _, out, _ = strata(capsys, *at, "--arch", "s390x", "--var", "extra=1")
    document = json.loads(out)
    assert document["variables"] == {
        "basearch": "s390x",
        "deriving": False,
        "extra": 1,
        "id": "rhel",
        "osversion": "rhel-9.8",
        "stream": "rhel-9.8",
    }
    assert "fwupd-plugin-flashrom" not in document["treefile"]["packages"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID=rhel\n", "args.conf lacks NAME, STREAM"),
        ("what\n", "args.conf:1: 'what' is not KEY=VALUE"),
        ("\n# x\nA=1\nA=2\n", "args.conf:4: A stands twice"),
        (ARGS.replace("@sha256:" + "ab" * 32, ""), "which is not NAME:TAG@sha256:DIGEST"),
    ],
)
def test_r1_18_what_is_wrong_in_build_args_is_named(text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_build_args(text, "args.conf")
    assert message in caught.value.message


def test_r1_9_osversion_has_a_minor_only_on_rhel() -> None:
    assert osversion("rhel", "9.8") == "rhel-9.8"
    assert osversion("centos", "10.0") == "centos-10"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.yaml",), "there is no file"),
        (("manifest.yaml", "--osversion", "rhel"), "'rhel' is not ID-VERSION"),
        (("HEAD:manifest.yaml",), "is no git checkout"),
        (("manifest.yaml", "--var", "x"), "'x' is not NAME=VALUE"),
    ],
)
def test_what_cannot_be_read_is_named(
    definitions: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    status, out, err = strata(capsys, "-C", str(definitions), "treefile", "flatten", *arguments)
    assert (status > 1, out) == (True, "")
    assert message in err
    assert "Traceback" not in err


# --- explain -------------------------------------------------------------------------------------


def test_explain_shows_includes_and_conditions(
    definitions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("-C", str(definitions), "treefile", "explain", "manifest.yaml")
    _, out, _ = strata(capsys, *at, "fwupd-plugin-flashrom", "--arch", "x86_64")
    assert out.splitlines() == [
        "fwupd-plugin-flashrom, in packages at manifest.yaml:11",
        '  manifest.yaml:9 has an inline treefile if basearch != "s390x"',
    ]
    _, out, _ = strata(capsys, *at, "kernel")
    assert out.splitlines() == [
        "kernel-5.14.0-722.el9, in packages at common.yaml:4",
        "  manifest.yaml:3 includes common.yaml",
    ]
    _, out, _ = strata(capsys, *at, "grubby", "--json")
    assert json.loads(out) == [
        {
            "text": "grubby",
            "kind": "exclude-packages",
            "file": "common.yaml",
            "line": 6,
            "chain": [
                {"file": "manifest.yaml", "line": 3, "include": "common.yaml", "conditions": []}
            ],
        }
    ]
    status, _, err = strata(capsys, *at, "cri")
    assert status > 1
    assert "names cri\n  hint: named are cri-o, cri-tools" in err


# --- diff ----------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.com"]
    subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True
    )


def test_diff_of_a_change_against_its_commit(
    definitions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(definitions, "init", "-q", "-b", "main")
    git(definitions, "add", ".")
    git(definitions, "commit", "-q", "-m", "one")
    at = ("-C", str(definitions), "treefile", "diff", "main:manifest.yaml", "manifest.yaml")
    assert strata(capsys, *at, "--exit-code") == (0, "", "")
    new = MANIFEST.replace("echo 4.19", "echo 4.20").replace(" - release", " - release\n - more")
    (definitions / "manifest.yaml").write_text(new.replace("[baseos]", "[baseos, rt]"))
    (definitions / "common.yaml").write_text(
        COMMON.replace("false", "true").replace("cri-tools", "")
    )
    status, out, _ = strata(capsys, *at, "--exit-code")
    assert status == 1
    assert out.splitlines() == [
        "packages:",
        "  - cri-tools",
        "  + more",
        "documentation:",
        "  false → true",
        "postprocess:",
        "  ~ Say who we are",
        "      -echo 4.19",
        "      +echo 4.20",
        "repos:",
        "  + rt",
    ]
    status, _, err = strata(capsys, *at[:4], "none:manifest.yaml", "manifest.yaml")
    assert "no commit none" in err


def test_diff_reads_submodules_of_a_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for folder in (inner, outer):
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
    (inner / "shared.yaml").write_text("packages: [a]\n")
    git(inner, "add", ".")
    git(inner, "commit", "-q", "-m", "one")
    (outer / "m.yaml").write_text("include: sub/shared.yaml\n")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "sub")
    git(outer, "add", ".")
    git(outer, "commit", "-q", "-m", "one")
    (outer / "sub/shared.yaml").write_text("packages: [b]\n")
    at = ("-C", str(outer), "treefile", "diff", "HEAD:m.yaml", "m.yaml")
    assert strata(capsys, *at)[1] == "packages:\n  - a\n  + b\n"


def test_diff_names_an_order_that_changed(
    definitions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (definitions / "a.yaml").write_text("ostree-layers: [x, y]\npackages: [p, q]\n")
    (definitions / "b.yaml").write_text("ostree-layers: [y, x]\npackages: [q, p]\n")
    _, out, _ = strata(capsys, "-C", str(definitions), "treefile", "diff", "a.yaml", "b.yaml")
    assert out == "ostree-layers:\n  the same in another order\n"


# --- lint ----------------------------------------------------------------------------------------


def lint(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, *more: str
) -> tuple[int, set[str]]:
    (folder / "l.yaml").write_text(text)
    at = ("-C", str(folder), "treefile", "lint", "l.yaml", "--json", *more)
    status, out, _ = strata(capsys, *at)
    return status, {
        f"{item['place']} {item['severity']} {item['rule']}" for item in json.loads(out)
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("packages: [a]\n", set()),
        ("packages:\n  - a\n  - b a\n", {"l.yaml:3 note named-twice"}),
        ("postprocess:\n  - echo\n", {"l.yaml:2 warning no-interpreter"}),
        ("bootstrap_packages: [a]\n", {"l.yaml:1 note old-spelling"}),
        ("install-langs: [a]\n", set()),
        ("boot-location: new\n", {"l.yaml:1 note deprecated"}),
        ("initramfs-args: [--zstd]\n", {"l.yaml:1 note deprecated"}),
        (
            'conditional-include:\n  - if: basearch != ""\n    include:\n'
            "      packages-s390x: [a]\n",
            {"l.yaml:4 warning inline-include"},
        ),
    ],
)
def test_lint_names_what_is_odd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, found: set[str]
) -> None:
    assert lint(tmp_path, capsys, text) == (0, found)
    fails = any("warning" in item for item in found)
    assert lint(tmp_path, capsys, text, "--strict")[0] == int(fails)


def test_lint_reads_treefiles_and_not_what_they_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n: [ {\n")
    assert lint(tmp_path, capsys, "postprocess-script: run.sh\n") == (0, set())


def test_lint_fails_where_rpm_ostree_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "packages: [a]\nexclude-packages: [a]\nautomatic-version-suffix: xx\n"
    status, found = lint(tmp_path, capsys, text + "repovars: {basearch: x}\nima: true\n")
    assert status == 1
    errors = {item for item in found if "error" in item}
    assert errors == {
        "l.yaml:2 error excluded-package",
        "l.yaml:3 error refused",
        "l.yaml:4 error refused",
        "l.yaml:5 error refused",
    }


def test_r1_22_what_an_image_cannot_take_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "packages: [a]\ncheck-passwd: {type: none}\n"
    status, found = lint(tmp_path, capsys, text, "--var", "deriving=true")
    assert (status, found) == (0, {"l.yaml:2 warning not-on-an-image"})


# --- fmt -----------------------------------------------------------------------------------------


def test_fmt_keeps_comments_and_meaning(
    definitions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = definitions / "manifest.yaml"
    at = ("-C", str(definitions), "treefile", "fmt", "manifest.yaml")
    assert strata(capsys, *at, "--check") == (1, "manifest.yaml\n", "")
    assert path.read_text() == MANIFEST
    status, out, _ = strata(capsys, *at, "--diff")
    assert status == 0
    assert "\n- - release # tweaked below\n+  - release # tweaked below\n" in out
    assert path.read_text() == MANIFEST.replace(" - release", "  - release")
    assert strata(capsys, *at, "--check") == (0, "", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a:\n  # none\nb: 'quoted'\n",
        "---\na: [1, 2]\n",
        "postprocess:\n  - |\n    #!/bin/sh\n    cat <<EOF\n      x: {y}\n    EOF\n",
        "packages:\n- a  # why\n# about b\n- b\n",
        "x: ünï\n",
    ],
)
def test_fmt_is_idempotent_and_says_the_same(text: str) -> None:
    once = reformat(text, "f.yaml")
    assert reformat(once, "f.yaml") == once
    assert values(parse_yaml(once, "f")) == values(parse_yaml(text, "f"))
    lines = [line.split() for line in once.splitlines() if "#" in line]
    assert lines == [line.split() for line in text.splitlines() if "#" in line]


def values(value: Value) -> object:
    if isinstance(value.data, list):
        return [values(item) for item in value.data]
    if isinstance(value.data, dict):
        return {key: values(item) for key, item in value.data.items()}
    return value.data


# --- schema --------------------------------------------------------------------------------------


def test_the_schema_takes_what_loads_and_nothing_else(
    definitions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = strata(capsys, "treefile", "schema")
    document = json.loads(out)
    assert document == treefile_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    validator = jsonschema.Draft202012Validator(document)
    for text in (MANIFEST, COMMON, "conditional-include:\n", "packages-s390x: [a]\n"):
        validator.validate(values(parse_yaml(text, "f")))
    for text in ("pakages: [a]\n", "packages: a\n", "rpmdb: x\n", "repo-packages: [{repo: a}]\n"):
        assert not validator.is_valid(values(parse_yaml(text, "f")))
