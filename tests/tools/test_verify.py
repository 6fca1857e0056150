"""`strata build --verify`: what a build reads that is no input is found, and its cause named."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Strata, leftovers, make_store
from strata.core.clock import today
from tinydist import TARGET, tiny_definitions

pytestmark = pytest.mark.tools

LEAKS = """\
mkdir -p /usr/lib/leaks /usr/lib/leaks/var/log
cd /usr/lib/leaks
date > time
date +%F > day
echo "built $RANDOM$RANDOM$RANDOM" > random
ls -U /usr/bin > order
echo "jobs: $(nproc)" > cpus
echo made > page && gzip page
echo "$(date) done" > var/log/build.log
head -c 16 /dev/urandom > machine-id
head -c 16 /dev/urandom > ssh_host_rsa_key
head -c 16 /dev/urandom > unknown
install -m "0$(nproc)44" /dev/null mode
env > environment
"""
# What the sandbox keeps from scripts.
HIDDEN = """\
mkdir -p /usr/lib/hidden
cd /usr/lib/hidden
umask > umask
touch mode
date -d @0 +%H:%M%Z > zone
printf '%s\\n' i I ı | sort > collation
pwd > folder
echo "${LANG:-} $LC_ALL ${TZ:-} $SOURCE_DATE_EPOCH" > locale
"""


def snapshot(store: Path) -> dict[str, bytes]:
    """What a verification may not touch: tags, records, locks, refs; and no blob may be new."""
    paths = [store / "index.json", *(store / "records").rglob("*"), *(store / "locks").rglob("*")]
    found = {str(path): path.read_bytes() for path in paths if path.is_file()}
    found["refs"] = b" ".join(
        path.read_bytes() for path in sorted((store / "repo/refs").rglob("*")) if path.is_file()
    )
    found["blobs"] = "\n".join(sorted(os.listdir(store / "blobs/sha256"))).encode()
    return found


@pytest.fixture
def store(tmp_path: Path, sample_repos: Path) -> Path:
    """An empty store with the sample's repositories."""
    return make_store(tmp_path / "store", sample_repos)


def check_nothing_is_left(store: Path) -> None:
    assert list((store / "work").iterdir()) == []
    assert leftovers(store) == []
    assert not [name for name in os.listdir("/dev/shm") if "faketime" in name]


