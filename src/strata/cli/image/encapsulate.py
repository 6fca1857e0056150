"""`strata image encapsulate`: an OSTree commit as a container image."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from strata.cli.context import Context, add_command, print_json
from strata.cli.image.common import layout_of, pairs
from strata.cli.progress import size
from strata.compose.components import commit_components
from strata.container.compress import COMPRESSIONS
from strata.container.contentmeta import parse_contentmeta
from strata.container.encapsulate import Options, Packing, encapsulate
from strata.container.packing import DEFAULT_BINS, check_bins, pack
from strata.container.packing_plan import Plan, read_plan
from strata.container.packing_stable import pack_stable
from strata.core.errors import UsageError
from strata.oci.model import Manifest
from strata.oci.reference import ImageReference, SignedReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

DESCRIPTION = """\
Make a container image from an OSTree commit: the commit's metadata in the
first layer, its files in chunks. Packages that change together share a chunk;
they are read from the commit's package database, or given by --contentmeta.
The same commit and packing give the same layers, here and with rpm-ostree.
With --prior, chunks whose content is the same stay as they are in that image:
a client that has it fetches the others alone.

  strata image encapsulate --repo /ostree/repo fedora/stable oci:out:stable
  strata image encapsulate --repo /ostree/repo fedora/stable oci:out:stable \\
      --prior oci:out:stable
"""

PACKINGS = {"stable": pack_stable, "upstream": pack}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "encapsulate",
        run,
        summary="make an image from an OSTree commit",
        description=DESCRIPTION,
    )
    add = parser.add_argument
    add("commit", metavar="COMMIT", help="a checksum or a ref")
    add("target", metavar="oci:DIR:TAG", help="the layout and tag to write")
    add("--repo", metavar="DIR", required=True, help="the OSTree repository")
    add("--contentmeta", metavar="FILE", help="which object is in which layer (upstream's JSON)")
    add("--max-layers", metavar="N", type=int, help=f"chunks at most (default: {DEFAULT_BINS})")
    add(
        "--packing",
        choices=tuple(PACKINGS),
        help="which components share a chunk (default: stable, or the contentmeta file's layers; "
        "upstream: as rpm-ostree has it)",
    )
    add("--prior", metavar="IMGREF", help="an image of the earlier build, whose chunks are kept")
    add("--compression", choices=COMPRESSIONS, default="gzip", help="of layers (default: gzip)")
    add("--label", metavar="KEY=VALUE", action="append", default=[], help="add a label")
    add("--copymeta", metavar="KEY", action="append", default=[], help="commit metadata as label")
    add("--copymeta-opt", metavar="KEY", action="append", default=[], help="the same, if there")
    add("--cmd", metavar="WORD", action="append", default=[], help="a word of the image's command")
    add("--arch", metavar="ARCH", help="the image's architecture (default: this machine's)")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Encapsulate, and say what came out."""
    context.no_dry_run("strata image encapsulate")
    target = ImageReference.parse(arguments.target)
    if not target.tag:
        raise UsageError(f"{target} names no tag", hint="write oci:DIR:TAG")
    if arguments.max_layers is not None:
        check_bins(arguments.max_layers)
    repo = Repo.open(Path(arguments.repo))
    commit = repo.rev_parse(arguments.commit)
    labels = pairs(arguments.label, "--label")
    packing = _packing(context, arguments)
    if arguments.contentmeta:
        path = Path(arguments.contentmeta)
        try:
            meta = parse_contentmeta(path.read_bytes(), str(path))
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        components, labels = meta.components(), {**meta.labels, **labels}
        if not (arguments.packing or arguments.max_layers or arguments.prior):
            packing = meta.packing
    else:
        tree = Tree.load(repo, commit)
        components = commit_components(repo, tree, as_upstream=arguments.packing == "upstream")
    layout = layout_of(target)
    options = Options(
        arguments.arch or context.arch,
        labels,
        arguments.cmd,
        arguments.copymeta,
        arguments.copymeta_opt,
        arguments.compression,
        context.jobs,
    )
    with context.reporter.step(f"encapsulate {commit[:12]}") as step:
        made = encapsulate(repo, commit, layout, components, options, packing=packing, step=step)
        layout.tag(target.tag, made)
    layers = Manifest.parse(layout.read(made)).layers
    total = sum(layer.size_bytes for layer in layers)
    if context.as_json:
        document = {
            "manifest_digest": str(made.digest),
            "commit": commit,
            "layers": [
                {"digest": str(layer.digest), "size": layer.size_bytes, **layer.annotations}
                for layer in layers
            ],
        }
        print_json(document)
    else:
        sys.stdout.write(f"{target}: {made.digest}, {len(layers)} layers, {size(total)}\n")
    return 0


def _packing(context: Context, arguments: argparse.Namespace) -> Packing:
    """The packing the options ask for, with the plan of the earlier build when one is named."""
    plan: Plan = ()
    if arguments.prior:
        earlier = SignedReference.parse_any(arguments.prior)
        architecture = arguments.arch or context.arch
        with open_source(
            earlier.image, architecture=architecture, signature=earlier.signature
        ) as source:
            plan = read_plan(source.manifest)
        if not plan:
            context.reporter.warn(f"{arguments.prior} does not say what its chunks hold")
    bins = DEFAULT_BINS if arguments.max_layers is None else arguments.max_layers
    return partial(PACKINGS[arguments.packing or "stable"], bins=bins, prior=plan)
