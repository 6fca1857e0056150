"""Lint of extensions files: what loads, and yet breaks a machine or an architecture later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from strata.treefile.extensions import Extensions
from strata.treefile.lint import NOTE, WARNING, Finding
from strata.treefile.treefile import Sourced

# Packages that only go with the one kernel they were built with, in RPM's and in Debian's naming.
_OF_KERNEL = re.compile(r"kernel(-.+)?|linux-(image|headers|libc)-.+")


def lint_extensions(file: Extensions, arches: Sequence[str]) -> tuple[Finding, ...]:
    """All findings of an extensions file, by place. arches: those of its stream."""
    return tuple(sorted(finding for rule in _RULES for finding in rule(file, arches)))


def _kernel_without_match(file: Extensions, arches: Sequence[str]) -> Iterator[Finding]:
    """Requirement R4.2: without match-base-evr the repositories' newest kernel is taken."""
    for item in file.extensions:
        named = [each.text for each in item.packages if _OF_KERNEL.fullmatch(each.text)]
        if named and item.match_base_evr is None:
            yield Finding(
                str(item.place),
                "kernel-without-match",
                WARNING,
                f"extension {item.name} has {', '.join(named)} without match-base-evr: it may be "
                "of another kernel than the node's",
            )


def _repository_not_global(file: Extensions, arches: Sequence[str]) -> Iterator[Finding]:
    """Requirement R4.3: an extension's repository is looked in for all extensions, but only on the
    architectures of that one, so that a package of another may differ between architectures."""
    everywhere = {repo.text for repo in file.repos}
    named: dict[str, tuple[Sourced, set[str]]] = {}
    for item in file.extensions:
        for repo in item.repos:
            _, seen = named.setdefault(repo.text, (repo, set()))
            seen.update(arch for arch in arches if item.is_for(arch))
    for name, (repo, seen) in named.items():
        if name in everywhere:
            yield Finding(
                str(repo.source),
                "repository-twice",
                NOTE,
                f"{name} is among the repositories of all extensions already",
            )
        elif len(arches) > 1 and seen == set(arches):
            yield Finding(
                str(repo.source),
                "repository-not-global",
                WARNING,
                f"{name} is there on all architectures of the stream: name it in the file's "
                "`repos`, so that each architecture looks in the same ones",
            )
        elif seen and seen != set(arches):
            some = ", ".join(arch for arch in arches if arch in seen)
            yield Finding(
                str(repo.source),
                "repository-on-some",
                NOTE,
                f"{name} is looked in for all extensions, but only on {some}: if the others have "
                "it too, name it in the file's `repos`",
            )


def _never_built(file: Extensions, arches: Sequence[str]) -> Iterator[Finding]:
    for item in file.extensions:
        if not any(item.is_for(arch) for arch in arches):
            yield Finding(
                str(item.place),
                "never-built",
                NOTE,
                f"extension {item.name} is for {', '.join(item.architectures)}, the stream for "
                f"{', '.join(arches)}",
            )


def _modules(file: Extensions, arches: Sequence[str]) -> Iterator[Finding]:
    for place in file.modules:
        yield Finding(
            str(place), "no-effect", NOTE, "modules has no effect, as in rpm-ostree today"
        )


_RULES: tuple[Callable[[Extensions, Sequence[str]], Iterator[Finding]], ...] = (
    _kernel_without_match,
    _repository_not_global,
    _never_built,
    _modules,
)
