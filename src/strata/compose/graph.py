"""Which targets stand on which: a target's dependencies come before it, once each.

Pure. A node image, and a hotfix of one, stands on its stream's CoreOS image, and that on the bootc
image when the stream composes one; extensions stand on their node image, boot images on the
CoreOS image.
"""

from __future__ import annotations

from collections.abc import Sequence

from strata.treefile.project import Project
from strata.treefile.target import Target


def build_order(project: Project, targets: Sequence[Target], *, base_given: bool) -> list[Target]:
    """The targets with what they stand on, in the order to build them.

    base_given: node images are built on an image named on the command line, so the stream's own
    base is not needed. Raises UsageError on an unknown target.
    """
    order: list[Target] = []

    def visit(target: Target) -> None:
        if target in order:
            return
        for needed in _needs(project, target, base_given):
            visit(needed)
        order.append(target)

    for target in targets:
        visit(project.canonical(target))
    return order


def _needs(project: Project, target: Target, base_given: bool) -> list[Target]:
    if target.kind == "coreos":
        stream = project.stream(target.name)
        bootc = stream.bootc
        return [Target("bootc", target.name)] if bootc and bootc.treefile else []
    if target.kind in ("node", "hotfix"):
        node = project.node(project.node_of(target))
        return [Target("coreos", node.stream)] if node.base == "stream" and not base_given else []
    if target.kind == "bootimage":
        return [Target("coreos", target.name)]
    if target.kind == "extensions":
        return [Target("node", target.name, target.stream)]
    return []
