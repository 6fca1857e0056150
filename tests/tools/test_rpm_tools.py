"""rpm's own order, real repositories, dnf's solver and installs, and what is left behind."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rpmrepo import index, make_repository
from strata.core.errors import DigestError, PackageError, RepositoryError
from strata.core.events import silent
from strata.rpm import dnf
from strata.rpm.answers import Answers
from strata.rpm.cache import PackageCache
from strata.rpm.dnf import interpreter
from strata.rpm.evr import compare_versions
from strata.rpm.install import install
from strata.rpm.inventory import RPMDB_FOLDER, read_inventory
from strata.rpm.lock import Lock
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig
from strata.rpm.repostate import read_states
from strata.rpm.solve import Below, Request, Wishes, solve

pytestmark = pytest.mark.tools

_VERSIONS = """
1 1.0 1.0.1 1.01 1.0~rc1 1.0~ 1.0^ 1.0^git1 1.0^git1~ 1.0^~ a 1a 1.a 1_0 10 9 ~ ^ ~~ 1..0 1.0.a 2b
2B 0001 1.0- 1-0 5.14.0 722.el9 722.el9_1 12u2 1+b1 1.2.13.dfsg 1.20.5+really1.20.2 zz z.z 1.0.0.0
""".split()
_COMPARE = """
import json, rpm, sys
pairs = json.load(sys.stdin)
print(json.dumps([rpm.labelCompare(("0", a, "1"), ("0", b, "1")) for a, b in pairs]))
"""


def test_version_order_is_rpms_own() -> None:
    pairs = [(one, two) for one in _VERSIONS for two in _VERSIONS]
    done = subprocess.run(
        [interpreter(), "-I", "-c", _COMPARE],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(done.stdout)
    wrong = [
        (pair, compare_versions(*pair), order)
        for pair, order in zip(pairs, theirs, strict=True)
        if compare_versions(*pair) != order
    ]
    assert wrong == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RepoConfig:
    return make_repository(
        tmp_path_factory.mktemp("repos") / "base",
        {
            "lib 1.0": "Provides: virtual = 1",
            "app 2.0": "Requires: lib >= 1.0",
            "weak 1.0": "Recommends: extra",
            "extra 1.0": "",
            "broken 1.0": "Requires: nothing-has-this",
        },
    )


def locked(repos: list[RepoConfig], names: str, tmp_path: Path, **options: object) -> Lock:
    requests = [Request(name, f"m.yaml:{line}") for line, name in enumerate(names.split(), 1)]
    return solve(
        repos,
        read_states(repos, tmp_path / "metadata"),
        requests,
        arch="x86_64",
        metadata_cache=tmp_path / "metadata",
        **options,  # type: ignore[arg-type]
    )


def names_of(lock: Lock) -> list[str]:
    return [package.nevra.name for package in lock.packages]


def test_a_lock_is_exact_explained_and_dated(base: RepoConfig, tmp_path: Path) -> None:
    lock = locked([base], "app", tmp_path)
    assert names_of(lock) == ["app", "lib"]
    assert lock.explain(lock.packages[1].nevra).endswith("app is named at m.yaml:1")
    assert lock.generated == 1_700_000_000
    path = Path(base.baseurl.removeprefix("file://")) / lock.packages[0].location
    assert hashlib.sha256(path.read_bytes()).hexdigest() == lock.packages[0].sha256


def test_r1_5_r1_14_virtual_provides_and_weak_dependencies(
    base: RepoConfig, tmp_path: Path
) -> None:
    assert names_of(locked([base], "virtual weak", tmp_path)) == ["lib", "weak"]
    with_weak = locked([base], "weak", tmp_path, wishes=Wishes(weak_deps=True))
    assert names_of(with_weak) == ["extra", "weak"]


def test_all_missing_packages_are_named_with_their_lines(base: RepoConfig, tmp_path: Path) -> None:
    with pytest.raises(PackageError) as caught:
        locked([base], "app nope neither", tmp_path)
    expected = "no package is or provides nope, named at m.yaml:2; nor neither (m.yaml:3)"
    assert caught.value.message == expected
    assert caught.value.hint == "looked in: base"


def test_what_does_not_solve_says_why_and_who_asked(base: RepoConfig, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="nothing provides nothing-has-this") as caught:
        locked([base], "app broken", tmp_path)
    assert caught.value.hint == "asked for: broken at m.yaml:2; looked in: base"


def test_r1_15_an_excluded_package_is_not_found(base: RepoConfig, tmp_path: Path) -> None:
    with pytest.raises(PackageError):
        locked([base], "app", tmp_path, wishes=Wishes(exclude=("lib",)))


def test_the_same_question_is_asked_of_dnf_once(
    base: RepoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    call = dnf.call

    def counting(task: dict[str, object], **options: object) -> dict[str, object]:
        asked.append(task)
        return call(task, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("strata.rpm.dnf.call", counting)

    def answered(names: str, *, made_by: str = "one", **options: Any) -> Lock:
        answers = Answers(tmp_path / "solved", made_by)
        return locked([base], names, tmp_path, answers=answers, **options)

    first = answered("app")
    assert answered("app") == first == locked([base], "app", tmp_path)
    assert len(asked) == 2  # one of them without answers
    root = installed(locked([base], "lib", tmp_path), [base], tmp_path / "root", tmp_path)
    different: list[dict[str, Any]] = [
        {"names": "app lib"},
        {"names": "app", "made_by": "two"},
        {"names": "app", "wishes": Wishes(weak_deps=True)},
        {"names": "app", "below": Below(root=root)},
    ]
    for question in different:
        asked.clear()
        assert answered(**question) == answered(**question)
        assert len(asked) == 1
    folder = Path(shutil.copytree(base.baseurl.removeprefix("file://"), tmp_path / "base"))
    base = replace(base, baseurl=f"file://{folder}")
    answered("app")
    index(folder, revision=1_700_000_001)
    asked.clear()
    assert answered("app").generated == 1_700_000_001
    assert len(asked) == 1
    for path in (tmp_path / "solved").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert answered("app").generated == 1_700_000_001
    assert len(asked) == 2


def test_what_cannot_be_solved_is_no_answer_to_keep(base: RepoConfig, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(PackageError):
            locked([base], "app broken", tmp_path, answers=Answers(tmp_path / "solved", "one"))
    assert not (tmp_path / "solved").exists()


def installed(lock: Lock, repos: list[RepoConfig], root: Path, tmp_path: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    paths = PackageCache(tmp_path / "packages").fetch(lock, repos)
    with silent().step("install") as step:
        install(
            root,
            list(paths.values()),
            arch="x86_64",
            source_date_epoch=lock.generated,
            documentation=False,
            scratch=tmp_path / "scratch",
            step=step,
        )
    return root


def test_r1_14_an_install_leaves_packages_and_nothing_of_dnf(
    base: RepoConfig, tmp_path: Path
) -> None:
    root = installed(locked([base], "app", tmp_path), [base], tmp_path / "root", tmp_path)
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert files == [
        f"{RPMDB_FOLDER}/rpmdb.sqlite",
        "usr/share/app/file",
        "usr/share/lib/file",
    ]


def test_two_installs_give_the_same_database(base: RepoConfig, tmp_path: Path) -> None:
    lock = locked([base], "app weak", tmp_path)
    databases = []
    for name in ("one", "two"):
        root = installed(lock, [base], tmp_path / name, tmp_path)
        databases.append((root / RPMDB_FOLDER / "rpmdb.sqlite").read_bytes())
    assert databases[0] == databases[1]


def test_the_database_reads_on_a_read_only_file_system_and_as_rpm_reads_it(
    base: RepoConfig, tmp_path: Path
) -> None:
    root = installed(locked([base], "app", tmp_path), [base], tmp_path / "root", tmp_path)
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        query = ["rpm", "--dbpath", f"{root}/{RPMDB_FOLDER}", "-qa", "--qf", "%{NEVRA}\\n"]
        theirs = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
        inventory = read_inventory(root)
        assert sorted(str(nevra) for nevra in inventory.nevras()) == sorted(theirs)
    finally:
        subprocess.run(["umount", root], check=True)
    owners = inventory.file_owners()
    assert [nevra.name for nevra in owners["/usr/share/app/file"]] == ["app"]
    assert inventory.pkglist()[0] == ["app", "0", "2.0", "1", "noarch"]


def test_r3_4_the_bases_packages_stay_and_newer_candidates_do_not_fail(
    base: RepoConfig, tmp_path: Path
) -> None:
    root = installed(locked([base], "lib", tmp_path), [base], tmp_path / "root", tmp_path)
    newer = make_repository(
        tmp_path / "newer",
        {"lib 2.0": "", "node 1.0": "Requires: lib", "ahead 1.0": "Requires: lib >= 2"},
    )
    lock = locked([base, newer], "lib node", tmp_path, below=Below(root=root))
    assert names_of(lock) == ["node"]
    with pytest.raises(PackageError, match="lib >= 2"):
        locked([base, newer], "ahead", tmp_path, below=Below(root=root))


@pytest.mark.parametrize("text", ["lib-2.0-1", "lib-2.0"])
def test_r3_12_a_pin_of_another_build_than_the_layer_below_names_the_override(
    base: RepoConfig, tmp_path: Path, text: str
) -> None:
    root = installed(locked([base], "lib", tmp_path), [base], tmp_path / "root", tmp_path)
    newer = make_repository(tmp_path / "newer", {"lib 2.0": ""})
    there = NEVRA.parse("lib-1.0-1.noarch")
    for below in (Below(root=root), Below(locked=(there,), repos=(base,))):
        with pytest.raises(PackageError) as caught:
            locked([base, newer], text, tmp_path, below=below)
        assert caught.value.message == f"no package is or provides {text}, named at m.yaml:1"
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("lib-1.0-1.noarch is in the layer below, ")
        assert caught.value.hint.endswith(
            f'[[override]] in strata.toml, with packages = ["{text}"]'
        )
    # the build that is there needs nothing
    assert names_of(locked([base, newer], "lib-1.0-1", tmp_path, below=Below(root=root))) == []


def test_r1_15_an_excluded_package_that_is_asked_for_is_said_to_be_there(
    base: RepoConfig, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match="no package is or provides lib") as caught:
        locked([base], "lib", tmp_path, wishes=Wishes(exclude=("lib",)))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("lib-1.0-1.noarch would be it, but exclude-packages")


def test_a_pin_against_what_takes_its_place_is_told_with_both_places(
    base: RepoConfig, tmp_path: Path
) -> None:
    newer = make_repository(tmp_path / "newer", {"lib 2.0": "Provides: virtual = 2"})
    by = Request("lib-2.0-1.noarch", "--with", "newer", amends=True)

    def solved(*texts: str) -> list[str]:
        asked = [Request(text, f"m.yaml:{line}") for line, text in enumerate(texts, 1)]
        repos = [base, newer]
        states = read_states(repos, tmp_path / "metadata")
        wishes, cache = Wishes(replace=("lib",)), tmp_path / "metadata"
        found = solve(
            repos, states, [*asked, by], arch="x86_64", metadata_cache=cache, wishes=wishes
        )
        return [str(package.nevra) for package in found.packages]

    assert solved("app", "lib", "virtual") == ["app-2.0-1.noarch", "lib-2.0-1.noarch"]
    assert solved("lib-2.0-1") == ["lib-2.0-1.noarch"]
    with pytest.raises(PackageError) as caught:
        solved("app", "lib-1.0-1")
    told = "m.yaml:2 asks for lib-1.0-1, but --with brings lib-2.0-1.noarch"
    assert caught.value.message == told
    assert caught.value.hint == "name the package without a version there, or leave --with out"
    with pytest.raises(PackageError, match=r"asks for lib = 1\.0-1, which is lib-1\.0-1\.noarch"):
        solved("lib = 1.0-1")


def test_a_package_that_changed_after_the_lock_is_refused_and_not_kept(tmp_path: Path) -> None:
    repo = make_repository(tmp_path / "mine", {"app 1.0": ""})
    lock = locked([repo], "app", tmp_path)
    path = tmp_path / "mine" / lock.packages[0].location
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"x")
    cache = PackageCache(tmp_path / "packages")
    with pytest.raises(DigestError, match="is not the package that was locked"):
        cache.fetch(lock, [repo])
    path.write_bytes(good)
    (where,) = cache.fetch(lock, [repo]).values()
    assert where.read_bytes() == good
    path.unlink()
    assert cache.fetch(lock, [repo])  # what is in the cache needs no repository


def test_a_package_gone_from_its_repository_is_named(tmp_path: Path) -> None:
    repo = make_repository(tmp_path / "mine", {"app 1.0": ""})
    lock = locked([repo], "app", tmp_path)
    (tmp_path / "mine" / lock.packages[0].location).unlink()
    with pytest.raises(RepositoryError, match="cannot be fetched from repository mine"):
        PackageCache(tmp_path / "packages").fetch(lock, [repo])


MODULES = """\
---
document: modulemd
version: 2
data:
  name: tool
  stream: "2"
  version: 1
  context: c0ffee
  arch: x86_64
  summary: tool
  description: tool
  license: {module: [MIT]}
  dependencies:
  - requires: {platform: [el9]}
  artifacts: {rpms: ["tool-0:2-1.noarch"]}
