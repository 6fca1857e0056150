"""What a treefile does to an installed root beside packages, overlays and inline scripts.

`remove-from-packages` and `add-files` change files; `units` and `default-target` say what systemd
starts. Source: rpm-ostree's docs/treefile.md, composepost.rs and checkout_filter in
rpmostree-core.cxx.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from strata.compose.normalise import tree_path
from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.rpm.inventory import Inventory
from strata.treefile.treefile import Flattened, NamedFile
from strata.treefile.yaml import Place, definition_error

MULTI_USER_WANTS = "etc/systemd/system/multi-user.target.wants"
_UNITS = "usr/lib/systemd/system"
# Where add-files may put something: what a tree ships.
_SHIPPED = ("usr/", "etc/", "bin/", "sbin/", "lib/", "lib64/")


def remove_from_packages(root: Path, treefile: Flattened, inventory: Inventory) -> int:
    """Delete files of packages by `[package, regex…]`; returns how many.

    A regex is searched in the path as the tree has it (`/usr/etc/…`). A file that a package without
    a matching rule owns too stays. Raises DefinitionError for a regex that is none.
    """
    place = treefile.places.get("remove-from-packages")
    rules = _rules(treefile.fields.get("remove-from-packages"), place)
    if not rules:
        return 0
    removed = 0
    for path, owners in sorted(inventory.file_owners().items()):
        where = tree_path(path)
        if all(any(rule.search(where) for rule in rules.get(own.name, ())) for own in owners):
            target = rooted.resolve(root, path.lstrip("/"), follow_last=False)
            if target.is_symlink() or target.is_file():
                target.unlink()
                removed += 1
    return removed


def _rules(value: object, place: Place | None) -> dict[str, list[re.Pattern[str]]]:
    rules: dict[str, list[re.Pattern[str]]] = {}
    for row in value if isinstance(value, list) else ():
        package, *patterns = row
        for pattern in patterns:
            try:
                rules.setdefault(package, []).append(re.compile(pattern))
            except re.error as error:
                problem = f"{pattern!r} of remove-from-packages is no regular expression: {error}"
                raise definition_error(place, problem) from error
    return rules


def add_files(root: Path, files: Sequence[NamedFile], folder: Path) -> None:
    """Copy files of the definitions into the tree, with their modes. Raises DefinitionError."""
    for item in files:
        if item.field != "add-files":
            continue
        where = item.target.lstrip("/")
        if not where.startswith(_SHIPPED) or where.startswith("usr/local/"):
            raise DefinitionError(
                f"{item.source}: add-files cannot put anything at {item.target}",
                hint="a tree ships /usr (but not /usr/local) and /etc",
                context={"file": item.source.file, "line": item.source.line},
            )
        target = rooted.resolve(root, where)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / item.path, target)
        target.chmod(added_mode(folder / item.path))


def added_mode(path: Path) -> int:
    """The mode in the tree of a file of the definitions: git keeps whether it is executable."""
    return 0o755 if path.stat().st_mode & 0o111 else 0o644


def enable_units(root: Path, treefile: Flattened) -> None:
    """`units` are wanted by multi-user.target; `default-target` is what systemd boots to.

    Raises DefinitionError for a name that is none.
    """
    units = treefile.fields.get("units")
    for unit in units if isinstance(units, list) else ():
        if "/" in unit or unit in ("", ".", ".."):
            raise definition_error(treefile.places["units"], f"{unit!r} is no unit's name")
        target = rooted.resolve(root, f"{MULTI_USER_WANTS}/{unit}", follow_last=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(f"/{_UNITS}/{unit}")
    default = treefile.fields.get("default-target")
    if isinstance(default, str):
        if not rooted.resolve(root, f"{_UNITS}/{default}").exists():
            place = treefile.places["default-target"]
            raise definition_error(place, f"the tree has no /{_UNITS}/{default}")
        link = rooted.resolve(root, f"{_UNITS}/default.target", follow_last=False)
        link.unlink(missing_ok=True)
        link.symlink_to(default)
