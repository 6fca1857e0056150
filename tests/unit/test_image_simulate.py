"""`strata image simulate` and what it stands on: histories, replays, plots."""

from __future__ import annotations

import gzip
import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from strata.cli.main import main
from strata.cli.plot import Line, line_plot
from strata.compose.composes import fetched_between, parse_components
from strata.container.labels import COMPONENTS, CONTENT
from strata.container.packing import ALWAYS, Component
from strata.container.packing_history import History, generate
from strata.container.packing_plan import Plan, PlannedChunk, read_plan
from strata.container.packing_replay import Update, packers, replay
from strata.container.packing_stable import expected_bytes, pack_stable, planned
from strata.core.errors import DefinitionError
from strata.oci.digest import Digest
from strata.oci.model import CONFIG, LAYER_GZIP, Descriptor, Manifest

pytestmark = pytest.mark.unit

FIXTURE = Path(__file__).parents[1] / "data/chunking/fedora-coreos-contentmeta.json.gz"


def component(name: str, size: int, content: str, often: int = 1) -> Component:
    return Component(f"{name}-1", name, name, often, size, content)


def layer(number: int, size: int, **notes: str) -> Descriptor:
    return Descriptor(LAYER_GZIP, Digest(f"{number:064x}"), size, notes)


def manifest(*layers: Descriptor) -> Manifest:
    return Manifest(Descriptor(CONFIG, Digest("0" * 64), 1), layers)


def test_a_replay_counts_what_changed_and_the_package_database_apart() -> None:
    before = [component("a", 10, "a"), component("b", 20, "b"), component("rpmdb", 5, "1", ALWAYS)]
    after = [component("a", 10, "a"), component("b", 21, "B"), component("rpmdb", 6, "2", ALWAYS)]
    for name, packer in packers(8).items():
        done = replay(name, packer, [before, after])
        layers = 3 if name == "stable" else 4
        assert done.updates == (Update(layers, 2, 21, 6),), name
        assert done.median_bytes == 21


def test_a_history_is_repeatable_and_changes_about_as_many_sources_as_asked() -> None:
    start = parse_components(FIXTURE.read_bytes(), "list")
    history = History(30, seed=3, changes=10)
    composes = list(generate(start, history))
    assert composes == list(generate(start[::-1], history))
    counts = []
    for old, new in zip(composes, composes[1:]):
        before = {item.content for item in old}
        changed = [item for item in new if item.content not in before]
        assert {item.name for item in changed if item.frequency == ALWAYS} == {
            "initramfs",
            "rpmostree-unpackaged-content",
        }
        counts.append(len({item.source for item in changed if item.frequency != ALWAYS}))
    assert 8 <= sum(counts) / len(counts) <= 12
    names = [{item.name for item in compose} for compose in composes]
    assert any(new - old for old, new in zip(names, names[1:]))
    assert any(old - new for old, new in zip(names, names[1:]))


def test_hundreds_of_updates_leave_a_packing_near_a_fresh_one() -> None:
    start = parse_components(FIXTURE.read_bytes(), "list")[:70]
    plan: Plan = ()
    for compose in generate(start, History(300, seed=4, changes=3)):
        packed = pack_stable(compose, 16, plan, decay=math.inf)
        plan = planned(packed)
    assert {item.name for item in compose} != {item.name for item in start}
    assert expected_bytes(packed) <= 1.1 * expected_bytes(pack_stable(compose, 16))


def test_images_are_compared_by_their_layers() -> None:
    old = manifest(layer(1, 5), layer(2, 100), layer(3, 30, **{COMPONENTS: "rpmdb"}))
    new = manifest(layer(4, 6), layer(2, 100), layer(5, 31, **{COMPONENTS: "rpmdb"}), layer(6, 50))
    done = fetched_between(old, new)
    assert (done.layers, done.fetched) == (3, 2)
    assert (done.fetched_bytes, done.rpmdb_bytes, done.commit_bytes) == (50, 31, 6)


def test_a_plan_is_read_from_annotations_or_there_is_none() -> None:
    whole = manifest(
        layer(1, 1),
        layer(2, 1, **{COMPONENTS: "a,b", CONTENT: "x"}),
        layer(3, 1, **{COMPONENTS: ""}),
    )
    assert read_plan(whole) == (PlannedChunk(("a", "b"), "x"), PlannedChunk(()))
    assert read_plan(manifest(layer(1, 1), layer(2, 1, **{COMPONENTS: "a"}), layer(3, 1))) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}x",
        b"[1]",
        b'[{"identifier": "a"}]',
        gzip.compress(b"[", mtime=0)[:-4],
        b"[" * 100_000,
    ],
)
def test_a_list_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DefinitionError, match="list is not a list of components"):
        parse_components(data, "list")


def test_the_command_prints_a_table_or_json_and_writes_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(gzip.decompress(FIXTURE.read_bytes()))[:60]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(rows))
    plot = tmp_path / "plot.svg"
    command = ["image", "simulate", "--components", str(listed), "--generated", "3"]
    command += ["--max-layers", "16", "--max-layers", "8", "--plot", str(plot)]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["updates"] == 3
    assert [(r["packing"], r["max_layers"]) for r in document["replays"]][:3] == [
        ("stable", 8),
        ("upstream", 8),
        ("upstream, no prior", 8),
    ]
    for replayed in document["replays"]:
        assert replayed["median_bytes"] >= min(document["changed_component_bytes"])
        assert all(update["layers"] <= replayed["max_layers"] for update in replayed["updates"])
    texts = [item.text for item in ET.fromstring(plot.read_text()).iter() if item.text]
    assert {"stable", "upstream", "layers at most", "8", "16"} <= set(texts)
    assert main(command) == 0
    assert "upstream, no prior" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "give images or --components FILE"),
        (["--generated", "3"], "give images or --components FILE"),
        (["--components", "nowhere"], "nowhere cannot be read"),
        (["--components", str(FIXTURE)], "one compose is no update"),
    ],
)
def test_too_little_to_replay_is_a_usage_error(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "simulate", *words]) == 2
    assert problem in capsys.readouterr().err


def test_a_plot_stays_inside_its_frame() -> None:
    lines = [Line("a & b", [(1, 0), (2, 7)]), Line("c", [(1, 3.5), (2, 0.1)])]
    root = ET.fromstring(line_plot("t", "x", "y", lines))
    points = [
        tuple(map(float, point.split(",")))
        for item in root.iter("{http://www.w3.org/2000/svg}polyline")
        for point in item.attrib["points"].split()
    ]
    assert all(0 <= x <= 760 and 0 <= y <= 440 for x, y in points)
    assert "a & b" in [item.text for item in root.iter()]
