"""`strata image simulate`: what updates cost a client, by packing and number of layers."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from strata.cli.context import Context, add_command, print_json
from strata.cli.plot import Line, line_plot
from strata.cli.progress import print_table, size
from strata.compose.composes import Fetched, fetched_between, parse_components, read_compose
from strata.container.packing import Component
from strata.container.packing_history import History, generate
from strata.container.packing_replay import RPMDB, Replay, packers, replay
from strata.core.errors import UsageError
from strata.core.files import atomic_write
from strata.oci.reference import ImageReference

LAYERS = (16, 32, 48, 64, 96)

DESCRIPTION = """\
Replay a series of composes through the packings: how much must a client that
has one download to have the next, and how many layers does that take? Bytes of
packings are those of the components of every chunk that changed, uncompressed;
the commit layer is left out and the package database counted apart. For images,
what their own layers cost is measured too, compressed.

  strata image simulate oci:old:coreos/sample-12 oci:new:coreos/sample-12
  strata image simulate --generated 50 --plot updates.svg oci:old:coreos/sample-12
  strata image simulate --generated 50 --components contentmeta.json.gz
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "simulate",
        run,
        summary="what updates cost a client, by packing",
        description=DESCRIPTION,
    )
    add = parser.add_argument
    add("images", metavar="IMGREF", nargs="*", help="images of base layers, the oldest first")
    add("--generated", metavar="N", type=int, help="N made-up updates after the last image")
    add("--components", metavar="FILE", help="start from a list of components (JSON)")
    add("--changes", metavar="N", type=float, default=10, help="sources an update changes (10)")
    add("--seed", metavar="N", type=int, default=1, help="of the made-up updates (1)")
    add("--max-layers", metavar="N", type=int, action="append", help="chunks (several times)")
    add("--plot", metavar="FILE.svg", help="write a plot of bytes against layers")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Replay, and say what it cost."""
    composes, built = _composes(context, arguments)
    layers = sorted(set(arguments.max_layers or LAYERS))
    replays: list[tuple[int, Replay]] = []
    for bins in layers:
        with context.reporter.step(f"replay {len(composes) - 1} updates, {bins} layers"):
            for name, packer in packers(bins).items():
                replays.append((bins, replay(name, packer, composes)))
    least = [_least(old, new) for old, new in zip(composes, composes[1:])]
    if arguments.plot:
        atomic_write(Path(arguments.plot), _plot(replays, least).encode())
    if context.as_json:
        document = {
            "updates": len(composes) - 1,
            "changed_component_bytes": least,
            "replays": [
                {
                    "packing": item.packing,
                    "max_layers": bins,
                    "median_bytes": item.median_bytes,
                    "updates": [asdict(update) for update in item.updates],
                }
                for bins, item in replays
            ],
            "as_built": [asdict(item) for item in built],
        }
        print_json(document)
    else:
        _show(replays, least, built)
    return 0


def _composes(
    context: Context, arguments: argparse.Namespace
) -> tuple[list[Sequence[Component]], list[Fetched]]:
    if bool(arguments.images) == bool(arguments.components):
        raise UsageError("give images or --components FILE", hint="one of the two")
    found: list[Sequence[Component]] = []
    built: list[Fetched] = []
    if arguments.components:
        path = Path(arguments.components)
        try:
            found = [parse_components(path.read_bytes(), str(path))]
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    manifests = []
    for text in arguments.images:
        compose = read_compose(
            ImageReference.parse(text),
            architecture=context.arch,
            threads=context.jobs,
            reporter=context.reporter,
        )
        found.append(compose.components)
        manifests.append(compose.manifest)
    built = [fetched_between(old, new) for old, new in zip(manifests, manifests[1:])]
    if arguments.generated:
        history = History(arguments.generated, arguments.seed, arguments.changes)
        found[-1:] = generate(found[-1], history)
    if len(found) < 2:
        raise UsageError("one compose is no update", hint="name two images, or --generated N")
    return found, built


def _least(old: Sequence[Component], new: Sequence[Component]) -> int:
    """The bytes of the components that changed, rpmdb apart: no packing can cost less."""
    before = {(item.name, item.content) for item in old}
    return sum(
        item.size_bytes
        for item in new
        if (item.name, item.content) not in before and item.name != RPMDB
    )


def _show(
    replays: Sequence[tuple[int, Replay]], least: Sequence[int], built: list[Fetched]
) -> None:
    rows = []
    for bins, item in replays:
        costs = [update.fetched_bytes for update in item.updates]
        rows.append(
            [
                item.packing,
                str(bins),
                size(round(item.median_bytes)),
                size(round(statistics.fmean(costs))),
                size(max(costs)),
                f"{statistics.median(update.fetched for update in item.updates):g}",
                size(round(statistics.median(update.rpmdb_bytes for update in item.updates))),
            ]
        )
    columns = ["packing", ">layers", ">median", ">mean", ">most", ">chunks fetched", ">rpmdb"]
    print_table(f"{len(least)} updates, uncompressed bytes of changed chunks", columns, rows)
    floor = size(round(statistics.median(least)))
    sys.stdout.write(f"the changed components themselves, median: {floor}\n")
    if built:
        names = ["update", ">layers", ">fetched", ">bytes", ">rpmdb", ">commit layer"]
        print_table(
            "as built, compressed",
            names,
            [
                [
                    str(number),
                    str(item.layers),
                    str(item.fetched),
                    size(item.fetched_bytes),
                    size(item.rpmdb_bytes),
                    size(item.commit_bytes),
                ]
                for number, item in enumerate(built, 1)
            ],
        )


def _plot(replays: Sequence[tuple[int, Replay]], least: Sequence[int]) -> str:
    names = list(dict.fromkeys(item.packing for _, item in replays))
    lines = [
        Line(
            name,
            [(bins, item.median_bytes / 1e6) for bins, item in replays if item.packing == name],
        )
        for name in names
    ]
    floor = statistics.median(least) / 1e6
    counts = sorted({bins for bins, _ in replays})
    lines.append(Line("changed components", [(bins, floor) for bins in counts]))
    title = f"What an update costs a client ({len(least)} updates)"
    return line_plot(title, "layers at most", "median MB to download, uncompressed", lines)
