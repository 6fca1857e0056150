"""Each lint rule is broken by one image, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT
from layertar import Tar
from lookimages import META, RPMDB, database, header, looking, pkglist, system, write
from strata.cli.main import main
from strata.core.text import shown
from strata.inspect.files import read_files
from strata.inspect.lint import FATAL, Outcome, is_fatal
from strata.inspect.lintimage import RULES, lint_image

pytestmark = pytest.mark.unit

Build = Callable[[Tar], object]
KARGS = "usr/lib/bootc/kargs.d"
TMPFILES = "usr/lib/tmpfiles.d/x.conf"

# rule → (what breaks it, a word of the finding)
BROKEN: dict[str, list[tuple[Build, str]]] = {
    "var-run": [(lambda t: t.folder("var/run"), "/var/run is not a link")],
    "buildah-injected": [
        (lambda t: t.add("etc/hostname"), "/etc/hostname"),
        (lambda t: t.add("etc/resolv.conf"), "/etc/resolv.conf"),
    ],
    "etc-usretc": [(lambda t: t.folder("usr/etc"), "/usr/etc is there beside /etc")],
    "bootc-kargs": [
        (lambda t: t.add(f"{KARGS}/a.toml", b"kargs = "), "is not TOML"),
        (lambda t: t.add(f"{KARGS}/a.toml", b"kargs = 'x'"), "not a list of texts"),
        (lambda t: t.add(f"{KARGS}/a.toml", b"match-architectures = []"), "has no kargs"),
        (lambda t: t.add(f"{KARGS}/a.toml", b"kargs = []\nx = 1"), "has x, which is no key"),
    ],
    "kernel": [
        (
            lambda t: t.add("usr/lib/modules/1/vmlinuz", b"1").add("usr/lib/modules/2/vmlinuz"),
            "2 kernels: 1, 2",
        )
    ],
    "utf8": [
        (lambda t: t.add("usr/a\udcff", b"x"), r"the name /usr/a\xff"),
        (lambda t: t.symlink("usr/b", "c\udcff"), r"link to c\xff"),
    ],
    "api-base-directories": [
        (lambda t: t.add("dev"), "/dev is not a folder"),
        (lambda t: t.add(".wh.proc"), "/proc is missing"),
    ],
    "baseimage-composefs": [
        (
            lambda t: t.add("usr/lib/ostree/prepare-root.conf", b"[composefs]\nenabled=no\n"),
            "does not enable",
        ),
        (lambda t: t.add("usr/lib/ostree/prepare-root.conf", b"nonsense"), "cannot be read"),
        (lambda t: t.add("usr/lib/ostree/.wh.prepare-root.conf"), "is missing"),
    ],
    "baseimage-root": [
        (lambda t: t.add(".wh.sysroot"), "/sysroot is not a folder"),
        (lambda t: t.symlink("ostree", "elsewhere"), "/ostree is not a link to"),
    ],
    "var-log": [
        (
            lambda t: t.add("var/log/dnf.log", b"x").add(TMPFILES, b"d /var/log\n"),
            "/var/log/dnf.log is a log",
        )
    ],
    "var-tmpfiles": [(lambda t: t.folder("var/lib"), "/var/lib is in the image, but no tmpfiles")],
    "sysusers": [
        (lambda t: t.add("etc/passwd", b"root:x:0:0::/:\nme:x:9:9::/:\n"), "users that no"),
        (
            lambda t: t.add("etc/group", b"root:x:0:\nyou:x:9:\nus:x:8:\n").add(
                "usr/lib/sysusers.d/a.conf", b"# x\nu us 8\n"
            ),
            "makes: you",
        ),
    ],
    "nonempty-boot": [(lambda t: t.folder("boot/grub"), "/boot is not empty: /boot/grub")],
    "nonempty-run-tmp": [
        (lambda t: t.folder("run/lock"), "/run is not empty: /run/lock"),
        (lambda t: t.folder("tmp/x"), "/tmp is not empty: /tmp/x"),
    ],
    "enabled-repository": [  # R3.6, R3.17
        (lambda t: t.add("etc/yum.repos.d/a.repo", b"[a]\nbaseurl=x\n"), "repository a of /etc"),
        (
            lambda t: t.add("etc/yum.repos.d/a.repo", b"[a]\nenabled=0\n[b]\nenabled = 1\n"),
            "repository b of /etc",
        ),
        (lambda t: t.add("etc/yum.repos.d/a.repo", b"nonsense"), "is no .repo file"),
    ],
    "state-folders": [
        (lambda t: t.add("var/x", b"1"), "/var/x is in the image, where only empty folders"),
    ],
}
# Breaking these breaks a second rule too, as it should.
ALSO = {"var-run": {"var-tmpfiles"}, "var-log": {"state-folders"}}
CASES = [(rule, number) for rule, cases in BROKEN.items() for number in range(len(cases))]


def lint(reference: str, *node_only: str) -> dict[str, Outcome]:
    with looking(reference) as image:
        outcomes = lint_image(*image, read_files(*image), node_only)
    return {outcome.rule.id: outcome for outcome in outcomes}


def messages(outcomes: dict[str, Outcome]) -> dict[str, list[str]]:
    return {
        name: [finding.message for finding in outcome.findings]
        for name, outcome in outcomes.items()
        if outcome.findings
    }


def test_a_plain_system_keeps_every_rule(tmp_path: Path) -> None:
    tar = system().symlink("var/run", "../run").add("usr/lib/tmpfiles.d/v.conf", b"L /var/run\n")
    tar.add(f"{KARGS}/a.toml", b'kargs = ["quiet"]\nmatch-architectures = ["x86_64"]')
    tar.add(f"{KARGS}/README", b"not TOML").add("usr/lib/modules/1/vmlinuz", b"1")
    tar.add("etc/passwd", b"root:x:0:0::/:\n+::::::\nd:x:9:9::/:\n").add("etc/group", b"d:x:9:\n")
    tar.add("usr/lib/sysusers.d/d.conf", b"u! d 9\n").folder("var/tmp")
    outcomes = lint(write(tmp_path, tar.bytes()))
    assert messages(outcomes) == {}
    assert len(outcomes) == len(RULES)


@pytest.mark.parametrize(("rule", "number"), CASES, ids=[f"{r}-{n}" for r, n in CASES])
def test_each_rule_is_broken_by_one_thing(rule: str, number: int, tmp_path: Path) -> None:
    build, word = BROKEN[rule][number]
    tar = Tar()
    build(tar)
    found = messages(lint(write(tmp_path, system().bytes(), tar.bytes())))
    assert any(word in shown(message) for message in found[rule])
    assert set(found) - {rule} <= ALSO.get(rule, set())


def test_every_rule_has_a_case_here_or_below() -> None:
    below = {"base-node-package", "metalayer", "base-pyc", "node-os-release"}
    assert {rule.id for rule in RULES} == set(BROKEN) | below


def test_the_docs_list_every_rule() -> None:
    text = (ROOT / "docs/images.md").read_text()
    assert [rule.id for rule in RULES if f"`{rule.id}`" not in text] == []


def db(tmp_path: Path, *names: str) -> bytes:
    return database(tmp_path / "rpmdb.sqlite", *(header(name, "1-1") for name in names))


def test_r3_8_the_package_list_is_last_and_true(tmp_path: Path) -> None:
    label = {"io.openshift.metalayer": "true"}
    lower = system().add(RPMDB, db(tmp_path, "a", "b")).bytes()
    rows = [[name, "0", "1", "1", "x86_64"] for name in "ab"]
    right = Tar().add(META, pkglist(*rows)).bytes()
    short = Tar().add(META, pkglist(rows[0])).bytes()
    more = Tar().add("usr/more").bytes()
    layers = {"right": (lower, right), "short": (lower, short), "later": (lower, right, more)}
    found = {
        name: messages(lint(write(tmp_path / "l", *tars, labels=label))).get("metalayer", [])
        for name, tars in layers.items()
    }
    assert found["right"] == []
    assert found["short"] == ["the package list and the package database differ: b-1-1.x86_64"]
    assert "holds /usr/more" in found["later"][0]
    assert messages(lint(write(tmp_path / "l", lower, right, more))) == {}


def test_r0_1_a_node_package_in_a_base(tmp_path: Path) -> None:
    reference = write(tmp_path / "l", system().add(RPMDB, db(tmp_path, "crio", "bash")).bytes())
    assert lint(reference)["base-node-package"].skipped.startswith("--node-only")
    assert messages(lint(reference, "kube*")) == {}
    found = messages(lint(reference, "kube*", "cri*"))["base-node-package"]
    assert found == ["crio-1-1.x86_64 belongs to the node layer and is in the base"]
    without = lint(write(tmp_path / "l", system().bytes(), tag="none"), "cri*")
    assert without["base-node-package"].skipped == "the image has no package database"


def test_only_fatal_findings_fail_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warned = write(tmp_path, system().folder("boot/x").bytes(), tag="warned")
    broken = write(tmp_path, system().folder("usr/etc").bytes(), tag="broken")
    assert main(["image", "lint", warned]) == 0
    out = capsys.readouterr().out
    assert "warning  nonempty-boot: /boot is not empty: /boot/x" in out
    assert "0 fatal findings, 1 warning" in out
    assert main(["image", "lint", broken]) == 1
    assert "fatal    etc-usretc: /usr/etc is there beside /etc" in capsys.readouterr().out
    outcomes = lint(broken)
    assert is_fatal(outcomes.values())
    assert outcomes["etc-usretc"].rule.level == FATAL
