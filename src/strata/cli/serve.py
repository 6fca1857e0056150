"""`strata serve`: an extensions image as an RPM repository."""

from __future__ import annotations

import argparse
import sys

from strata.cli.context import Context, add_command, print_json
from strata.compose.extensions import LIST, REPOSITORY
from strata.compose.serve import RepositoryServer, open_files
from strata.compose.workspace import Workspace
from strata.core.errors import ImageError, UsageError
from strata.core.text import shown
from strata.oci.indexes import choose_manifest
from strata.oci.model import Manifest
from strata.rpm.extensionlist import read_extension_list
from strata.treefile.project import load_project
from strata.treefile.target import Target

ADDRESS, PORT = "127.0.0.1", 9091
DESCRIPTION = """\
Serve the packages of an extensions image over HTTP as the repository they
are, straight out of the store, until it is interrupted.

  strata serve extensions/4.19
  dnf --repofrompath=extensions,http://127.0.0.1:9091/ --repo=extensions \\
      install usbguard

It listens on this machine alone unless --address says otherwise; there is no
encryption and no password.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "serve",
        serve,
        summary="serve extensions as an RPM repository",
        description=DESCRIPTION,
    )
    parser.add_argument("target", metavar="TARGET", help="e.g. extensions/4.19")
    parser.add_argument("--address", default=ADDRESS, help=f"where to listen (default: {ADDRESS})")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"0 for any that is free (default: {PORT})"
    )


def serve(context: Context, arguments: argparse.Namespace) -> int:
    """Serve until interrupted, which is how it ends well."""
    target = load_project(context.definitions).canonical(Target.parse(arguments.target))
    if target.kind != "extensions":
        raise UsageError(f"{target} is no repository", hint="what can be served: extensions/")
    manifest = _manifest(context, target)
    layout = Workspace(context.store).layout
    with open_files(layout, manifest) as files:
        if LIST not in files:
            raise ImageError(f"{target} has no /{LIST}", hint="build it again")
        packages, problems = read_extension_list(files[LIST].read())
        for problem in problems:
            context.reporter.warn(f"/{LIST}: {shown(problem)}")
        prefix = f"{REPOSITORY}/"
        below = {
            path.removeprefix(prefix): file
            for path, file in files.items()
            if path.startswith(prefix)
        }
        if context.dry_run:
            context.reporter.note(f"would serve {len(packages)} packages of {target}")
            return 0
        with RepositoryServer(below, arguments.address, arguments.port) as server:
            try:
                if context.as_json:
                    print_json({"url": server.url, "packages": len(packages)})
                else:
                    sys.stdout.write(f"{server.url} has {len(packages)} packages of {target}\n")
                sys.stdout.flush()
                server.serve_forever()
            except KeyboardInterrupt:
                return 0
    return 0


def _manifest(context: Context, target: Target) -> Manifest:
    hint = f"strata build {target}"
    workspace = Workspace(context.store)
    if not workspace.exists() or str(target) not in workspace.layout.tags():
        raise ImageError(f"{target} is not in the store {context.store}", hint=hint)
    layout = workspace.layout
    found = choose_manifest(layout, layout.resolve(str(target)), context.arch)
    return Manifest.parse(layout.read(found))
