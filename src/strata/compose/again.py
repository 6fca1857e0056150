"""A target is built a second time, under other conditions, and compared with the first build.

The second build (`rebuild.py`) runs in a process of its own, with another time, locale, time zone,
umask, hash seed and number of CPUs, in a mount and a PID namespace that bwrap makes. Its store is
a tmpfs, which lists folders in another order than a disk and goes with the process, however that
ends.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from strata.compose.amend import Amendment
from strata.compose.context import BuildContext
from strata.compose.verify import Conditions, Finding, Verification, describe
from strata.core.clock import AHEAD_HOURS
from strata.core.errors import DigestError, NoSpaceError, StrataError, error_of
from strata.core.events import Progress, Reporter, StepBegin, StepEnd, event_of
from strata.core.process import run
from strata.core.record import BuildRecord
from strata.oci.reference import ImageReference
from strata.treefile.target import Target

COMPARED = ("commit", "manifest")
# Another month, day and hour; not so far that a repository's signing key would have expired.
LATER_HOURS = 33 * 24 + 7
UMASK, TIMEZONE, LOCALE, HASH_SEED = 0o077, "Asia/Kathmandu", "tr_TR.UTF-8", "4711"
_REBUILD = "from strata.compose.rebuild import main; main()"


@dataclass(frozen=True)
class Task:
    """What the second process is given.

    context, base, given, record: of the first build. cpus: those that the second may use; first,
    second: the conditions of both.
    """

    context: BuildContext
    target: Target
    base: ImageReference | None
    given: Amendment
    record: BuildRecord
    cpus: tuple[int, ...]
    first: Conditions
    second: Conditions

    @property
    def jobs(self) -> int:
        """How much it does at once: not as much as the first."""
        return 1 if self.context.jobs > 1 else 2


def compared(outputs: Mapping[str, object]) -> dict[str, str]:
    """The outputs that say whether two builds are equal."""
    return {key: str(outputs[key]) for key in COMPARED if key in outputs}


def verify_again(
    context: BuildContext,
    target: Target,
    base: ImageReference | None,
    given: Amendment,
    reporter: Reporter,
) -> Verification:
    """Build a target, which is in the store, again and compare. Nothing of it stays.

    Raises DigestError naming the files that differ, ToolMissingError, and what the second build
    ended with; NoSpaceError is about memory.
    """
    record = context.record(target)
    if record is None:
        raise StrataError(f"{target} has no build record, so there is nothing to compare with")
    cpus = sorted(os.sched_getaffinity(0))
    fewer = tuple(cpus[: max(1, len(cpus) // 2)])
    with (
        reporter.step(f"build {target} again, under other conditions") as step,
        context.workspace.scratch("again") as scratch,
    ):
        first = Conditions(len(cpus), "", "", str(context.workspace.work))
        second = Conditions(len(fewer), TIMEZONE, LOCALE, str(scratch))
        unattended = replace(context, before_shell=None)
        task = Task(unattended, target, base, given, record, fewer, first, second)
        # A /dev/shm of its own: libfaketime leaves semaphores where processes are killed.
        argv = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", str(scratch), "--tmpfs", "/dev/shm"]
        argv += ["--unshare-pid", "--proc", "/proc", "--die-with-parent", "--cap-add", "ALL"]
        argv += ["--chdir", os.getcwd(), "--", "faketime", "-m", "--exclude-monotonic"]
        argv += ["-f", f"+{LATER_HOURS}h", sys.executable, "-c", _REBUILD]

        def show(line: str) -> None:
            # Its steps become parts of ours. They are numbered from 1, too: below zero nobody is.
            event = event_of(line)
            if isinstance(event, StepBegin):
                parent = -event.parent if event.parent else step.id
                reporter.emit(replace(event, id=-event.id, parent=parent))
            elif isinstance(event, (StepEnd, Progress)):
                reporter.emit(replace(event, id=-event.id))

        done = run(
            argv,
            env={
                "TZ": TIMEZONE,
                "LANG": LOCALE,
                "LC_ALL": LOCALE,
                "PYTHONHASHSEED": HASH_SEED,
                AHEAD_HOURS: str(LATER_HOURS),
                # Files keep the times they are given; waits of threads do not drift.
                "NO_FAKE_STAT": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
                "TMPDIR": str(scratch),
            },
            stdin=base64.b64encode(pickle.dumps(task)).decode(),
            on_line=show,
        )
        found = _read_answer(task, json.loads(done.stdout))
        step.detail("equal to the byte")
    return found


def _conditions(task: Task) -> tuple[str, ...]:
    """What was not as in the first build, in words."""
    first, second = task.first, task.second
    fewer = f"{second.cpus} of {first.cpus} CPUs"
    return (
        f"time {LATER_HOURS} h later",
        f"umask {UMASK:04o}",
        f"locale {second.locale}",
        f"time zone {second.timezone}",
        f"hash seed {HASH_SEED}",
        "directory order of tmpfs",
        *((fewer,) if second.cpus < first.cpus else ()),
        f"{task.jobs} at once in place of {task.context.jobs}",
    )


def _read_answer(task: Task, answer: dict[str, Any]) -> Verification:
    """The second process's answer as a value. Raises what it ended with, or DigestError."""
    if "error" in answer:
        error = error_of(answer["error"])
        error.message = f"{task.target} was built, but not a second time: {error.message}"
        if "script" in error.context:
            error.hint = (
                "the first time it went through; this time had "
                f"{', '.join(_conditions(task))}; strata build {task.target} --verify repeats it"
            )
        if isinstance(error, NoSpaceError):
            error.hint = "the second build is made in memory, of which it may take half"
        raise error
    if answer["inputs"]:
        raise StrataError(
            f"the inputs of {task.target} changed before it was built a second time",
            hint="build it once more",
            context={"output": "\n".join(answer["inputs"])},
        )
    found = Verification(
        _conditions(task),
        compared(task.record.outputs),
        answer["outputs"],
        tuple(Finding(**row) for row in answer["findings"]),
    )
    key = found.differing
    if key:
        raise DigestError(
            f"{task.target} was built again from the same inputs and its {key} differs",
            hint="something in the build reads what is not an input",
            context={
                "expected": found.expected[key],
                "actual": found.actual[key],
                "output": describe(found.findings),
                "verified": found.to_json(),
            },
        )
    return found
