"""The index of a folder of packages, by createrepo_c: the same packages give the same bytes."""

from __future__ import annotations

from pathlib import Path

from strata.core.process import run


def index_packages(
    folder: Path, *, revision: int, threads: int = 1, plain_names: bool = False
) -> None:
    """Write `repodata/` into a folder of packages.

    revision: the index's time, in seconds. plain_names: its files are called `primary.xml.gz`, and
    not by their digests. Raises ToolMissingError, ToolFailedError, NoSpaceError.
    """
    argv = ["createrepo_c", "--quiet", "--no-database", "--checksum", "sha256"]
    argv += ["--revision", str(revision), "--set-timestamp-to-revision"]
    argv += ["--workers", str(threads), *(["--simple-md-filenames"] if plain_names else [])]
    run([*argv, str(folder)])
