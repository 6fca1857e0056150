"""Treefiles, by requirement: what is read, in which order, and where errors point."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core.errors import DefinitionError
from strata.treefile.overlay import list_overlay, overlay_digest
from strata.treefile.treefile import Flattened, flatten

pytestmark = pytest.mark.unit


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "manifest.yaml"


def read(path: Path, arch: str = "x86_64", **variables: str) -> Flattened:
    return flatten(path, variables=variables, arch=arch)


def names(flat: Flattened) -> list[str]:
    return [item.text for item in flat.packages]


def test_r1_1_includes_come_first_and_the_includers_scalars_win(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        manifest="include: [a.yaml]\npackages: [top]\nrecommends: true\n",
        a="include: b.yaml\npackages: [a]\nrecommends: false\ndocumentation: false\n",
        b="packages: [b]\n",
    )
    flat = read(path)
    assert names(flat) == ["b", "a", "top"]
    assert (flat.recommends, flat.documentation) == (True, False)
    assert [name for name, _ in flat.inputs] == ["a.yaml", "b.yaml", "manifest.yaml"]


def test_r1_1_a_circle_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path, manifest="include: a.yaml\n", a="include: manifest.yaml\n")
    with pytest.raises(DefinitionError) as caught:
        read(path)
    assert caught.value.message == (
        "a.yaml:1: the treefiles include each other in a circle: "
        "manifest.yaml → a.yaml → manifest.yaml"
    )


def test_r1_2_conditions_and_inline_treefiles(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        manifest="""\
conditional-include:
  - if: basearch != "s390x"
    include: a.yaml
  - if:
      - osversion == "rhel-9.8"
      - id != "centos"
    include:
      packages: [inline]
  - if: osversion == "rhel-10.2"
    include: [missing.yaml]
