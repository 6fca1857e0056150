"""The merge phase: the machine's three trees are read, a plan is made, told, and carried out."""

from __future__ import annotations

from strata.core.events import Reporter
from strata.core.files import mount_points
from strata.core.text import shown
from strata.node import etcapply, etcmerge, host, reconcile
from strata.node.etcmerge import Plan

# What systemd-sysusers and ldconfig write in /etc; saved before, whatever the merge plans.
WRITTEN = (
    "ld.so.cache",
    "ld.so.cache~",
    ".pwd.lock",
    *(
        name + suffix
        for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
        for suffix in ("", "-")
    ),
)


def plan_now(policy: str) -> Plan:
    """What a merge would do to this machine now; nothing is changed.

    The node image's tree is shown at `host.checkout_path()`. Raises StrataError when the policy is
    `fail` and there are conflicts.
    """
    return etcmerge.plan(
        etcapply.read_tree(f"{host.USR}/etc"),
        etcapply.read_tree(host.ETC, _points()),
        etcapply.read_tree(_theirs()),
        policy=policy,
    )


def carry_out(plan: Plan) -> None:
    """Change /etc as planned; `undo.take_back` restores it. Raises StrataError."""
    points = _points()
    keys = [str(path.relative_to(host.ETC)) for path in reconcile.host_keys()]
    also = [path for path in (*WRITTEN, *keys) if _may_change(path, points)]
    etcapply.carry_out(plan, _theirs(), host.ETC, host.BACKUP, also=also)


def summary(plan: Plan) -> str:
    """A plan in a line."""
    conflicts = len(list(plan.conflicts()))
    return (
        f"{len(plan.actions)} changes, {len(plan.kept)} of this machine's kept, "
        f"{conflicts} conflict{'' if conflicts == 1 else 's'}"
    )


def report(plan: Plan, reporter: Reporter) -> None:
    """Tell what a merge leaves as it is against the image, and what it overrules."""
    for kept in plan.kept:
        reporter.note(f"kept /etc/{shown(kept.path)}: {kept.reason}")
    for action in plan.actions:
        if action.over:
            reporter.note(f"took the image's /etc/{shown(action.path)}: {action.over}")


def _theirs() -> str:
    return str(host.checkout_path() / "usr/etc")


def _points() -> frozenset[str]:
    return frozenset(point for point in mount_points(host.ETC) if point != host.ETC)


def _may_change(path: str, points: frozenset[str]) -> bool:
    """Whether a path is a file, or could become one."""
    where = f"{host.ETC}/{path}"
    if where in points:
        return False
    try:
        return etcapply.read_entry(where).kind == etcmerge.FILE
    except FileNotFoundError:
        return True
