"""`strata image index`: one name for an image of several architectures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from strata.cli.context import Context, add_command, add_group, print_json
from strata.cli.image.common import layout_of, pairs
from strata.core.errors import UsageError
from strata.oci.digest import Digest
from strata.oci.indexes import join, write_index
from strata.oci.model import Descriptor, Index
from strata.oci.reference import ImageReference
from strata.oci.transfer import bring, read_index

DESCRIPTION = """\
Make, change and show an image index: one name, an image for each architecture.
Images from elsewhere are copied into the index's layout; an index that is
named brings all its images.

  strata image index create oci:out:4.19 oci:x86:node/4.19 oci:arm:node/4.19
  strata image index replace oci:out:4.19 docker://registry.example/node:4.19-arm
  strata image index show oci:out:4.19
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group."""
    verbs = add_group(
        commands,
        "index",
        summary="one name for several architectures",
        description=DESCRIPTION,
    )
    for name, call, summary in (
        ("create", _create, "make an index of images"),
        ("add", _add, "add images for further platforms"),
        ("replace", _replace, "add images, in the place of those for their platforms"),
    ):
        parser = add_command(verbs, name, call, summary=summary, description=f"{summary}\n")
        parser.add_argument("target", metavar="oci:DIR:TAG", help="the index")
        parser.add_argument("images", metavar="IMGREF", nargs="+", help="an image, or an index")
        parser.add_argument(
            "--annotation", metavar="KEY=VALUE", action="append", default=[], help="of the index"
        )
    parser = add_command(
        verbs, "show", _show, summary="list an index's images", description="list an index\n"
    )
    parser.add_argument("image", metavar="IMGREF", help="e.g. docker://HOST/NAME:TAG")


def _create(context: Context, arguments: argparse.Namespace) -> int:
    return _write(context, arguments, Index(()), replace=False)


def _add(context: Context, arguments: argparse.Namespace) -> int:
    _, index = read_index(ImageReference.parse(arguments.target))
    return _write(context, arguments, index, replace=False)


def _replace(context: Context, arguments: argparse.Namespace) -> int:
    _, index = read_index(ImageReference.parse(arguments.target))
    return _write(context, arguments, index, replace=True)


def _write(context: Context, arguments: argparse.Namespace, index: Index, *, replace: bool) -> int:
    context.no_dry_run("strata image index")
    target = ImageReference.parse(arguments.target)
    if not target.tag:
        raise UsageError(f"{target} names no tag", hint="write oci:DIR:TAG")
    layout = layout_of(target)
    new: list[Descriptor] = []
    for text in arguments.images:
        with context.reporter.step(f"bring {text}"):
            new += bring(layout, ImageReference.parse(text))
    entries = join(index.manifests, new, replace=replace)
    annotations = {**index.annotations, **pairs(arguments.annotation, "--annotation")}
    made = write_index(layout, target.tag, entries, annotations)
    return _print(context, made.digest, Index(entries, annotations))


def _show(context: Context, arguments: argparse.Namespace) -> int:
    digest, index = read_index(ImageReference.parse(arguments.image))
    return _print(context, digest, index)


def _print(context: Context, digest: Digest, index: Index) -> int:
    if context.as_json:
        document = {
            "digest": str(digest),
            "annotations": dict(index.annotations),
            "manifests": [entry.to_json() for entry in index.manifests],
        }
        print_json(document)
        return 0
    sys.stdout.write("\n".join([f"{digest}", *_rows(index.manifests)]) + "\n")
    return 0


def _rows(entries: Sequence[Descriptor]) -> list[str]:
    names = [str(entry.platform) if entry.platform else "any" for entry in entries]
    width = max(map(len, names), default=0)
    return [f"  {name:<{width}}  {entry.digest}" for name, entry in zip(names, entries)]
