"""The outside tools strata calls, what for, and how a host gets them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from strata.core.errors import ToolMissingError


@dataclass(frozen=True)
class Tool:
    """One outside tool: the command, the packages that bring it, and what strata uses it for."""

    name: str
    apt: str
    dnf: str
    purpose: str
    version_args: tuple[str, ...] = ("--version",)


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("apt-get", "apt", "apt", "resolves and downloads the sample's Debian packages"),
        Tool("buildah", "buildah", "buildah", "builds node layers by a Containerfile"),
        Tool("bwrap", "bubblewrap", "bubblewrap", "sandboxes postprocess scripts and dracut"),
        Tool("debugfs", "e2fsprogs", "e2fsprogs", "fills the root of disks", ("-V",)),
        Tool("createrepo_c", "createrepo-c", "createrepo_c", "indexes repositories of packages"),
        Tool("dnf", "dnf", "dnf", "solves and installs packages"),
        Tool("dpkg-deb", "dpkg", "dpkg", "unpacks the sample's Debian packages"),
        Tool("faketime", "faketime", "libfaketime", "gives a verifying build another time"),
        Tool("git", "git", "git", "knows the revision of the definitions"),
        Tool("gpg", "gnupg", "gnupg2", "reads repositories' keys, and signs commits"),
        Tool(
            *("grub-mkimage", "grub-common", "grub2-tools-minimal"),
            "makes the boot loaders of boot images",
        ),
        Tool("gpgv", "gpgv", "gnupg2", "verifies repositories' indexes"),
        Tool("mcopy", "mtools", "mtools", "fills the EFI partitions of boot images", ("-V",)),
        Tool("mke2fs", "e2fsprogs", "e2fsprogs", "makes the root of disks", ("-V",)),
        Tool(
            *("mkfs.fat", "dosfstools", "dosfstools", "makes the EFI partitions of boot images"),
            ("--help",),
        ),
        Tool(
            *("mksquashfs", "squashfs-tools", "squashfs-tools", "packs the root of live images"),
            ("-version",),
        ),
        Tool("mount", "mount", "util-linux", "lays an overlay over the base tree"),
        Tool("nsenter", "util-linux", "util-linux", "runs commands inside a booted machine"),
        Tool("ostree", "ostree", "ostree", "deploys commits"),
        Tool("qemu-img", "qemu-utils", "qemu-img", "writes disks in QEMU's format"),
        Tool(
            *("qemu-system-x86_64", "qemu-system-x86", "qemu-kvm", "boots boot images"),
        ),
        Tool("rpm", "rpm", "rpm", "reads installed packages"),
        Tool("rpmbuild", "rpm", "rpm-build", "writes the sample's RPMs"),
        Tool("rpmkeys", "rpm", "rpm", "verifies packages' signatures"),
        Tool("rpmsign", "rpm", "rpm-sign", "signs the sample's RPMs"),
        Tool("sfdisk", "fdisk", "util-linux", "partitions disks"),
        Tool("skopeo", "skopeo", "skopeo", "carries images to and from registries"),
        Tool("ssh", "openssh-client", "openssh-clients", "runs commands in virtual machines"),
        Tool("ssh-keygen", "openssh-client", "openssh-clients", "makes keys for virtual machines"),
        Tool("systemd-nspawn", "systemd-container", "systemd-container", "boots deployments"),
        Tool("xorriso", "xorriso", "xorriso", "writes live ISOs", ("-version",)),
    )
}


def install_hint(tool: Tool) -> str:
    """The lines that install the tool on apt and on dnf hosts."""
    return f"apt install {tool.apt}   (or: dnf install {tool.dnf})"


def find_tool(name: str) -> str:
    """Absolute path of a tool on PATH (/usr/sbin and /sbin included).

    Raises ToolMissingError with the install line.
    """
    path = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    if found:
        return found
    tool = TOOLS.get(name)
    hint = install_hint(tool) if tool else "install it and have it on PATH"
    purpose = f", which {tool.purpose}" if tool else ""
    raise ToolMissingError(f"{name} is not installed{purpose}", hint=hint)
