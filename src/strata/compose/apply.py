"""`strata-apply.pyz`: a treefile applied to the container it runs in, as a Containerfile's step.

    RUN … python3 /run/strata/strata-apply.pyz apply /run/src node/manifest.yaml
    RUN … python3 /run/strata/strata-apply.pyz metadata

It does what the native engine does, by the same code, where the base image is the root: installs
the packages it was given by the image's own rpm, puts the treefile's files in, runs its scripts
with an empty /var, cleans up. That there is no network is for whoever runs the container. It needs
Python 3.11 in the base image, and nothing else of strata.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from strata.compose import osrelease
from strata.compose.applyerror import error_text
from strata.compose.arrange import arrange, find_overlays
from strata.compose.nodechecks import CPE, NAME, product_labels, write_labels
from strata.compose.normalise import clean_node, kernels, move_kernel
from strata.compose.pyc import keep_pyc
from strata.compose.sandbox import script_error
from strata.compose.shebang import interpreter
from strata.compose.variant import node_variables
from strata.core import rooted
from strata.core.clock import source_date_epoch
from strata.core.errors import DefinitionError, StrataError
from strata.core.events import Reporter, plain
from strata.core.files import canonical_json, mounts_under, remove_tree
from strata.core.process import os_error, run
from strata.oci.model import goarch
from strata.rpm.install import LANGS_MACRO, close_database
from strata.rpm.inventory import PKGLIST_PATH, RPMDB_FOLDER, read_inventory
from strata.treefile.treefile import Flattened, flatten

PACKAGES = Path("/run/strata/packages")
_SCRIPT = Path("/run/postprocess")  # goes with the rest of /run


@dataclass(frozen=True)
class Content:
    """A treefile and what it names, found beside it."""

    folder: Path
    treefile: Flattened
    overlays: tuple[tuple[str, Path], ...]


def apply(
    root: Path,
    folder: Path,
    treefile: str,
    *,
    stream: str,
    packages: Path,
    rpm_options: Sequence[str],
    arguments: Mapping[str, str],
    source_date_epoch: int,
    reporter: Reporter,
) -> None:
    """Apply a treefile to a root, which is this process's own.

    folder: the definitions; treefile: its path in there; packages: a folder of
    package files, all of which are installed; arguments: those that become labels.
    Raises DefinitionError, PackageError, ToolFailedError, TreeError.
    """
    release = osrelease.read(root, "the base image")
    var, kernel = _Folders.below(root / "var"), kernels(root)
    variables = node_variables(release, stream)
    arch = os.uname().machine
    flattened = flatten(folder / treefile, variables=variables, arch=arch, root=folder)
    overlays = find_overlays(folder, treefile, flattened.overlays)
    content = Content(folder, flattened, overlays)
    with tempfile.TemporaryDirectory(prefix="pyc.", dir="/run") as scratch:
        kept = keep_pyc(root, Path(scratch))
        _install(root, packages, flattened, rpm_options, source_date_epoch, reporter)
        arrange(
            root,
            content,
            run=partial(_run_script, root),
            tell=partial(_tell, source_date_epoch),
            source_date_epoch=source_date_epoch,
            reporter=reporter,
        )
        kept.restore(root)
    osrelease.check_node(release, osrelease.read(root, treefile), flattened)
    move_kernel(root)
    if kernels(root) != kernel:
        raise DefinitionError(
            f"the packages replace the kernel {', '.join(kernel)} by {', '.join(kernels(root))}",
            hint="the native engine makes the initramfs that it needs: leave --engine out",
        )
    identity = str(variables["id"])
    write_labels(root, product_labels(arguments, identity, goarch(arch), source_date_epoch))
    clean_node(root, reporter)
    # What packages wanted in /var is told to tmpfiles.d: the base's own stays as it was.
    var.bring_back()


def _install(
    root: Path,
    packages: Path,
    treefile: Flattened,
    options: Sequence[str],
    source_date_epoch: int,
    reporter: Reporter,
) -> None:
    files = sorted(str(path) for path in packages.glob("*.rpm"))
    if not files:
        return
    there = {name for name in ("var/lib/rpm", "var/log") if rooted.resolve(root, name).exists()}
    with reporter.step("install packages") as step:
        argv = ["rpm", "--root", str(root), "-U", "--oldpackage", "--nosignature", *options]
        if not treefile.documentation:
            argv.append("--excludedocs")
        langs = treefile.texts("install-langs")
        if langs:
            argv += ["--define", f"{LANGS_MACRO} {':'.join(langs)}"]
        run([*argv, *files], env={"SOURCE_DATE_EPOCH": str(source_date_epoch)})
        step.detail(f"{len(files)} packages")
    for left in ("var/lib/rpm", "var/log"):
        if left not in there:
            rooted.remove(root, left)
    close_database(rooted.resolve(root, f"{RPMDB_FOLDER}/rpmdb.sqlite"))


def _tell(source_date_epoch: int, command: list[str]) -> str:
    return run(command, env={"SOURCE_DATE_EPOCH": str(source_date_epoch)}).stdout


def _run_script(root: Path, text: str, *, source: str, env: dict[str, str]) -> None:
    """Run a script here, with an empty /var as the native engine's sandbox has it."""
    with _emptied(root / "var"):
        (root / "var/tmp").mkdir(mode=0o1777, exist_ok=True)
        _SCRIPT.write_text(text, encoding="utf-8")
        clean = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **env,
        }
        words = [f"{key}={value}" for key, value in sorted(clean.items())]
        run(
            ["env", "-i", "-C", "/", *words, *interpreter(text, source), str(_SCRIPT)],
            error=lambda output: script_error(source, output),
        )


