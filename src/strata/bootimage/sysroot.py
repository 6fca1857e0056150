"""A commit becomes a deployment in a sysroot of its own, as a machine's disk holds it.

`ostree admin` does the deploying; this only says where and with what, and nothing is mounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.container.importer import import_image
from strata.container.refs import BASE_IMAGE, image_ref
from strata.core.errors import MachineError
from strata.core.events import silent
from strata.core.files import remove_tree
from strata.core.process import run
from strata.oci.reference import ImageReference
from strata.oci.source import open_source
from strata.ostree.repo import Repo
from strata.ostree.writer import writing

ARCH = "x86_64"
STATEROOT = "strata"
ROOT_LABEL = "root"
_LOADER = "UI menu.c32\nTIMEOUT 10\nDEFAULT none\n"  # tenths of a second


@dataclass(frozen=True)
class Deployment:
    """A deployed commit. root: the deployment's folder; var: the stateroot's /var."""

    sysroot: Path
    root: Path
    commit: str

    @property
    def var(self) -> Path:
        """What the machine sees as /var."""
        return self.sysroot / "ostree/deploy" / STATEROOT / "var"

    @property
    def argument(self) -> str:
        """The kernel's `ostree=`: a link of the sysroot that leads to the deployment."""
        links = sorted((self.sysroot / "ostree").glob(f"boot.[01]/{STATEROOT}/*/0"))
        if len(links) != 1:
            raise MachineError(f"{len(links)} boot links where one was made")
        return f"/{links[0].relative_to(self.sysroot)}"

    def boot_file(self, name: str) -> Path:
        """The kernel (`vmlinuz`) or the initramfs (`initramfs`) that the loader would read."""
        found = sorted((self.sysroot / "boot/ostree").glob(f"{STATEROOT}-*/{name}*"))
        if len(found) != 1:
            raise MachineError(f"the deployment has {len(found)} files {name} in /boot")
        return found[0]


def deploy(
    repo: Path,
    commit: str,
    sysroot: Path,
    *,
    kargs: Sequence[str] = (f"root=LABEL={ROOT_LABEL}",),
    loader: bool = False,
    image: ImageReference | None = None,
    threads: int = 2,
) -> Deployment:
    """Make a new sysroot and deploy a commit of a repository into it.

    loader: have `/boot/loader/syslinux.cfg` written, by this and every later deployment. image:
    where the commit comes from instead, layer by layer: the machine knows them then, and pulls no
    later image's that are the same. Without, objects are hard-linked when both repositories are
    on one file system.
    Raises ToolFailedError, MachineError, ImageError.
    """
    remove_tree(sysroot)
    sysroot.mkdir(parents=True)
    at = f"--sysroot={sysroot}"
    run(["ostree", "admin", "init-fs", str(sysroot)])
    run(["ostree", "admin", "os-init", at, STATEROOT])
    local = f"--repo={sysroot}/ostree/repo"
    if loader:
        _prepare_loader(sysroot / "boot")
        run(["ostree", local, "config", "set", "sysroot.bootloader", "syslinux"])
    if image:
        _import(image, Repo.open(sysroot / "ostree/repo"), threads)
    else:
        run(["ostree", local, "pull-local", str(repo), commit])
    options = [f"--karg-append={argument}" for argument in kargs]
    run(["ostree", "admin", "deploy", at, f"--os={STATEROOT}", *options, commit])
    roots = sorted((sysroot / "ostree/deploy" / STATEROOT / "deploy").glob("*.[0-9]"))
    if len(roots) != 1:
        raise MachineError(f"{len(roots)} deployments where one was made", context={"at": sysroot})
    return Deployment(sysroot, roots[0], commit)


def _import(image: ImageReference, repo: Repo, threads: int) -> None:
    """Import an image, not under the place it happens to be at here but as the stateroot's base."""
    with open_source(image, architecture=ARCH) as source:
        stored = import_image(source, repo, reference=image, threads=threads, reporter=silent())
    with writing(repo) as writer:
        writer.set_ref(f"{BASE_IMAGE}{STATEROOT}", stored.merge_commit)
    repo.delete_ref(image_ref(image))


def _prepare_loader(boot: Path) -> None:
    """What libostree wants to find before it writes syslinux.cfg: a configuration, not empty, where
    syslinux itself would look and where each deployment's links lead. It keeps the lines it does
    not know: only of a menu GRUB boots one of several entries."""
    (boot / "loader.0").mkdir()
    (boot / "loader.0/syslinux.cfg").write_text(_LOADER)
    (boot / "loader").symlink_to("loader.0")
    (boot / "syslinux").mkdir()
    (boot / "syslinux/syslinux.cfg").symlink_to("../loader/syslinux.cfg")
