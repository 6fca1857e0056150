"""What the definitions can build, what the store has of it, and which releases share which base."""

from __future__ import annotations

from dataclasses import dataclass

from strata.compose.amend import Debt
from strata.compose.context import BuildContext
from strata.core.clock import today
from strata.treefile.target import Target


@dataclass(frozen=True)
class Row:
    """A target. base: what it stands on, a target or an image; shares: other node targets of the
    same base. version, digest: of the store's image, empty when there is none. base_digest: of the
    base it was built on. behind: the base in the store is another by now. debts: how far its
    overrides were ahead of the base when it was built.
    """

    target: str
    base: str
    shares: tuple[str, ...]
    primary: bool
    arches: tuple[str, ...]
    version: str
    digest: str
    base_digest: str
    behind: bool
    debts: tuple[str, ...] = ()


def rows_of(context: BuildContext) -> list[Row]:
    """Every target that can be built, in build order."""
    targets = context.project.targets()
    bases = {target: _base(context, target, targets) for target in targets}
    rows = []
    for target in targets:
        record = context.record(target)
        outputs = record.outputs if record else {}
        on, now = str(outputs.get("base", "")), _digest(context, bases[target], targets)
        others = [each for each in targets if each != target and each.kind == target.kind]
        shares = [str(each) for each in others if bases[each] == bases[target]]
        rows.append(
            Row(
                target=str(target),
                base=bases[target],
                shares=tuple(shares) if target.kind == "node" else (),
                primary=target.kind == "node" and context.project.node(target).primary,
                arches=_arches(context, target),
                version=str(outputs.get("version", "")),
                digest=str(outputs.get("manifest", "")),
                base_digest=on,
                behind=bool(on and now and on != now),
                debts=_debts(outputs.get("overrides")),
            )
        )
    return rows


def _arches(context: BuildContext, target: Target) -> tuple[str, ...]:
    return context.project.stream(target.stream or target.name).arches


def _base(context: BuildContext, target: Target, targets: tuple[Target, ...]) -> str:
    """What a target stands on: a target, an image, or nothing."""
    if target.kind == "node":
        node = context.project.node(target)
        return f"coreos/{node.stream}" if node.base == "stream" else node.base
    if target.kind == "extensions":
        return str(Target("node", target.name, target.stream))
    if target.kind != "coreos":
        return ""
    bootc = context.project.stream(target.name).bootc
    below = Target("bootc", target.name)
    return str(below) if below in targets else (bootc.image if bootc else "")


def _debts(overrides: object) -> tuple[str, ...]:
    """The debts of a build record's outputs, as words."""
    rows = overrides if isinstance(overrides, list) else []
    return tuple(
        str(Debt(row["package"], row["base"], row["reason"], row["state"])) for row in rows
    )


def hotfixes_of(context: BuildContext) -> list[str]:
    """The hotfixes of the definitions, as words: of what, until when, why, and whether it is too
    late."""
    found = []
    for hotfix in context.project.hotfixes:
        late = "expired" if today() >= hotfix.expires else "expires"
        found.append(
            f"hotfix/{hotfix.name} of {hotfix.target} {late} on {hotfix.expires}: {hotfix.reason}"
        )
    return found


def _digest(context: BuildContext, base: str, targets: tuple[Target, ...]) -> str:
    """The digest the base has now, as far as the store or its name says."""
    for target in targets:
        if str(target) == base:
            record = context.record(target)
            return str(record.outputs.get("manifest", "")) if record else ""
    return base.rpartition("@")[2]
