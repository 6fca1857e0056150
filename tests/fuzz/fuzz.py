"""Fuzz one target, guided by coverage: `fuzz.py TARGET [libFuzzer options and corpora]`.

`-max_total_time=SECONDS` ends it; what breaks a target is written as `crash-…` and printed. Each
run begins with the seeds and the inputs kept in `corpus/TARGET/`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["strata"]):
    from seeds import SEEDS
    from targets import CORPUS, TARGETS

# An input that takes longer than this, or more memory, is a finding.
_LIMITS = ("-timeout=5", "-rss_limit_mb=1024", "-max_len=16384")


def main() -> int:
    """Run libFuzzer in a child, since it ends its process itself; returns the child's status."""
    name, options = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="strata-fuzz.") as folder:
        for number, seed in enumerate(SEEDS[name]):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        child = os.fork()
        if child == 0:
            _fuzz(name, options, folder)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fuzz(name: str, options: list[str], folder: str) -> None:
    kept = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
    corpora = [option for option in options if not option.startswith("-")]
    flags = [option for option in options if option.startswith("-")]
    # libFuzzer writes what it finds into the first folder.
    atheris.Setup([sys.argv[0], *_LIMITS, *flags, *corpora, folder, *kept], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
