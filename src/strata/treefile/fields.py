"""The treefile's fields, each declared once: its type, how includes merge, whether it is built.

Source: rpm-ostree's docs/treefile.md and rust/src/treefile.rs (the shape of the fields and their
merging), and the fields that openshift/os, rhel-coreos-config and fedora-coreos-config use.
"""

from __future__ import annotations

from dataclasses import dataclass

LIST, STRINGS, TEXT, FLAG, NUMBER, MAPPING, SCRIPTS = (
    "a list",
    "a list of text",
    "text",
    "true or false",
    "a number",
    "a mapping",
    "a list of scripts",
)


@dataclass(frozen=True)
class Field:
    """A field of a treefile.

    merge: "append" (an included file's items come first), "outer" (the includer's value wins) or
    "union" (mappings, key by key, the includer wins). built: whether a compose acts on it.
    """

    name: str
    type: str
    merge: str
    built: bool
    doc: str


_FIELDS = (
    Field("packages", STRINGS, "append", True, "packages to install; several names per entry"),
    Field("repos", STRINGS, "append", True, "ids of repositories to install from"),
    Field(
        "lockfile-repos", STRINGS, "append", False, "repositories only locked packages come from"
    ),
    Field("ostree-layers", STRINGS, "append", True, "overlay folders, applied in order"),
    Field("ostree-override-layers", STRINGS, "append", False, "overlays that may replace files"),
    Field("postprocess", SCRIPTS, "append", True, "scripts run in the tree, in order"),
    Field("postprocess-script", TEXT, "outer", False, "a script file run after postprocess"),
    Field("exclude-packages", STRINGS, "append", True, "packages that may not be installed"),
    Field("remove-files", STRINGS, "append", True, "paths deleted after the install"),
    Field("remove-from-packages", LIST, "append", False, "[package, regex…]: files deleted of it"),
    Field("units", STRINGS, "append", False, "systemd units to enable"),
    Field("default-target", TEXT, "outer", False, "systemd's default target"),
    Field("recommends", FLAG, "outer", True, "install weak dependencies"),
    Field("documentation", FLAG, "outer", True, "install documentation"),
    Field("selinux", FLAG, "outer", False, "label with the tree's SELinux policy"),
    Field("mutate-os-release", TEXT, "outer", True, "text in os-release the version replaces"),
    Field("releasever", TEXT, "outer", False, "$releasever in repositories"),
    Field("automatic-version-prefix", TEXT, "outer", False, "rpm-ostree's own version scheme"),
    Field("ref", TEXT, "outer", False, "the OSTree ref"),
    Field("rojig", MAPPING, "union", False, "name and summary of the old RPM form"),
    Field("metadata", MAPPING, "union", True, "free values for tools"),
    Field("variables", MAPPING, "union", True, "values for conditional-include"),
    Field("add-commit-metadata", MAPPING, "union", False, "values for the commit"),
    Field("etc-group-members", STRINGS, "append", False, "groups whose members are in /etc"),
    Field("check-passwd", MAPPING, "outer", False, "the expected users"),
    Field("check-groups", MAPPING, "outer", False, "the expected groups"),
    Field("ignore-removed-users", STRINGS, "append", False, "users that may go"),
    Field("ignore-removed-groups", STRINGS, "append", False, "groups that may go"),
    Field("preserve-passwd", FLAG, "outer", False, "keep the last commit's ids"),
    Field("rpmdb", TEXT, "outer", False, "the package database's format"),
    Field("rpmdb-normalize", FLAG, "outer", False, "make the package database reproducible"),
    Field("machineid-compat", FLAG, "outer", False, "ship an empty machine-id"),
    Field("tmp-is-dir", FLAG, "outer", False, "/tmp is a folder of the tree"),
    Field("boot-location", TEXT, "outer", False, "where the kernel is put"),
    Field("container-cmd", STRINGS, "outer", False, "the image's command"),
    Field("install-langs", STRINGS, "append", False, "locales kept"),
    Field("initramfs-args", STRINGS, "append", False, "arguments for dracut"),
    Field("opt-usrlocal", TEXT, "outer", False, "what /opt and /usr/local are"),
    Field("readonly-executables", FLAG, "outer", False, "executables without write permission"),
    Field("platforms", MAPPING, "union", False, "platform table"),
)
FIELDS: dict[str, Field] = {field.name: field for field in _FIELDS}
STRUCTURE = ("include", "conditional-include", "arch-include")
ARCHES = ("x86_64", "aarch64", "ppc64le", "s390x")
KNOWN = (*FIELDS, *STRUCTURE, *(f"packages-{arch}" for arch in ARCHES))
