"""Bundle: what support needs to see of a machine's overlay, in one archive, and no secrets.

Only what is listed here is read: no credentials, keys or policies. Texts may quote some all the
same (a URL with a password, a header, a kernel argument): what looks like one is cut out, rather
too much than too little.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from strata.core.errors import StrataError
from strata.core.events import Reporter
from strata.core.files import atomic_write
from strata.core.process import require_root, run
from strata.node import dryrun, host, mounts
from strata.node.config import PATH, NodeConfig
from strata.node.status import Status

MAX_BYTES = 4 << 20  # of each member; the end counts
TIMEOUT_S = 30.0
CUT = "[cut out]"

COMMANDS = {
    "journal.txt": [
        "journalctl",
        "-b",
        "--no-pager",
        "-o",
        "short-iso",
        "-n",
        "20000",
        "-u",
        "node-image-*",
    ],
    "units.txt": ["systemctl", "status", "--no-pager", "-l", "node-image-*"],
    "failed-units.txt": ["systemctl", "--failed", "--no-pager"],
    "deployments.txt": ["ostree", "admin", "status"],
    "disk.txt": ["df", "-h"],
    "inodes.txt": ["df", "-i"],
    "memory.txt": ["free", "-m"],
    "date.txt": ["date", "--iso-8601=seconds"],
}

_WORDS = r"(?:password|passwd|secret|token|credential|auth|apikey|api_key|api-key|cookie)"
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.S), CUT),
    (re.compile(r"(?i)\b(\w+://)[^\s/@]+@"), rf"\1{CUT}@"),
    (re.compile(r"(?im)((?:proxy-)?authorization\"?\s*[:=])[^\n]*"), rf"\1 {CUT}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {CUT}"),
    (re.compile(r"eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), CUT),
    (re.compile(r"(?i)([?&][\w.-]*(?:sig|token|key|secret)[\w.-]*=)[^&\s\"']+"), rf"\1{CUT}"),
    (re.compile(rf"(?i)(\b[\w.-]*{_WORDS}[\w-]*\"?\s*[:=]\s*)(\"[^\"]*\"|[^\s,}}]+)"), rf"\1{CUT}"),
)


def redact(text: str) -> str:
    """A text without what looks like a password, a token or a private key."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def bundle(dest: Path, reporter: Reporter) -> list[str]:
    """Write the archive, a .tar.gz that only its owner reads; returns what is in it.

    What cannot be had is a member that says why. Raises NotRootError, OSError.
    """
    require_root("reading the agent's state")
    mounts.join_machine()
    members = {}
    for name, read in _sources():
        with reporter.step(f"collect {name}"):
            try:
                text = read()
            except (StrataError, OSError) as error:
                output = error.context.get("output", "") if isinstance(error, StrataError) else ""
                text = f"not had: {error}\n{output}\n"
        members[name] = redact(text[-MAX_BYTES:]).encode("utf-8", "backslashreplace")
    atomic_write(dest, pack(members), 0o600)
    return sorted(members)


def pack(members: dict[str, bytes]) -> bytes:
    """A gzipped tar of these files, in a folder of the agent's name."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name in sorted(members):
            info = tarfile.TarInfo(f"strata-node/{name}")
            info.size, info.mode = len(members[name]), 0o600
            archive.addfile(info, io.BytesIO(members[name]))
    return out.getvalue()


def _sources() -> Iterator[tuple[str, Callable[[], str]]]:
    for name, path in (
        ("state.json", host.STATE),
        ("phases.jsonl", host.JOURNAL),
        ("node.json", PATH),
        ("os-release", Path(host.USR, "lib/os-release")),
        ("cmdline", host.KERNEL_ARGUMENTS),
        ("mounts", Path("/proc/self/mountinfo")),
        ("meminfo", Path("/proc/meminfo")),
    ):
        yield name, partial(path.read_text, encoding="utf-8", errors="replace")
    yield "status.json", lambda: json.dumps(Status.load().to_json(), indent=2)
    yield "overlay-plan.json", _overlay_plan
    for name, command in COMMANDS.items():
        yield name, partial(_said, command)


def _said(command: list[str]) -> str:
    done = run(command, check=False, timeout_s=TIMEOUT_S)
    return f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\nstatus {done.status}\n"


def _overlay_plan() -> str:
    return json.dumps(dryrun.overlay_plan(NodeConfig.load()).to_json(), indent=2)
