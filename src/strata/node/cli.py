"""`strata-node`: the agent's command line. Parse, call, print."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from strata import __version__
from strata.core.errors import DigestError, InterruptedByUserError, StrataError
from strata.core.events import Reporter, json_lines, plain
from strata.core.process import os_error, require_root
from strata.core.text import shown
from strata.node import dryrun, host, mounts
from strata.node.bundle import bundle
from strata.node.config import PATH, NodeConfig
from strata.node.finish import finish
from strata.node.overlay import overlay
from strata.node.phases import agent_lock
from strata.node.pull import pull
from strata.node.status import Status
from strata.node.switch import roll_back, switch
from strata.node.telling import Telling
from strata.node.undo import undo
from strata.node.units import AGENT, LIVE_SIZE, MARKER, Installation, unit_files, write_units
from strata.node.units.order import read_units, require_order
from strata.node.verify import OVERLAY, verify
from strata.node.wanted import Wanted
from strata.oci.reference import SignedReference

DESCRIPTION = """\
Put the node image on a running machine without a reboot: pull it into the
system's repository, lay its /usr over the running one, merge /etc, and go on
to multi-user.target.
"""


def make_parser() -> argparse.ArgumentParser:
    """The agent's whole command line."""
    parser = argparse.ArgumentParser(
        prog="strata-node",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"strata-node {__version__}")
    parser.add_argument(
        "--log", choices=("plain", "json"), default="plain", help="how progress is shown"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    pulling = commands.add_parser(
        "pull",
        help="bring the node image to this machine",
        description="Import the node image into the system's repository and check it out beside "
        "it. Layers of the booted system are not fetched.",
    )
    pulling.add_argument(
        "--image",
        metavar="IMGREF",
        help=f"docker://HOST/NAME@sha256:… or oci:DIR:TAG (default: from {PATH})",
    )
    pulling.add_argument(
        "--retry-for",
        type=float,
        metavar="SECONDS",
        help="give up on a failing registry after this time; 0: at once (default: never)",
    )
    _add_dry_run(pulling)
    pulling.set_defaults(call=_pull)
    for name, call, text in (
        ("overlay", _overlay, "merge /etc and lay the pulled image over /usr"),
        ("finish", _finish, "record success and switch to multi-user.target"),
        ("undo", _undo, "take the overlay back: /usr and /etc are what they were"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.set_defaults(call=call)
        if call is not _undo:
            _add_dry_run(command)
    switching = commands.add_parser(
        "switch",
        help="have the pulled image boot next",
        description="Have the pulled image boot next, with this machine's /etc and kernel "
        "arguments.",
    )
    switching.add_argument(
        "--rollback",
        action="store_true",
        help="have the booted system boot next, or the one before",
    )
    switching.set_defaults(call=_switch)
    status = commands.add_parser(
        "status", help="how far this machine is", description="How far this machine is."
    )
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(call=_status)
    bundling = commands.add_parser(
        "bundle",
        help="collect what support needs, without secrets",
        description="Collect the agent's state, journal and plans, and what the machine says of "
        "its units, mounts and disks, in a .tar.gz without secrets.",
    )
    bundling.add_argument("dest", metavar="FILE", type=Path, help="the archive to write")
    bundling.set_defaults(call=_bundle)
    verifying = commands.add_parser(
        "verify",
        help="read all of /usr and compare it with the node image",
        description="Read every file of the mounted /usr and compare it with the node image's "
        "commit, or with the booted image's where nothing is overlaid. Ends with 10 when anything "
        "differs.",
    )
    verifying.add_argument("--json", action="store_true", help="as JSON")
    verifying.set_defaults(call=_verify)
    units = commands.add_parser(
        "units",
        help="write the systemd units and the generator",
        description="Write the agent's systemd units and generator below DIR, for an installer to "
        "put on the machine.",
    )
    units.add_argument("dir", metavar="DIR", help="the machine's root, or a folder in its stead")
    units.add_argument("--agent", default=AGENT, help="the command that starts the agent")
    units.add_argument(
        "--marker",
        default=MARKER,
        help=f"the package whose absence calls for the overlay (default: {MARKER})",
    )
    units.add_argument(
        "--live-size",
        default=LIVE_SIZE,
        metavar="SIZE",
        help="most memory a live system's copy may take, like 5G (default: half of it)",
    )
    units.add_argument(
        "--arch", default=host.architecture(), help="the machine's (default: this one's)"
    )
    units.add_argument(
        "--assisted",
        action="store_true",
        help="something else starts node-image-overlay.service, and nothing is isolated",
    )
    units.set_defaults(call=_units)
    return parser


def _add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dry-run", action="store_true", help="only say what would be done; change nothing"
    )
    command.add_argument("--json", action="store_true", help="with --dry-run: as JSON")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Errors are printed, never raised."""
    arguments = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    telling = Telling(json_lines(sys.stderr) if arguments.log == "json" else plain(sys.stderr))
    arguments.telling = telling
    try:
        arguments.call(arguments, Reporter(telling))
    except StrataError as error:
        return _report(error)
    except KeyboardInterrupt:
        return _report(
            InterruptedByUserError("interrupted; nothing is left half-done, run it again")
        )
    except OSError as error:
        return _report(os_error(error, "working on this machine"))
    return 0


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(error: StrataError) -> int:
    sys.stderr.write(f"strata-node: {error.message}\n")
    output = str(error.context.get("output", "")).strip()
    for line in output.splitlines()[-10:]:
        sys.stderr.write(f"  | {line}\n")
    if error.hint:
        sys.stderr.write(f"  hint: {error.hint}\n")
    return error.exit_status


def _pull(arguments: argparse.Namespace, reporter: Reporter) -> None:
    config = NodeConfig.load()
    named = SignedReference.parse_pullspec(arguments.image) if arguments.image else None
    wanted = Wanted(config, named)
    config.apply_environment()
    if arguments.dry_run:
        found = dryrun.pull_plan(wanted, reporter)
        _show_intent("pull", arguments, found.lines(), found.to_json())
        return
    state = pull(
        wanted,
        retry_for_s=arguments.retry_for,
        reporter=reporter,
        telling=arguments.telling,
    )
    sys.stdout.write(
        f"pulled {state.manifest_digest}: {state.fetched_bytes / 1e6:.1f} MB fetched of "
        f"{state.image_bytes / 1e6:.1f} MB in {state.pull_seconds:.1f} s\n"
    )


def _overlay(arguments: argparse.Namespace, reporter: Reporter) -> None:
    config = NodeConfig.load()
    if arguments.dry_run:
        intent = dryrun.overlay_plan(config)
        _show_intent("overlay", arguments, intent.lines(), intent.to_json())
        return
    state = overlay(reporter, config)
    sys.stdout.write(f"overlaid {state.manifest_digest} in {state.overlay_seconds:.1f} s\n")


def _finish(arguments: argparse.Namespace, reporter: Reporter) -> None:
    if arguments.dry_run:
        dryrun.finish_plan()
        _show_intent("finish", arguments, [], {})
        return
    finish(reporter, NodeConfig.load())


def _show_intent(
    command: str, arguments: argparse.Namespace, lines: Sequence[str], found: dict[str, object]
) -> None:
    """What a dry run found, and the phases that would follow."""
    phases = dryrun.phases_of(command)
    if arguments.json:
        document = {"version": 1, "phases": phases, **found}
        sys.stdout.write(json.dumps(document, indent=2, sort_keys=True) + "\n")
        return
    for line in lines:
        sys.stdout.write(f"{line}\n")
    does = "; ".join(f"{item['phase']}: {item['does']}" for item in phases)
    sys.stdout.write(f"would go through {does}\n")


def _undo(arguments: argparse.Namespace, reporter: Reporter) -> None:
    require_root("undoing the overlay")
    mounts.join_machine()
    with agent_lock(reporter):
        undo(reporter, NodeConfig.load())


def _switch(arguments: argparse.Namespace, reporter: Reporter) -> None:
    done = roll_back(reporter) if arguments.rollback else switch(reporter)
    sys.stdout.write(f"{done.deployment.commit} boots next, kernel {done.kernel or 'unknown'}\n")


def _bundle(arguments: argparse.Namespace, reporter: Reporter) -> None:
    names = bundle(arguments.dest, reporter)
    sys.stdout.write(f"{arguments.dest}: {', '.join(names)}\n")


def _verify(arguments: argparse.Namespace, reporter: Reporter) -> None:
    done = verify(reporter)
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(done), indent=2, sort_keys=True) + "\n")
    else:
        for item in done.differences:
            sys.stdout.write(f"/usr/{shown(item.path)} {item.what}\n")
        modules = "; /usr/lib/modules is the booted one's" if done.of == OVERLAY else ""
        sys.stdout.write(
            f"{done.of} {done.image}: {done.files} files and {done.folders} folders read, "
            f"{len(done.differences)} differ{modules}\n"
        )
    if done.differences:
        raise DigestError(
            f"/usr differs from the image in {len(done.differences)} places",
            hint="strata-node undo, then overlay again; look for a damaged disk",
        )


def _status(arguments: argparse.Namespace, reporter: Reporter) -> None:
    status = Status.load()
    if arguments.json:
        sys.stdout.write(json.dumps(status.to_json(), indent=2, sort_keys=True) + "\n")
        return
    for name, value in status.rows():
        sys.stdout.write(f"{name:12} {value}\n")


def _units(arguments: argparse.Namespace, reporter: Reporter) -> None:
    root = Path(arguments.dir)
    how = Installation(
        arguments.agent, arguments.marker, arguments.live_size, arguments.arch, arguments.assisted
    )
    require_order(read_units(root, unit_files(how)))
    written = write_units(root, how)
    for path in written:
        sys.stdout.write(f"{path}\n")
