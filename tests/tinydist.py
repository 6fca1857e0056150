"""Definitions of a base of a few packages, which builds in seconds: for tests that build often."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import SAMPLE

TARGET = "bootc/tiny-1"
_TOML = """\
schema = 1
repos = ["sample.repo"]
[stream.tiny-1]
version = "1.0"
arches = ["x86_64"]
bootc = { treefile = "bootc.yaml" }
coreos = { treefile = "bootc.yaml" }
"""
_TREEFILE = """\
edition: "2024"
repos:
  - sample-12-baseos
documentation: false
recommends: false
packages:
  - base-files bash coreutils dash grep gzip libc-bin linux-image-cloud-amd64 python3-minimal
postprocess:
"""


# A CoreOS layer on top: what dracut needs to make its initramfs.
COREOS = """\
repos:
  - sample-12-baseos
documentation: false
recommends: false
packages:
  - dracut cpio findutils sed udev util-linux
"""


def tiny_definitions(folder: Path, *scripts: str, packages: str = "", fields: str = "") -> Path:
    """Definitions whose only target is TARGET, with postprocess scripts, more packages and fields
    in the place of `edition`."""
    folder.mkdir()
    shutil.copy(SAMPLE / "sample.repo", folder)
    (folder / "strata.toml").write_text(_TOML)
    text = _TREEFILE.replace(" gzip ", f" gzip {packages} ")
    text = text.replace('edition: "2024"\n', fields) if fields else text
    for script in scripts or ("ldconfig",):
        lines = "\n".join(f"    {line}" for line in script.splitlines())
        text += f"  - |\n    #!/usr/bin/bash\n    set -euo pipefail\n{lines}\n"
    (folder / "bootc.yaml").write_text(text)
    return folder
