"""What lint rules look at, gathered from an open image; and all rules together."""

from __future__ import annotations

from collections.abc import Sequence

from strata.inspect import bootcrules, layerrules
from strata.inspect.contents import read_contents
from strata.inspect.files import ImageFiles
from strata.inspect.lint import Outcome, Subject, check, wanted_files
from strata.inspect.packages import (
    NoDatabaseError,
    read_base_packages,
    read_inventory_in,
    read_metalayer,
    real_packages,
)
from strata.inspect.view import ImageView
from strata.oci.source import ImageSource

RULES = (*bootcrules.RULES, *layerrules.RULES)


def lint_image(
    source: ImageSource, view: ImageView, files: ImageFiles, node_only: Sequence[str] = ()
) -> tuple[Outcome, ...]:
    """Check an open image against all rules. files: with digests.

    Raises ImageError, PackageError (a database that is damaged or of a format that is not read).
    """
    wanted, of_base = wanted_files(files.files, RULES), wanted_files(files.base, RULES)
    bodies = read_contents(source, view, [*wanted.values(), *of_base.values()])
    contents, base_contents = (
        {path: bodies[file.digest] for path, file in found.items()} for found in (wanted, of_base)
    )
    listed, problem = read_metalayer(source, view)
    packages = base = None
    try:
        packages = real_packages(read_inventory_in(source, view, view.layers)[0].nevras())
        base = read_base_packages(source, view) if view.base_layers else None
    except NoDatabaseError:
        pass  # rules about packages are not for this image
    subject = Subject(
        view, files, contents, base_contents, packages, base, listed, problem, node_only
    )
    return check(subject, RULES)
