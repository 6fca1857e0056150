"""Extensions files: what they say, where they are wrong, and what lint finds in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.cli.main import main
from strata.core.errors import DefinitionError, UsageError
from strata.treefile.extensionlint import lint_extensions
from strata.treefile.extensions import load_extensions, parse_extensions
from strata.treefile.project import load_project, parse_project
from strata.treefile.target import Target

pytestmark = pytest.mark.unit

ARCHES = ("x86_64", "aarch64", "ppc64le", "s390x")
SAMPLE = Path(__file__).parents[2] / "definitions" / "sample"

# The sets that are known from the field, in its words.
KNOWN = """\
repos:
  - appstream
  - highavailability
extensions:
  ipsec:
    packages: [libreswan, NetworkManager-libreswan, openvswitch3.5-ipsec]
  usbguard:
    packages: [usbguard]
  kerberos:
    packages: [krb5-workstation, libkadm5]
  kernel-devel:
    packages: [kernel-devel, kernel-headers]
    match-base-evr: kernel
  kernel:
    kind: development
    packages: [kernel, kernel-core]
    match-base-evr: kernel
  kernel-rt:
    architectures: [x86_64]
    repos: [nfv]
    packages: [kernel-rt-core]
    match-base-evr: kernel
  sandboxed-containers:
    architectures: [x86_64, s390x]
    packages: [kata-containers]
  kernel-64k:
    architectures: [aarch64]
    packages: [kernel-64k-core]
  sysstat:
    packages: [sysstat]
  two-node-ha:
    packages: [pacemaker, pcs, fence-agents-all]
