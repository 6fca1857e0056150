"""`strata image ls`: the files of an image, as a container would see them."""

from __future__ import annotations

import argparse
import stat

from strata.cli.context import Context, add_command
from strata.cli.image.looking import add_arch_option, all_files, opened, print_json, write
from strata.core.text import shown
from strata.inspect.entries import File
from strata.inspect.owner import find

DESCRIPTION = """\
List an image's files with mode, owner, size and the number of the layer that
put each there; with PATH only what is at and below it. The layers are laid
over each other as a container runtime does.

  strata image ls oci:build/store:node/4.19@sample-12 /usr/bin
"""

_TYPES = {
    "file": stat.S_IFREG,
    "link": stat.S_IFLNK,
    "dir": stat.S_IFDIR,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "ls", run, summary="list the files of an image", description=DESCRIPTION
    )
    parser.add_argument("image", metavar="IMGREF", help="e.g. oci:DIR:TAG or docker://HOST/NAME")
    parser.add_argument("path", metavar="PATH", nargs="?", default="/", help="default: /")
    add_arch_option(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """List."""
    with opened(context, arguments, arguments.image) as image:
        files = all_files(context, image, digests=context.as_json).files
    top, _ = find(image[1], files, arguments.path)
    below = top.rstrip("/") + "/"
    found = {path: of for path, of in files.items() if path == top or path.startswith(below)}
    if context.as_json:
        print_json({"files": {shown(path): file.to_json() for path, file in found.items()}})
        return 0
    owners = max(len(_owner(file)) for file in found.values())
    sizes = max(len(str(file.size_bytes)) for file in found.values())
    for path, file in found.items():
        target = f" → {shown(file.target)}" if file.kind == "link" else ""
        mode = stat.filemode(_TYPES[file.kind] | file.mode)
        write(
            f"{mode} {_owner(file):<{owners}} {file.size_bytes:>{sizes}} {file.layer:>3}  "
            f"{shown(path)}{target}"
        )
    return 0


def _owner(file: File) -> str:
    return f"{file.uid}:{file.gid}"
