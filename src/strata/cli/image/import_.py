"""`strata image import`: a container image as commits of an OSTree repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from strata.cli.context import Context, add_command, print_json
from strata.cli.progress import size
from strata.container.importer import import_image
from strata.container.importplan import LayerImport, plan_import
from strata.oci.reference import ImageReference, SignaturePolicy, SignedReference
from strata.oci.source import open_source
from strata.ostree.libostree import keeps_var
from strata.ostree.repo import Repo

DESCRIPTION = """\
Bring an image into an OSTree repository: the commit that was encapsulated, bit
by bit, and a merge commit of it and the layers on top. Layers that are there
are not fetched; interrupted, the next import goes on.

  strata image import docker://registry.example/os:4.19 --repo /ostree/repo

The image may be in a registry (docker://, registry:), a layout or an archive
(oci:, oci-archive:, docker-archive:, dir:) or another tool's store
(containers-storage:, docker-daemon:). ostree-image-signed:IMGREF asks for a
signature policy (policy.json) that does not accept everything;
ostree-remote-image:REMOTE:IMGREF for a base commit that the keys of this
remote of the repository signed.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "import",
        run,
        summary="bring an image into an OSTree repository",
        description=DESCRIPTION,
    )
    parser.add_argument("image", metavar="IMGREF", help="e.g. docker://HOST/NAME:TAG")
    parser.add_argument("--repo", metavar="DIR", required=True, help="the OSTree repository")
    parser.add_argument(
        "--var",
        choices=("auto", "keep", "factory"),
        default="auto",
        help="an image's /var stays, or goes to /usr/share/factory; by libostree's version",
    )
    parser.add_argument("--arch", metavar="ARCH", help="of an index (default: this machine's)")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Import, and say what it cost."""
    given = SignedReference.parse_any(arguments.image)
    reference = given.image
    repo = Repo.open(Path(arguments.repo))
    architecture = arguments.arch or context.arch
    # What a remote's keys sign is the commit in the image; importing holds it against them.
    signature = SignaturePolicy() if given.signature.remote else given.signature
    with open_source(reference, architecture=architecture, signature=signature) as source:
        if context.dry_run:
            return _say_plan(context, reference, plan_import(source, repo, reference=reference))
        done = import_image(
            source,
            repo,
            reference=reference,
            threads=context.jobs,
            signed_by=given.signature.remote,
            keep_var=keeps_var() if arguments.var == "auto" else arguments.var == "keep",
            reporter=context.reporter,
        )
    if context.as_json:
        document = {
            "base_commit": done.base_commit or None,
            "merge_commit": done.merge_commit,
            "manifest_digest": str(done.manifest_digest),
            "fetched_bytes": done.fetched_bytes,
            "layers": [layer.to_json() for layer in done.layers],
        }
        print_json(document)
        return 0
    reused = sum(1 for layer in done.layers if not layer.fetched_bytes)
    sys.stdout.write(
        f"{done.merge_commit}\n"
        f"{reference}: {done.manifest_digest}, {len(done.layers)} layers, {reused} were there, "
        f"{size(done.fetched_bytes)} fetched\n"
    )
    return 0


def _say_plan(context: Context, reference: ImageReference, layers: Sequence[LayerImport]) -> int:
    """What an import would fetch."""
    total = sum(layer.fetched_bytes for layer in layers)
    if context.as_json:
        document = {
            "fetched_bytes": total,
            "layers": [layer.to_json() for layer in layers],
        }
        print_json(document)
        return 0
    wanted = sum(1 for layer in layers if layer.fetched_bytes)
    sys.stdout.write(f"{reference}: would fetch {wanted} of {len(layers)} layers, {size(total)}\n")
    return 0
