"""`strata image diff`: what differs between two images, and what an update costs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from strata.cli.context import Context, add_command
from strata.cli.image.looking import (
    add_arch_option,
    all_files,
    opened,
    plural,
    print_json,
    write,
)
from strata.cli.progress import print_table, size
from strata.core.text import shown
from strata.inspect.diff import (
    Fetch,
    FileChange,
    Opened,
    OSReleaseDiff,
    PackageDiff,
    check_comparable,
    compare_os_release,
    compare_packages,
    diff_files,
    fetch_of,
    read_os_release,
)
from strata.inspect.entries import LayerEntries
from strata.inspect.files import LayerKey
from strata.inspect.packagediff import by_name
from strata.inspect.same import Difference, same_system

DESCRIPTION = """\
Compare two images. First packages, old → new, each marked base, node or
override (a base package that the node layer replaced); then the layers that a
client which has A must fetch for B; then files, and what who reads A's
os-release reads in B.

  strata image diff oci:store:node/4.19@s oci:store:node/4.20@s --fetch
  strata image diff A B --squashed --exit-code && echo the same system
"""
SHOWN_FILES = 40


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "diff", run, summary="compare two images", description=DESCRIPTION
    )
    parser.add_argument("old", metavar="A", help="an image")
    parser.add_argument("new", metavar="B", help="another, or a later one")
    parser.add_argument(
        "--fetch", action="store_true", help="packages and layers only: files are not read"
    )
    parser.add_argument(
        "--squashed",
        action="store_true",
        help="are they the same system? times, labels and the split into layers do not count",
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 1 when there is a difference"
    )
    add_arch_option(parser)


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Compare and print."""
    with (
        opened(context, arguments, arguments.old) as old,
        opened(context, arguments, arguments.new) as new,
    ):
        check_comparable(old[1], new[1])
        packages = compare_packages(old, new)
        if arguments.squashed:
            differ = _squashed(context, old, new, packages)
        else:
            differ = _layered(context, old, new, packages, with_files=not arguments.fetch)
    return 1 if differ and arguments.exit_code else 0


def _squashed(context: Context, old: Opened, new: Opened, packages: PackageDiff) -> bool:
    known: dict[LayerKey, LayerEntries] = {}
    files = tuple(
        all_files(context, image, digests=True, known=known).files for image in (old, new)
    )
    found = same_system(old, new, (files[0], files[1]), packages)
    if context.as_json:
        print_json({"same": not found, "differences": [one.to_json() for one in found]})
    else:
        _print_squashed(old[1].name, new[1].name, found)
    return bool(found)


def _print_squashed(old: str, new: str, found: Sequence[Difference]) -> None:
    for one in found:
        write(f"{shown(one.subject)}: {one.what}")
    if found:
        write(f"{old} and {new} differ in {plural(len(found), 'thing')}")
    else:
        write(f"{old} and {new} are the same system")


def _layered(
    context: Context,
    old: Opened,
    new: Opened,
    packages: PackageDiff,
    *,
    with_files: bool,
) -> bool:
    fetch = fetch_of(old[1], new[1])
    files: tuple[FileChange, ...] | None = None
    release: OSReleaseDiff | None = None
    if with_files:
        known: dict[LayerKey, LayerEntries] = {}
        left, right = (
            all_files(context, image, digests=True, known=known).files for image in (old, new)
        )
        files = diff_files(left, right)
        release = compare_os_release(read_os_release(old, left), read_os_release(new, right))
    if context.as_json:
        print_json(_document(old, new, packages, fetch, files, release))
    else:
        _print_packages(packages)
        _print_fetch(old, new, fetch)
        if files is not None:
            _print_files(files)
        if release is not None and release.readings:
            _print_os_release(release)
    # Layers may differ and hold the same, but cost a fetch; or say that they are the same, and not.
    differ = [of.diff_id for of in old[1].layers] != [of.diff_id for of in new[1].layers]
    return differ or bool(packages.changes) or bool(files)


def _print_packages(packages: PackageDiff) -> None:
    if not packages.changes:
        same = f"the same {plural(len(packages.new), 'package')}"
        write(same if packages.new else "neither image has a package database")
        return
    rows = []
    for kind in ("changed", "removed", "added"):
        for change in packages.changes:
            if change.kind == kind:
                old = str(change.old.evr) if change.old else ""
                new = str(change.new.evr) if change.new else ""
                note = "downgrade" if change.is_downgrade else ""
                arch = change.either.arch
                rows.append([kind, f"{change.name}.{arch}", old, new, change.mark, note])
    print_table("", ["", "package", "old", "→ new", "from", ""], rows)


def _print_fetch(old: Opened, new: Opened, fetch: Fetch) -> None:
    if fetch.layers:
        rows = [[str(of.number), of.kind, of.summary, size(of.size_bytes)] for of in fetch.layers]
        print_table("", [">layer", "kind", "to fetch", ">size"], rows)
    write(
        f"a client that has {old[1].name} fetches {len(fetch.layers)} of "
        f"{plural(len(new[1].layers), 'layer')}: {size(fetch.size_bytes)} of "
        f"{size(new[1].size_bytes)}"
    )


def _print_files(files: Sequence[FileChange]) -> None:
    counts = []
    for kind in ("changed", "removed", "added"):
        of_kind = [change for change in files if change.kind == kind]
        counts.append(f"{len(of_kind)} {kind}")
        for change in of_kind[:SHOWN_FILES]:
            what = f"  ({', '.join(change.what)})" if change.what else ""
            write(f"  {kind:<8} {shown(change.path)}{what}")
        if len(of_kind) > SHOWN_FILES:
            write(f"  {kind:<8} … and {len(of_kind) - SHOWN_FILES} more (--json lists all)")
    write(f"files: {', '.join(counts)}")


def _print_os_release(release: OSReleaseDiff) -> None:
    rows = []
    for of in release.readings:
        note = of.note if of.agreed else f"NOT AGREED: {of.note}"
        cells = [of.key, of.before or "", of.after or "", note]
        rows.append([shown(cell) for cell in cells])
    print_table("", ["os-release", "old", "→ new", ""], rows)
    old, new = release.old or "none", release.new or "none"
    write(f"the OS's version as consumers read it: {old if old == new else f'{old} → {new}'}")


def _document(
    old: Opened,
    new: Opened,
    packages: PackageDiff,
    fetch: Fetch,
    files: tuple[FileChange, ...] | None,
    release: OSReleaseDiff | None,
) -> dict[str, object]:
    document: dict[str, object] = {
        **by_name(packages.changes),
        "old": {"image": old[1].name, "manifest_digest": str(old[1].manifest_digest)},
        "new": {"image": new[1].name, "manifest_digest": str(new[1].manifest_digest)},
        "packages": [change.to_json() for change in packages.changes],
        "fetch": {
            "layers": [layer.to_json() for layer in fetch.layers],
            "size_bytes": fetch.size_bytes,
        },
    }
    if files is not None:
        document["files"] = [change.to_json() for change in files]
    if release is not None:
        document["os_release"] = release.to_json()
    return document