"""


def test_r4_1_an_extension_is_read_with_its_lines() -> None:
    file = parse_extensions(KNOWN, "extensions/x-1.yaml")
    by_name = {item.name: item for item in file.extensions}
    rt, kernel = by_name["kernel-rt"], by_name["kernel"]
    assert [(item.text, str(item.source)) for item in rt.packages] == [
        ("kernel-rt-core", "extensions/x-1.yaml:21")
    ]
    assert (rt.kind, kernel.kind) == ("os-extension", "development")
    assert rt.match_base_evr is not None
    assert (rt.match_base_evr.text, rt.match_base_evr.source.line) == ("kernel", 22)
    assert by_name["usbguard"].match_base_evr is None


@pytest.mark.parametrize(
    ("arch", "absent", "repos"),
    [
        ("x86_64", {"kernel-64k"}, ["appstream", "highavailability", "nfv"]),
        ("aarch64", {"kernel-rt", "sandboxed-containers"}, ["appstream", "highavailability"]),
        ("s390x", {"kernel-rt", "kernel-64k"}, ["appstream", "highavailability"]),
    ],
)
def test_r4_9_an_architecture_has_its_extensions_and_their_repositories(
    arch: str, absent: set[str], repos: list[str]
) -> None:
    file = parse_extensions(KNOWN, "x.yaml")
    there = {item.name for item in file.on(arch)}
    assert {item.name for item in file.extensions} - there == absent
    assert [repo.text for repo in file.repos_on(arch)] == repos


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            "    match-base-evr: kernel\n  kernel:",
            "    match-base-evrs: kernel\n  kernel:",
            "x.yaml:13:5: an extension has no key match-base-evrs",
            "did you mean match-base-evr?",
        ),
        ("repos:\n", "repo:\n", "x.yaml:1:1: an extensions file has no key repo", "did you mean"),
        (
            "[x86_64]\n",
            "[x86-64]\n",
            "x.yaml:19: architectures must be a list of one of x86_64,",
            None,
        ),
        ("kind: development", "kind: devel", "x.yaml:15: kind must be one of os-ext", None),
        (
            "packages: [usbguard]",
            "repos: [a]",
            "x.yaml:7: extension usbguard has no packages",
            None,
        ),
        ("packages: [usbguard]", "packages: []", "x.yaml:8: packages must be a list of text", None),
        ("packages: [usbguard]", "packages: [1]", "x.yaml:8: packages must be a list of", None),
        (
            "  usbguard:\n    packages: [usbguard]",
            "  usbguard: 1",
            "x.yaml:7: this must be a",
            None,
        ),
        ("extensions:", "repos:", "x.yaml:4: the key repos stands twice", None),
        (KNOWN, "repos: [a]\n", "x.yaml: extensions is missing", None),
        (KNOWN, "- a\n", "x.yaml:1: this must be a mapping", None),
    ],
)
def test_r4_1_what_is_wrong_is_named_with_its_place(
    old: str, new: str, message: str, hint: str | None
) -> None:
    assert old in KNOWN
    with pytest.raises(DefinitionError) as caught:
        parse_extensions(KNOWN.replace(old, new, 1), "x.yaml")
    assert caught.value.message.startswith(message)
    assert (caught.value.hint or "").startswith(hint or "")


def test_a_file_stays_in_the_definitions_and_is_digested(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(KNOWN)
    (tmp_path / "other.yaml").symlink_to("x.yaml")
    first = load_extensions(tmp_path, "x.yaml")
    assert first == load_extensions(tmp_path, "other.yaml")  # by the file's own name
    assert first.digest.startswith("sha256:")
    assert len(first.digest) == 71
    (tmp_path / "out.yaml").symlink_to("/etc/passwd")
    with pytest.raises(DefinitionError, match="is outside of the definitions"):
        load_extensions(tmp_path, "out.yaml")
    with pytest.raises(DefinitionError, match=r"there is no file nope\.yaml"):
        load_extensions(tmp_path, "nope.yaml")


# --- lint ----------------------------------------------------------------------------------------


def rules(text: str, arches: tuple[str, ...] = ARCHES) -> list[tuple[str, str, str]]:
    """Place, rule and severity of each finding."""
    found = lint_extensions(parse_extensions(text, "x.yaml"), arches)
    return [(item.place, item.rule, item.severity) for item in found]


def test_r4_2_a_kernel_without_match_base_evr_is_found() -> None:
    assert ("x.yaml:26", "kernel-without-match", "warning") in rules(KNOWN)
    assert [place for place, rule, _ in rules(KNOWN) if rule == "kernel-without-match"] == [
        "x.yaml:26"
    ]
    without = KNOWN.replace("    match-base-evr: kernel\n", "")
    assert len([row for row in rules(without) if row[1] == "kernel-without-match"]) == 4


def test_r4_3_a_repository_of_all_architectures_has_to_be_global() -> None:
    line = "    packages: [usbguard]\n"
    text = KNOWN.replace(line, f"{line}    repos: [extra]\n")
    assert ("x.yaml:9", "repository-not-global", "warning") in rules(text)
    # One extension after the other may add up to all architectures.
    ours = KNOWN.replace(
        "packages: [kernel-64k-core]", "packages: [kernel-64k-core]\n    repos: [nfv]"
    )
    assert ("x.yaml:20", "repository-not-global", "warning") in rules(ours, ("x86_64", "aarch64"))
    assert ("x.yaml:20", "repository-on-some", "note") in rules(ours)
    # With one architecture nothing can drift apart.
    assert not [row for row in rules(text, ("x86_64",)) if row[1] == "repository-not-global"]
    twice = KNOWN.replace("repos: [nfv]", "repos: [appstream]")
    assert ("x.yaml:20", "repository-twice", "note") in rules(twice)


def test_what_is_never_built_or_has_no_effect_is_told() -> None:
    assert ("x.yaml:26", "never-built", "note") in rules(KNOWN, ("x86_64",))
    text = KNOWN + '    modules: { enable: ["virt:av"] }\n'
    assert ("x.yaml:33", "no-effect", "note") in rules(text)


def test_the_samples_extensions_have_no_findings() -> None:
    project = load_project(SAMPLE)
    file = load_extensions(SAMPLE, project.node(Target.parse("node/4.19")).extensions)
    assert lint_extensions(file, project.stream("sample-12").arches) == ()


def test_r4_3_strata_lint_prints_them_by_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "node.yaml").write_text("")
    (tmp_path / "x.yaml").write_text(KNOWN)
    (tmp_path / "strata.toml").write_text(TOML + 'extensions = "x.yaml"\n')
    lint = ["-C", str(tmp_path), "lint", "extensions/4.19"]
    assert main(lint) == 0
    text = capsys.readouterr().out
    assert "x.yaml:26: warning: extension kernel-64k has kernel-64k-core without match" in text
    assert text.endswith("\n0 errors, 1 warnings, 1 notes\n")
    assert main([*lint, "--strict"]) == 1
    capsys.readouterr()
    assert main([*lint, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["rule"] for row in found} == {"kernel-without-match", "never-built"}
    assert main(["-C", str(tmp_path), "lint", "node/4.19"]) == 2
    assert "there are no rules for node/4.19@s-1\n  hint: there are for: extensions/" in (
        capsys.readouterr().err
    )


# --- strata.toml ---------------------------------------------------------------------------------

TOML = """\
schema = 1
[stream.s-1]
version = "1.2"
arches = ["x86_64"]
coreos = { treefile = "node.yaml" }
[release."4.19".node.s-1]
primary = true
treefile = "node.yaml"
"""


def test_extensions_are_a_target_of_nodes_that_have_a_file(tmp_path: Path) -> None:
    for name in ("node.yaml", "x.yaml"):
        (tmp_path / name).write_text("")
    target, node = Target.parse("extensions/4.19"), Target("node", "4.19", "s-1")
    without = parse_project(TOML, tmp_path)
    with pytest.raises(UsageError) as caught:
        without.canonical(target)
    assert caught.value.message == "node/4.19@s-1 has no extensions file"
    assert caught.value.hint == 'say `extensions = "FILE"` in its table of strata.toml'
    project = parse_project(TOML + 'extensions = "x.yaml"\n', tmp_path)
    full = project.canonical(target)
    assert str(full) == "extensions/4.19@s-1"
    assert project.targets()[-2:] == (node, full)
    # The node does not stand on its extensions, and is not built again for them.
    assert project.definition_digest(node) == without.definition_digest(node)
    assert project.definition_digest(full) != project.definition_digest(node)
