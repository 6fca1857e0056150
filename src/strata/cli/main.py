"""`strata`: the command line's frame. Options, events, errors, signals; the work is elsewhere."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from strata import __version__
from strata.cli import (
    build,
    clean,
    doctor,
    ignition,
    image,
    init,
    lint,
    lock,
    ls,
    publish,
    run,
    sample,
    serve,
    treefile,
)
from strata.cli.context import Context, add_common_options, make_context
from strata.core.errors import InterruptedByUserError, StrataError
from strata.core.process import os_error
from strata.core.text import shown

DESCRIPTION = """\
Build an operating system for cluster nodes in three layers, and put the top
layer on a running machine without a reboot.

  bootc    kernel, systemd, ostree            versioned with the OS
  CoreOS   ignition, podman, skopeo, network  versioned with the OS
  node     kubelet, runtime, clients          versioned with the product
"""

EPILOG = """\
Targets: bootc/STREAM, coreos/STREAM, node/RELEASE[@STREAM],
extensions/RELEASE[@STREAM], bootimage/STREAM:FORMAT.

  strata sample repos build/store/sample             real RPM repositories to try it with
  strata -C definitions/sample build node/4.19       build the node image, and what it stands on
  strata -C definitions/sample run node/4.19         boot the base, overlay the node layer, look
"""

COMMANDS = (
    build,
    run,
    serve,
    publish,
    ls,
    lint,
    image,
    lock,
    treefile,
    ignition,
    init,
    sample,
    doctor,
    clean,
)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="strata",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"strata {__version__}")
    add_common_options(parser, top=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status; errors are printed, never raised."""
    arguments = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    context = make_context(arguments)
    try:
        with context:
            status: int = arguments.call(context, arguments)
            return status
    except StrataError as error:
        return report(error, context)
    except KeyboardInterrupt:
        return report(InterruptedByUserError("interrupted; nothing is left running"), context)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return report(os_error(error, "working in the store"), context)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def report(error: StrataError, context: Context) -> int:
    """Show an error as a person (or, with --json or --log json, a program) reads it."""
    if context.as_json or context.log == "json":
        sys.stderr.write(json.dumps({"event": "Error", **error.to_json()}, sort_keys=True) + "\n")
    else:
        sys.stderr.write(f"strata: {shown(error.message)}\n")
        for line in _place(error):
            sys.stderr.write(f"  {shown(line)}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {shown(error.hint)}\n")
    if context.debug:
        for key, value in error.context.items():
            sys.stderr.write(f"  {key}: {value}\n")
        traceback.print_exception(error)
    return error.exit_status


def _place(error: StrataError) -> list[str]:
    """The lines of context a person needs: where, and the end of a failed tool's output."""
    lines = []
    output = str(error.context.get("output", "")).strip()
    if output:
        lines += [f"| {line}" for line in output.splitlines()[-12:]]
    for key in ("script", "console"):
        if key in error.context and str(error.context[key]) not in error.message:
            value = str(error.context[key]).splitlines()
            lines += [f"{key}: {value[0]}"] if len(value) == 1 else [f"| {row}" for row in value]
    return lines


if __name__ == "__main__":
    sys.exit(main())