...
---
document: modulemd-defaults
version: 1
data: {module: tool, stream: "2"}
...
"""


@pytest.mark.parametrize(("platform", "version"), [("platform:el9", "2"), ("platform:el8", "1")])
def test_platform_module_decides_which_streams_of_modules_count(
    tmp_path: Path, platform: str, version: str
) -> None:
    folder = tmp_path / "modular"
    repo = make_repository(folder, {"tool 1": "", "tool 2": "", "other 1": ""})
    (tmp_path / "modules.yaml").write_text(MODULES)
    argv = ["modifyrepo_c", "--mdtype=modules", str(tmp_path / "modules.yaml")]
    argv.append(str(folder / "repodata"))
    subprocess.run(argv, check=True, capture_output=True)
    lock = solve(
        [repo],
        read_states([repo], tmp_path),
        [Request("tool", "t.yaml:1")],
        arch="x86_64",
        metadata_cache=tmp_path,
        wishes=Wishes(platform=platform),
    )
    assert [package.nevra.version for package in lock.packages] == [version]


def test_only_files_of_wanted_languages_are_installed(tmp_path: Path) -> None:
    files = {"tool": "%lang(de) /usr/share/tool-de"}
    make_repository(tmp_path / "repo", {"tool 1": ""}, files=files)
    rpm = next((tmp_path / "repo").rglob("tool-*.rpm"))
    for langs, there in ((("fr", "de"), True), (("fr",), False), ((), True)):
        root = tmp_path / ("root-" + "-".join(langs))
        root.mkdir()
        with silent().step("install") as step:
            install(
                root,
                [rpm],
                arch="x86_64",
                source_date_epoch=0,
                documentation=True,
                scratch=tmp_path,
                step=step,
                langs=langs,
            )
        assert (root / "usr/share/tool-de").exists() is there
