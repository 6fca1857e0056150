"""What a treefile does to a root whose packages are installed: files taken out and put in,
overlays, scripts. The engines of a node build share it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from strata.compose.content import add_files, enable_units, remove_from_packages
from strata.compose.overlays import apply_overlay
from strata.compose.sysusers import RunInTree, make_users
from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.rpm.inventory import read_inventory
from strata.treefile.treefile import Flattened, Sourced


class Content(Protocol):
    """What a layer's definition brings beside packages. folder: what its files' names are relative
    to; overlays: (name, folder) in the order they are applied."""

    @property
    def folder(self) -> Path:
        """The definitions."""

    @property
    def treefile(self) -> Flattened:
        """The treefile."""

    @property
    def overlays(self) -> tuple[tuple[str, Path], ...]:
        """The overlays."""


class RunScript(Protocol):
    """Runs a script in the root. source: `file:line` of it."""

    def __call__(self, text: str, *, source: str, env: dict[str, str]) -> None:
        """Raises DefinitionError when it fails."""


def arrange(
    root: Path,
    content: Content,
    *,
    run: RunScript,
    tell: RunInTree,
    source_date_epoch: int,
    reporter: Reporter,
    before_scripts: Callable[[], None] = lambda: None,
    name: str = "",
) -> None:
    """Take out what is not wanted of packages, apply the overlays and what else the treefile adds,
    run the scripts, in that order.

    tell: runs a command there, with SOURCE_DATE_EPOCH. before_scripts: adds what the scripts may
    read and change. name: what scripts know as NAME,
    empty for the treefile's. Raises PackageError, DefinitionError, TreeError.
    """
    treefile = content.treefile
    if "remove-from-packages" in treefile.fields:
        with reporter.step("remove files of packages") as step:
            removed = remove_from_packages(root, treefile, read_inventory(root))
            step.detail(f"{removed} files")
    for path in treefile.remove_files:
        rooted.remove(root, path)
    for title, overlay in content.overlays:
        with reporter.step(f"apply {title}") as step:
            step.detail(f"{apply_overlay(root, overlay)} files")
    add_files(root, treefile.files, content.folder)
    enable_units(root, treefile)
    before_scripts()
    make_users(root, treefile, tell)
    environment = _environment(name or treefile.metadata.get("name"), source_date_epoch)
    scripts = [(script.text, str(script.source)) for script in treefile.postprocess]
    for item in treefile.files:
        if item.field == "postprocess-script":
            scripts.append(((content.folder / item.path).read_text(encoding="utf-8"), item.path))
    for text, source in scripts:
        with reporter.step(f"run the script at {source}"):
            run(text, source=source, env=environment)


def _environment(name: object, source_date_epoch: int) -> dict[str, str]:
    """What a postprocess script may know: the system's name, and the build's time."""
    env = {"SOURCE_DATE_EPOCH": str(source_date_epoch)}
    if isinstance(name, str):
        env["NAME"] = name
    return env


def find_overlays(
    folder: Path, treefile: str, named: tuple[Sourced, ...]
) -> tuple[tuple[str, Path], ...]:
    """The folders of a treefile's overlays. Raises DefinitionError when one is not there.

    folder: the definitions; treefile: its path in them.
    """
    return tuple((item.text, _find_overlay(folder, item, treefile)) for item in named)


def _find_overlay(folder: Path, item: Sourced, treefile: str) -> Path:
    """`overlay/NAME` and `overlay.d/NAME` are two spellings of one folder (requirement R1.12)."""
    base = item.text
    for prefix in ("overlay/", "overlay.d/"):
        base = base.removeprefix(prefix)
    # The treefile that names it may be a submodule's, and have its overlays there.
    naming = (folder / item.source.file).resolve().parent
    top_folder = folder.resolve()
    inner = [one for one in (naming, *naming.parents) if top_folder in one.parents]
    for place in ((folder / treefile).parent, folder, *inner):
        for top in ("overlay.d", "overlay"):
            if "/" not in base and (place / top / base).is_dir():
                return place / top / base
    raise DefinitionError(
        f"{item.source}: there is no overlay {item.text}",
        hint=f"make the folder overlay.d/{base} beside the treefile or beside strata.toml",
        context={"file": item.source, "key": "ostree-layers"},
    )
