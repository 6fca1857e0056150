"""`scripts/okd-check DIR`: the real definitions, all flattened, linted and proposed a strata.toml
for; then docs/okd.md, step by step.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import okd
from strata.core.errors import StrataError


def main() -> int:
    """Returns 0 when every step went as the document says."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: scripts/okd-check DIR\n")
        return 2
    source = Path(sys.argv[1]).resolve()
    for name in okd.CHECKOUTS:
        if not (source / name).is_dir():
            sys.stderr.write(f"okd-check: there is no {source / name}\n")
            return 2
    try:
        with tempfile.TemporaryDirectory(prefix="okd-check.") as scratch:
            folder = Path(scratch) / "centos-stream-10"
            okd.lay_out(folder)
            for name in okd.CHECKOUTS:
                ignored = shutil.ignore_patterns(".git")
                shutil.copytree(source / name, folder / name, symlinks=True, ignore=ignored)
            return 0 if look(folder) and carry_out(folder, Path(scratch) / "recorded") else 1
    except StrataError as error:
        sys.stderr.write(f"okd-check: {error.message}\n")
        return 1


def look(folder: Path) -> bool:
    """Flatten and lint all there is."""
    right = True
    for one in okd.look(folder):
        word = "FAILED" if one.findings else "ok"
        sys.stdout.write(f"{word:7}{one.took_s:6.2f} s  {one.label}: {one.packages} packages\n")
        sys.stdout.write("".join(f"    {finding}\n" for finding in one.findings))
        right &= not one.findings
    return right


def carry_out(folder: Path, recordings: Path) -> bool:
    """The document's commands, but for the clones; and `strata init`, which it names."""
    proposing = ["strata", "init", "--dry-run"]
    for name in okd.CHECKOUTS:
        proposing += ["--from", name]
    for argv in (proposing, *okd.commands()):
        if argv[0] != "strata":
            continue
        if argv[1] == "lock" and not recordings.exists():
            sys.stdout.write(f"recorded {okd.use_recorded(folder, recordings)} packages\n")
        started = time.monotonic()
        done = okd.run(argv, folder)
        right = done.returncode == okd.status_of(argv)
        took = time.monotonic() - started
        sys.stdout.write(f"{'ok' if right else 'FAILED':7}{took:6.2f} s  {' '.join(argv)}\n")
        if argv[1] in ("lint", "lock") or not right:
            shown = done.stdout + ("" if right else done.stderr)
            sys.stdout.write("".join(f"    {line}\n" for line in shown.splitlines()[-40:]))
        if not right:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