@dataclass(frozen=True)
class _Folders:
    """The folders and links below a folder, with their owners and modes."""

    top: Path
    entries: tuple[tuple[Path, os.stat_result, str], ...]

    @staticmethod
    def below(top: Path) -> _Folders:
        found = []
        for path in sorted(top.rglob("*")):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                found.append((path, status, os.readlink(path)))
            elif stat.S_ISDIR(status.st_mode):
                found.append((path, status, ""))
        return _Folders(top, tuple(found))

    def bring_back(self) -> None:
        """Put them there again, and nothing else."""
        _clear(self.top)
        for path, status, target in self.entries:
            if target:
                path.symlink_to(target)
            else:
                path.mkdir(exist_ok=True)
                path.chmod(stat.S_IMODE(status.st_mode))
            os.lchown(path, status.st_uid, status.st_gid)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """A folder without its content for a while; what comes into it is dropped. Its folders and
    links come back after, its files do not: no tree ships any of /var.

    Not by renaming, which folders of an image's lower layers do not take.
    """
    kept = _Folders.below(folder)
    _clear(folder)
    try:
        yield
    finally:
        kept.bring_back()


def _clear(folder: Path) -> None:
    for child in folder.iterdir():
        if not mounts_under(child):
            remove_tree(child)


def write_package_list(root: Path) -> None:
    """The package list that release tools read from the last layer (requirement R3.7)."""
    target = rooted.resolve(root, PKGLIST_PATH)
    target.parent.mkdir(parents=True, exist_ok=True)
    document = canonical_json({"rpmdb.pkglist": read_inventory(root).pkglist()})
    target.write_bytes(document)
    target.chmod(0o644)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command inside of the container."""
    parser = argparse.ArgumentParser(prog="strata-apply")
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("apply", help="apply a treefile to this container")
    one.add_argument("definitions", type=Path, help="the folder with the definitions")
    one.add_argument("treefile", help="the treefile, in there")
    one.add_argument("--stream", default="", help="the stream's name, for conditions")
    one.add_argument("--packages", type=Path, default=PACKAGES, help="the packages to install")
    one.add_argument("--rpm-option", action="append", default=[], help="one more option for rpm")
    one.add_argument("--image-name", default="", help="the product image's name, for labels.json")
    one.add_argument("--image-cpe", default="", help="its CPE")
    verbs.add_parser("metadata", help="write the package list, as the last layer")
    given = parser.parse_args(arguments)
    reporter = Reporter(plain(sys.stderr))
    try:
        if given.verb == "metadata":
            write_package_list(Path("/"))
        else:
            apply(
                Path("/"),
                given.definitions,
                given.treefile,
                stream=given.stream,
                packages=given.packages,
                rpm_options=given.rpm_option,
                arguments={NAME: given.image_name, CPE: given.image_cpe},
                source_date_epoch=source_date_epoch() or 0,
                reporter=reporter,
            )
    except StrataError as error:
        return _report(error)
    except OSError as error:
        return _report(os_error(error, "applying the treefile"))
    return 0


def _report(error: StrataError) -> int:
    sys.stderr.write(error_text(error))
    return error.exit_status
