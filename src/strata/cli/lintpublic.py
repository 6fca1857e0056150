"""`strata lint --public`: what definitions need that not anyone can have."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from strata.cli.context import Context, print_json
from strata.compose.public import IMAGE, REPOSITORY, SECRET, SYSTEM, needs
from strata.core.text import shown
from strata.treefile.project import load_project
from strata.treefile.target import Target

NOUNS = (
    (REPOSITORY, "repository", "repositories"),
    (IMAGE, "image", "images"),
    (SECRET, "secret", "secrets"),
    (SYSTEM, "OS that a treefile refuses", "OSes that treefiles refuse"),
)


def show_needs(context: Context, targets: Sequence[Target]) -> int:
    """Print what is not public of targets (of all, when none is named); 1 when there is any."""
    project = load_project(context.definitions)
    found = needs(project, targets or project.targets(), context.store)
    if context.as_json:
        print_json([need.to_json() for need in found])
    else:
        for need in found:
            sys.stdout.write(shown(f"{need.place}: {need.kind} {need.name}: {need.why}") + "\n")
        counts = Counter(kind for kind, _ in {(need.kind, need.name) for need in found})
        words = [
            f"{counts[kind]} {one if counts[kind] == 1 else many}"
            for kind, one, many in NOUNS
            if counts[kind]
        ]
        sys.stdout.write(f"not public: {', '.join(words) or 'nothing'}\n")
    return 1 if found else 0
