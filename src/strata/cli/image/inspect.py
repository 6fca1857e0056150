"""`strata image inspect`: what an image says of itself, and its layers."""

from __future__ import annotations

import argparse

from strata.cli.context import Context, add_command
from strata.cli.image.looking import add_arch_option, opened, plural, print_json, write
from strata.cli.progress import print_table, size
from strata.core.errors import PackageError
from strata.inspect.packages import ImagePackages, read_packages
from strata.inspect.view import ImageView

DESCRIPTION = """\
Show an image's version, commit, labels and packages, and its layers with what
is in them. Only the layer that knows the packages is read.

  strata image inspect oci:build/store:node/4.19@sample-12
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "inspect", run, summary="show an image and its layers", description=DESCRIPTION
    )
    parser.add_argument("image", metavar="IMGREF", help="e.g. oci:DIR:TAG or docker://HOST/NAME")
    add_arch_option(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Look and print."""
    with opened(context, arguments, arguments.image) as image:
        packages: ImagePackages | None
        try:
            packages, problem = read_packages(*image), ""
        except PackageError as error:
            packages, problem = None, error.message
    view = image[1]
    if context.as_json:
        print_json(_document(view, packages, problem))
        return 0
    write(view.name)
    for key, value in _header(view, packages, problem):
        write(f"  {key:<12} {value}")
    labels = view.config.labels
    if labels:
        width = max(map(len, labels))
        write("  labels", *(f"    {key:<{width}}  {labels[key]}" for key in sorted(labels)))
    rows = [
        [str(of.number), of.kind, of.summary, size(of.size_bytes), of.digest.hex[:12]]
        for of in view.layers
    ]
    print_table("", [">layer", "kind", "holds", ">size", "digest"], rows)
    write(_totals(view))
    return 0


def _header(view: ImageView, packages: ImagePackages | None, problem: str) -> list[tuple[str, str]]:
    rows = [
        ("digest", str(view.manifest_digest)),
        ("created", view.config.created),
        ("version", view.version),
        ("commit", view.commit or "none: the image encapsulates no OSTree commit"),
        ("platform", f"{view.config.os}/{view.config.architecture}"),
    ]
    if packages is None:
        rows.append(("packages", problem))
    else:
        rows.append(("packages", f"{len(packages.nevras)}, by {packages.origin}"))
        if packages.problem:
            rows.append(("note", packages.problem))
    return [(key, value) for key, value in rows if value]


def _totals(view: ImageView) -> str:
    parts = []
    for name, layers in (("base", view.base), ("derived", view.derived)):
        if layers:
            total = sum(layer.size_bytes for layer in layers)
            parts.append(f"{name} {plural(len(layers), 'layer')}, {size(total)}")
    return f"{plural(len(view.layers), 'layer')}, {size(view.size_bytes)} ({'; '.join(parts)})"


def _document(view: ImageView, packages: ImagePackages | None, problem: str) -> dict[str, object]:
    return {
        "image": view.name,
        "manifest_digest": str(view.manifest_digest),
        "created": view.config.created or None,
        "version": view.version or None,
        "commit": view.commit or None,
        "os": view.config.os,
        "architecture": view.config.architecture,
        "labels": view.config.labels,
        "base_layers": view.base_layers,
        "size_bytes": view.size_bytes,
        "layers": [layer.to_json() for layer in view.layers],
        "packages": [str(nevra) for nevra in packages.nevras] if packages else None,
        "packages_layer": packages.layer.number if packages else None,
        "problem": (packages.problem if packages else problem) or None,
    }