""",
        a="packages: [a]\n",
    )
    assert names(read(path, osversion="rhel-9.8", id="rhel")) == ["a", "inline"]
    assert names(read(path, "s390x", osversion="rhel-9.8", id="centos")) == []


def test_r1_2_an_unset_variable_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, manifest='conditional-include:\n  - if: os == "x"\n    include: a\n')
    with pytest.raises(DefinitionError) as caught:
        read(path, id="rhel")
    assert caught.value.message == "manifest.yaml:2: the variable os is not set"
    assert caught.value.hint == "known: basearch, id"


def test_r1_4_empty_keys_parse(tmp_path: Path) -> None:
    path = write(tmp_path, manifest="conditional-include:\n  # none now\npackages:\n")
    assert names(read(path)) == []


def test_r1_5_several_names_in_one_entry_and_pins(tmp_path: Path) -> None:
    text = "packages:\n  - cri-o cri-tools\n  - kernel-5.14.0-722.el9\n  - 'dnf-command(x)'\n"
    flat = read(write(tmp_path, manifest=text))
    assert names(flat) == ["cri-o", "cri-tools", "kernel-5.14.0-722.el9", "dnf-command(x)"]
    assert str(flat.packages[1].source) == "manifest.yaml:2"


def test_r1_6_packages_of_an_arch(tmp_path: Path) -> None:
    path = write(tmp_path, manifest="packages: [a]\npackages-s390x: [s390utils-base]\n")
    assert names(read(path)) == ["a"]
    assert names(read(path, "s390x")) == ["a", "s390utils-base"]


def test_r1_9_yaml_is_read_as_rpm_ostree_reads_it(tmp_path: Path) -> None:
    path = write(tmp_path, manifest="packages: [no, on, yes]\nmetadata: {a: off, b: true}\n")
    flat = read(path)
    assert names(flat) == ["no", "on", "yes"]
    assert flat.metadata == {"a": "off", "b": True}


def test_r1_11_scripts_of_includes_run_first(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        manifest="include: a.yaml\npostprocess:\n  - |\n    #!/bin/sh\n    echo top\n",
        a="postprocess:\n  - |\n    #!/bin/sh\n    echo a\n",
    )
    scripts = [(item.text.splitlines()[-1], str(item.source)) for item in read(path).postprocess]
    assert scripts == [("echo a", "a.yaml:2"), ("echo top", "manifest.yaml:3")]


def test_r1_22_an_unknown_key_is_reported_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, manifest="packages: [a]\npakages: [b]\n")
    with pytest.raises(DefinitionError) as caught:
        read(path)
    assert caught.value.message == "manifest.yaml:2:1: a treefile has no key pakages"
    assert caught.value.hint == "did you mean packages?"


def test_r1_22_fields_that_no_image_takes_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, manifest="rpmdb: sqlite\ninstall-langs: [de]\nselinux: true\n")
    assert flatten(path, variables={"deriving": True}, arch="x86_64").unfit == ("rpmdb", "selinux")
    assert flatten(path, variables={"deriving": False}, arch="x86_64").unfit == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("packages: a\n", "manifest.yaml:1: packages must be a list of text"),
        ("recommends: maybe\n", "manifest.yaml:1: recommends must be true or false"),
        ("packages: [a\n", "manifest.yaml:2:1:"),
        ("a: 1\na: 2\n", "manifest.yaml:2: the key a stands twice"),
        ("- a\n", "manifest.yaml:1: this must be a mapping"),
        ("include: ../x.yaml\n", "is outside of the definitions"),
        ("include: none.yaml\n", "manifest.yaml:1: there is no treefile none.yaml"),
        ("conditional-include:\n  - if: x\n    include: a\n", "'x' is not a condition"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(write(tmp_path, manifest=text))
    assert message in caught.value.message


def test_a_missing_include_names_what_may_be_meant(tmp_path: Path) -> None:
    def hint(include: str) -> str | None:
        with pytest.raises(DefinitionError, match="there is no treefile") as caught:
            read(write(tmp_path, manifest=f"include: {include}\n", common="packages: [a]\n"))
        return caught.value.hint

    assert hint("comon.yaml") == "did you mean common.yaml?"
    assert hint("far.yaml") == "the name is relative to the file that includes it"
    assert hint("module/far.yaml") == "is a submodule not checked out?"


def test_aliases_that_blow_up_are_refused(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 8):
        rows.append(f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]")
    path = write(tmp_path, manifest="metadata:\n" + "".join(f"  {row}\n" for row in rows))
    with pytest.raises(DefinitionError, match="too deep or too large"):
        read(path)


# --- overlays ------------------------------------------------------------------------------------


def overlay(folder: Path) -> Path:
    (folder / "etc/sudoers.d").mkdir(parents=True)
    (folder / "etc/sudoers.d/group").write_text("x")
    (folder / "usr").mkdir()
    (folder / "usr/script").write_text("#!/bin/sh\n")
    (folder / "usr/script").chmod(0o700)
    (folder / "usr/link").symlink_to("script")
    (folder / "statoverride").write_text("# decimal\n=288 /etc/sudoers.d/group\n")
    return folder


def test_r1_13_modes_are_gits_unless_statoverride_says_otherwise(tmp_path: Path) -> None:
    entries = {entry.path: entry for entry in list_overlay(overlay(tmp_path))}
    assert entries["etc/sudoers.d/group"].mode == 0o440
    assert entries["usr/script"].mode == 0o755
    assert entries["usr/link"].target == "script"
    assert "statoverride" not in entries


def test_r1_13_a_statoverride_of_nothing_is_an_error(tmp_path: Path) -> None:
    overlay(tmp_path)
    (tmp_path / "statoverride").write_text("=420 /etc/none\n")
    with pytest.raises(DefinitionError, match="names /etc/none, which the overlay does not have"):
        list_overlay(tmp_path)
    (tmp_path / "statoverride").write_text("0644 /etc/none\n")
    with pytest.raises(DefinitionError) as caught:
        list_overlay(tmp_path)
    assert caught.value.hint == "the mode is decimal: =288 is 0440"


@pytest.mark.parametrize("change", ["rename", "content", "mode", "link"])
def test_r2_12_an_overlays_digest_sees_paths_modes_links_and_content(
    tmp_path: Path, change: str
) -> None:
    folder = overlay(tmp_path)
    before = overlay_digest(folder)
    if change == "rename":
        (folder / "usr/script").rename(folder / "usr/script2")
    elif change == "content":
        (folder / "usr/script").write_text("#!/bin/bash\n")
    elif change == "mode":
        (folder / "usr/script").chmod(0o644)
    else:
        (folder / "usr/link").unlink()
        (folder / "usr/link").symlink_to("other")
    assert overlay_digest(folder) != before


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("x: " + "[" * 5000, "manifest.yaml:1: the document is too deep"),
        ("- " * 5000, "manifest.yaml:1: the document is too deep"),
        ("variables:\n  n: " + "1" * 5000, "manifest.yaml:2: this number has 5000 digits"),
        ("variables:\n  n: -" + "1" * 5000, "manifest.yaml:2: this number has 5001 digits"),
    ],
)
def test_what_is_beyond_all_bounds_is_named_with_its_place(
    tmp_path: Path, text: str, where: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(write(tmp_path, manifest=text))
    assert where in caught.value.message
    assert {"file", "line", "column"} <= set(caught.value.context)
