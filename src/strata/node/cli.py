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
from strata.node import host, merge, mounts
from strata.node.config import PATH, NodeConfig
from strata.node.etcmerge import Plan
from strata.node.finish import finish
from strata.node.overlay import overlay, overlay_plan
from strata.node.phases import agent_lock
from strata.node.pull import pull
from strata.node.status import Status
from strata.node.telling import Telling
from strata.node.undo import undo
from strata.node.units import AGENT, LIVE_SIZE, MARKER, Installation, unit_files, write_units
from strata.node.units.order import read_units, require_order
from strata.node.verify import verify
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
    pulling.set_defaults(call=_pull)
    overlaying = commands.add_parser(
        "overlay",
        help="merge /etc and lay the pulled image over /usr",
        description="Merge /etc and lay the pulled image over /usr.",
    )
    overlaying.add_argument(
        "--dry-run", action="store_true", help="only say what would change, and change nothing"
    )
    overlaying.add_argument("--json", action="store_true", help="with --dry-run: as JSON")
    overlaying.set_defaults(call=_overlay)
    for name, call, text in (
        ("finish", _finish, "record success and switch to multi-user.target"),
        ("undo", _undo, "take the overlay back: /usr and /etc are what they were"),
    ):
        commands.add_parser(name, help=text, description=text.capitalize() + ".").set_defaults(
            call=call
        )
    status = commands.add_parser(
        "status", help="how far this machine is", description="How far this machine is."
    )
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(call=_status)
    verifying = commands.add_parser(
        "verify",
        help="read all of /usr and compare it with the node image",
        description="Read every file of the mounted /usr and compare it with the node image's "
        "commit. Ends with 10 when anything differs.",
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
    idle = config.without_effect()
    if idle:
        reporter.warn(f"{PATH}: no effect yet: {', '.join(idle)}")
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
        _show_plan(overlay_plan(config), as_json=arguments.json)
        return
    state = overlay(reporter, config)
    sys.stdout.write(f"overlaid {state.manifest_digest} in {state.overlay_seconds:.1f} s\n")


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(plan.to_json(), indent=2, sort_keys=True) + "\n")
        return
    for action in plan.actions:
        over = f" ({action.over})" if action.over else ""
        sys.stdout.write(f"{action.kind:8} /etc/{shown(action.path)}{over}\n")
    for kept in plan.kept:
        sys.stdout.write(f"{'keep':8} /etc/{shown(kept.path)} ({kept.reason})\n")
    sys.stdout.write(f"{merge.summary(plan)}\n")


def _finish(arguments: argparse.Namespace, reporter: Reporter) -> None:
    finish(reporter)


def _undo(arguments: argparse.Namespace, reporter: Reporter) -> None:
    require_root("undoing the overlay")
    mounts.join_machine()
    with agent_lock(reporter):
        undo(reporter)


def _verify(arguments: argparse.Namespace, reporter: Reporter) -> None:
    done = verify(reporter)
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(done), indent=2, sort_keys=True) + "\n")
    else:
        for item in done.differences:
            sys.stdout.write(f"/usr/{shown(item.path)} {item.what}\n")
        sys.stdout.write(
            f"{done.files} files and {done.folders} folders read, {len(done.differences)} differ; "
            "/usr/lib/modules is the booted one's\n"
        )
    if done.differences:
        raise DigestError(
            f"/usr differs from the node image in {len(done.differences)} places",
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
