"""What the verbs that look into images share: opening one, and printing results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from strata.cli import context as cli
from strata.cli.context import Context
from strata.core.text import shown
from strata.inspect.diff import Opened
from strata.inspect.entries import LayerEntries
from strata.inspect.files import ImageFiles, LayerKey, read_files
from strata.inspect.view import view_of
from strata.oci.reference import SignedReference
from strata.oci.source import open_source


def add_arch_option(parser: argparse.ArgumentParser) -> None:
    """Which image of an index is looked at."""
    parser.add_argument("--arch", metavar="ARCH", help="of an index (default: this machine's)")


@contextmanager
def opened(context: Context, arguments: argparse.Namespace, image: str) -> Iterator[Opened]:
    """An image, open, and its view."""
    given = SignedReference.parse_any(image)
    architecture = arguments.arch or context.arch
    with open_source(given.image, architecture=architecture, signature=given.signature) as source:
        yield source, view_of(source, image)


def all_files(
    context: Context,
    image: Opened,
    *,
    digests: bool,
    known: dict[LayerKey, LayerEntries] | None = None,
) -> ImageFiles:
    """Every file of an open image, with progress: all layers are read."""
    with context.reporter.step(f"read {image[1].name}") as step:
        found = read_files(*image, digests=digests, threads=context.jobs, step=step, known=known)
        step.detail(f"{len(found.files)} files")
    return found


def print_json(document: object) -> None:
    """A result for programs, with names as the image has them."""
    cli.print_json(document, ascii_only=False)


def write(*lines: str) -> None:
    """Lines of a result for people; what could speak to the terminal is escaped."""
    sys.stdout.write("".join(f"{shown(line)}\n" for line in lines))


def plural(count: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
