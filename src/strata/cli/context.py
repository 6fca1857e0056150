"""What every command needs: where the definitions and the store are, how to talk, how to stop."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from strata.cli.progress import live
from strata.core import network
from strata.core.errors import UsageError
from strata.core.events import Reporter, json_lines, plain
from strata.rpm.evict import DEFAULT_LIMIT_BYTES

Call = Callable[["Context", argparse.Namespace], int]


@dataclass
class Context:
    """The options common to all commands, resolved."""

    definitions: Path
    store: Path
    as_json: bool
    dry_run: bool
    cache_limit_bytes: int
    jobs: int
    log: str
    debug: bool
    reporter: Reporter = field(init=False)
    _exit: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Context:
        if self.log == "rich":
            sink = self._exit.enter_context(live())
        elif self.log == "json":
            sink = json_lines(sys.stderr)
        else:
            sink = plain(sys.stderr)
        self.reporter = Reporter(sink)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    def pause(self) -> None:
        """Leave the terminal to someone else: live progress ends here."""
        self._exit.close()

    def no_dry_run(self, command: str) -> None:
        """For commands that cannot say what they would do. Raises UsageError under --dry-run."""
        if self.dry_run:
            raise UsageError(
                f"{command} cannot say what it would do without doing it",
                hint="leave --dry-run out",
            )

    @property
    def cache(self) -> Path:
        """Downloads and conversions kept between stores and clones."""
        chosen = os.environ.get("STRATA_CACHE")
        if chosen:
            return Path(chosen)
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strata"

    @property
    def arch(self) -> str:
        """This machine's architecture, as rpm names it."""
        return platform.machine()


def add_common_options(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """The options every command takes, before or after its name."""

    def default(value: object) -> object:
        return value if top else argparse.SUPPRESS

    group = parser.add_argument_group("common options")
    add = group.add_argument
    add(
        "-C",
        dest="definitions",
        metavar="DIR",
        default=default("."),
        help="folder with strata.toml (default: the current one)",
    )
    add(
        "--store",
        metavar="DIR",
        default=default(None),
        help="folder for all output, an OCI layout (default: $STRATA_STORE or build/store)",
    )
    add(
        "--json",
        action="store_true",
        default=default(False),
        help="print results as JSON on standard output",
    )
    add(
        "--dry-run",
        action="store_true",
        default=default(False),
        help="say what would be done, and why; change nothing",
    )
    add(
        "--offline",
        action="store_true",
        default=default(network.offline()),
        help="keep off the network: only what is here, and file: repositories (or $STRATA_OFFLINE)",
    )
    add(
        "--cache-limit",
        metavar="SIZE",
        type=parse_size,
        default=default(os.environ.get("STRATA_CACHE_LIMIT") or str(DEFAULT_LIMIT_BYTES)),
        help="how large the store's cache of packages and metadata may be after a build, "
        "e.g. 800M (default: $STRATA_CACHE_LIMIT or 20G)",
    )
    add(
        "--jobs",
        metavar="N",
        type=int,
        default=default(os.cpu_count() or 1),
        help="how much to do at once (default: one per core)",
    )
    add(
        "--log",
        choices=("rich", "plain", "json"),
        default=default(None),
        help="how progress is shown on standard error",
    )
    add(
        "--debug",
        action="store_true",
        default=default(False),
        help="show an error's whole context and a traceback",
    )


def make_context(arguments: argparse.Namespace) -> Context:
    """Resolve the common options. --offline holds for the whole process."""
    if arguments.offline:
        os.environ[network.VARIABLE] = "1"
    log = arguments.log or ("rich" if sys.stderr.isatty() else "plain")
    store = arguments.store or os.environ.get("STRATA_STORE") or "build/store"
    return Context(
        definitions=Path(arguments.definitions),
        store=Path(store).absolute(),
        as_json=arguments.json,
        dry_run=arguments.dry_run,
        cache_limit_bytes=arguments.cache_limit,
        jobs=max(1, arguments.jobs),
        log=log,
        debug=arguments.debug,
    )


def parse_size(text: str) -> int:
    """A size in bytes, or with K, M, G or T (powers of 1000), as argparse takes a type."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip().upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it like 800M or 20G")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " "))


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    call: Call | None,
    *,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    """One command of a group, with the common options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common_options(parser)
    if call is not None:
        parser.set_defaults(call=call)
    return parser


def add_group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    *,
    summary: str,
    description: str,
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """A group of commands, to add its verbs to."""
    group = add_command(commands, name, None, summary=summary, description=description)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def print_json(document: object, *, ascii_only: bool = True) -> None:
    """A result for programs."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=ascii_only)
    sys.stdout.write(text + "\n")
