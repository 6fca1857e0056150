"""What the verbs share: which treefile, for which OS, architecture and variables."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strata.cli.context import Context, print_json
from strata.core.errors import DefinitionError, UsageError
from strata.core.files import scratch_dir
from strata.core.process import run
from strata.treefile.buildargs import load_build_args
from strata.treefile.conditions import Variable, parse_variable
from strata.treefile.lint import ERROR, NOTE, WARNING, Finding
from strata.treefile.treefile import Flattened, flatten

FILES = """\
FILE is a treefile, or a build-args file (*.conf) that names one with its
variables. REV:FILE takes it from a commit of its git checkout.
"""


@dataclass(frozen=True)
class Chosen:
    """A treefile to read. top: the folder no include leaves."""

    path: Path
    top: Path
    variables: dict[str, Variable]
    arch: str

    def flatten(self) -> Flattened:
        """Read it. Raises DefinitionError."""
        return flatten(self.path, variables=self.variables, arch=self.arch, root=self.top)


def add_file(parser: argparse.ArgumentParser) -> None:
    """The treefile a verb is about, and what conditions see."""
    parser.add_argument("file", metavar="FILE", help="a treefile or a build-args file")
    add_selection(parser)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The options that say what conditions see."""
    add = parser.add_argument
    add(
        "--osversion",
        metavar="ID-VERSION",
        help="e.g. rhel-9.8 or centos-10: sets osversion, id and stream",
    )
    add("--arch", metavar="ARCH", help="as rpm names it (default: this machine's)")
    add(
        "--var",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable (several times); true, false and digits are no text unless quoted",
    )


@contextmanager
def chosen(context: Context, arguments: argparse.Namespace, text: str) -> Iterator[Chosen]:
    """The treefile an argument names; from a commit it is in a scratch folder for the block.

    Raises UsageError, DefinitionError, ToolFailedError.
    """
    path = Path(text)
    revision, colon, inner = text.partition(":")
    if colon and not path.exists():
        with _of_commit(context.definitions, revision, inner) as (top, name):
            yield _choose(context, arguments, top / name, top)
        return
    if not path.is_absolute():
        path = context.definitions / path
    if not path.is_file():
        raise DefinitionError(f"there is no file {path}", context={"file": path})
    yield _choose(context, arguments, path, _top(path))


def print_findings(context: Context, found: Sequence[Finding], *, strict: bool) -> int:
    """Print what a lint found; returns the exit status. strict: warnings fail too."""
    if context.as_json:
        print_json([finding.to_json() for finding in found])
    else:
        for finding in found:
            sys.stdout.write(
                f"{finding.place}: {finding.severity}: {finding.message} [{finding.rule}]\n"
            )
        counts = {level: sum(f.severity == level for f in found) for level in (ERROR, WARNING)}
        notes = sum(finding.severity == NOTE for finding in found)
        sys.stdout.write(f"{counts[ERROR]} errors, {counts[WARNING]} warnings, {notes} notes\n")
    fails = (ERROR, WARNING) if strict else (ERROR,)
    return 1 if any(finding.severity in fails for finding in found) else 0


def _choose(context: Context, arguments: argparse.Namespace, path: Path, top: Path) -> Chosen:
    variables: dict[str, Variable] = {"deriving": False}
    if path.suffix == ".conf":
        variant = load_build_args(path, path.name)
        variables.update(variant.variables)
        path = path.parent / variant.manifest
    if arguments.osversion:
        identity, dash, _ = arguments.osversion.partition("-")
        if not dash:
            raise UsageError(
                f"{arguments.osversion!r} is not ID-VERSION", hint="e.g. rhel-9.8 or centos-10"
            )
        variables.update(osversion=arguments.osversion, id=identity, stream=arguments.osversion)
    variables.update(parse_variable(each) for each in arguments.var)
    return Chosen(path, top, variables, arguments.arch or context.arch)


def _top(path: Path) -> Path:
    """The checkout or project a treefile is part of; its folder when it is part of none."""
    folder = path.resolve().parent
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists() or (parent / "strata.toml").exists():
            return parent
    return folder


@contextmanager
def _of_commit(folder: Path, revision: str, name: str) -> Iterator[tuple[Path, str]]:
    """A commit's files, submodules included as far as they are checked out; and the name in it."""
    git = ["git", "-C", str(folder)]
    inside = run([*git, "rev-parse", "--show-toplevel"], check=False)
    if inside.status != 0:
        raise UsageError(
            f"there is no file {revision}:{name}, and {folder.absolute()} is no git checkout",
            hint="REV:FILE is read from the checkout that -C names",
        )
    known = run([*git, "rev-parse", "--verify", "-q", f"{revision}^{{commit}}"], check=False)
    if known.status != 0:
        raise UsageError(f"there is no file {revision}:{name}, and no commit {revision}")
    checkout = Path(inside.stdout.strip())
    prefix = folder.resolve().relative_to(checkout.resolve())
    with scratch_dir(Path(tempfile.gettempdir()), "strata-treefile") as scratch:
        _extract(checkout, known.stdout.strip(), scratch / "tree", scratch)
        yield scratch / "tree", str(prefix / name)


def _extract(checkout: Path, commit: str, target: Path, scratch: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(checkout)]
    archive = scratch / "archive.tar"
    run([*git, "archive", "--format=tar", f"--output={archive}", commit])
    run(["tar", "--extract", f"--file={archive}", f"--directory={target}"])
    archive.unlink()
    listed = run([*git, "ls-tree", "-r", "-z", commit]).stdout
    for line in listed.split("\0"):
        mode, _, rest = line.partition(" ")
        if mode != "160000":
            continue
        digest, _, path = rest.removeprefix("commit ").partition("\t")
        inner = checkout / path
        there = ["git", "-C", str(inner), "cat-file", "-e", f"{digest}^{{commit}}"]
        if (inner / ".git").exists() and run(there, check=False).status == 0:
            _extract(inner, digest, target / path, scratch)