def test_what_a_script_reads_that_is_no_input_is_found_and_named(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    definitions = tiny_definitions(tmp_path / "definitions", LEAKS, HIDDEN)
    common = ("-C", str(definitions), "--store", str(store))
    strata(*common, "build", TARGET)
    before = snapshot(store)
    failed = strata(*common, "--json", "build", TARGET, "--verify", check=False)
    assert failed.returncode == 10, failed.stderr[-3000:]
    assert snapshot(store) == before
    check_nothing_is_left(store)
    error = json.loads(failed.stderr.splitlines()[-1])
    assert error["code"] == "digest"
    told = error["context"]["verified"]
    assert not told["equal"]
    assert told["expected"]["commit"] != told["actual"]["commit"]
    causes = {
        row["path"].removeprefix("/usr/lib/leaks/"): row["cause"] for row in told["differences"]
    }
    expected = {
        "time": "the time of the build",
        "day": "the time of the build",
        "random": "a random number",
        "order": "the order of a folder's entries",
        "page.gz": "the time in a gzip header",
        "var/log/build.log": "a log",
        "machine-id": "the machine's id",
        "ssh_host_rsa_key": "a host key",
        "environment": "the whole environment",
        "unknown": "unknown",
    }
    if len(os.sched_getaffinity(0)) > 1:
        expected |= {"cpus": "the number of CPUs", "mode": "set by a number or a word"}
    # Nothing of HIDDEN is among them: umask, locale, time zone and folder do not reach a script.
    assert causes.keys() == expected.keys()
    assert not {
        path: cause for path, cause in causes.items() if not cause.startswith(expected[path])
    }
    shown = strata(*common, "build", TARGET, "--verify", check=False).stderr
    assert (
        f"strata: {TARGET} was built again from the same inputs and its commit differs\n" in shown
    )
    assert "  | /usr/lib/leaks/order: content, likely the order of a folder's entries or" in shown
    assert "more (--json lists them)\n  hint: something in the build reads what is not" in shown


def test_a_build_that_reads_only_inputs_is_equal_whoever_builds(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    definitions = tiny_definitions(tmp_path / "definitions", HIDDEN)
    common = ("-C", str(definitions), "--store", str(store), "--json")
    (built,) = json.loads(strata(*common, "build", TARGET, "--verify").stdout)
    assert built["status"] == "built"
    assert built["verified"]["equal"]
    assert built["verified"]["expected"] == built["verified"]["actual"]
    assert built["verified"]["expected"]["manifest"] == built["outputs"]["manifest"]
    assert {"time 799 h later", "umask 0077", "directory order of tmpfs"} <= {
        *built["verified"]["conditions"]
    }
    check_nothing_is_left(store)
    before = snapshot(store)
    (again,) = json.loads(strata(*common, "build", TARGET, "--verify").stdout)
    assert (again["status"], again["verified"]) == ("up to date", built["verified"])
    assert snapshot(store) == before
    # Not only to itself: another store, another umask.
    other = make_store(tmp_path / "other", (store / "sample").resolve())
    command = [str(Path(sys.executable).with_name("strata")), *common[:2], "--store", str(other)]
    subprocess.run([*command, "build", TARGET], check=True, capture_output=True, umask=0o077)
    record = json.loads((other / f"records/{TARGET}.json").read_text())
    assert record["outputs"] == built["outputs"]


def test_a_script_that_fails_only_the_second_time_is_told_so(
    store: Path, tmp_path: Path, strata: Strata
) -> None:
    month = time.strftime("%Y-%m", time.gmtime())
    script = f'[ "$(date +%Y-%m)" = {month} ] || {{ echo too late; exit 3; }}'
    definitions = tiny_definitions(tmp_path / "definitions", script)
    common = ("-C", str(definitions), "--store", str(store))
    failed = strata(*common, "build", TARGET, "--verify", check=False)
    assert failed.returncode == 3
    assert f"strata: {TARGET} was built, but not a second time: the postprocess" in failed.stderr
    assert "  | too late\n" in failed.stderr
    check_nothing_is_left(store)
    assert (store / f"records/{TARGET}.json").exists()


def test_ctrl_c_in_the_second_build_leaves_nothing(store: Path, tmp_path: Path) -> None:
    definitions = tiny_definitions(tmp_path / "definitions")
    command = [str(Path(sys.executable).with_name("strata")), "-C", str(definitions)]
    process = subprocess.Popen(
        [*command, "--store", str(store), "build", TARGET, "--verify"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "again" in "".join(seen) and "install packages …" in line and line.startswith("  "):
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            break
    seen += process.stderr.readlines()
    process.stderr.close()
    assert process.wait(timeout=60) == 130, "".join(seen)[-3000:]
    assert "interrupted; nothing is left running" in seen[-1]
    check_nothing_is_left(store)


def test_extensions_and_a_hotfix_come_out_the_same_again(
    definitions: Path, own_store: Path, strata: Strata
) -> None:
    """Base and node are verified by tests/tools/test_road_builds.py."""
    later = today() + datetime.timedelta(days=30)
    (definitions / "hotfix-kubectl").write_text("#!/bin/sh\necho fixed\n")
    with open(definitions / "strata.toml", "a", encoding="utf-8") as stream:
        stream.write(
            '[[hotfix]]\nname = "case-0042"\ntarget = "node/4.19"\n'
            'files = { "/usr/bin/kubectl" = "hotfix-kubectl" }\n'
            f'expires = {later}\nreason = "customer case 42"\n'
        )
    common = ("-C", str(definitions), "--store", str(own_store), "--json")
    targets = ("extensions/4.19", "hotfix/case-0042")
    done = json.loads(strata(*common, "build", *targets, "--verify").stdout)
    told = {row["target"]: row.get("verified") for row in done}
    assert told["extensions/4.19@sample-12"]["equal"]
    assert told["hotfix/case-0042"]["equal"]
    check_nothing_is_left(own_store)
