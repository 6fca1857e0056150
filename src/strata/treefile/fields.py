"""The treefile's fields, each declared once: its shape, and how includes merge.

Source: rpm-ostree's docs/treefile.md and rust/src/treefile.rs (shapes, merging, variables), and the
fields that openshift/os, rhel-coreos-config and fedora-coreos-config use.
"""

from __future__ import annotations

from dataclasses import dataclass

from strata.treefile.shapes import (
    FLAG,
    NUMBER,
    TEXT,
    TEXTS,
    VARIABLE,
    Anything,
    Choice,
    Either,
    ListOf,
    MapOf,
    Record,
    Shape,
)

APPEND, FIRST, UNION = "append", "first", "union"


@dataclass(frozen=True)
class Field:
    """A field of a treefile.

    merge: APPEND (what is included comes before what includes it), FIRST (the includer's value
    wins) or UNION (mappings, key by key, the includer wins). applies: whether it means something
    in a layer put on top of an image (a node layer); a compose of a base acts on all of them, or
    refuses (`refused`). substituted: whether `${variable}` is replaced in it. legacy: its old
    spelling, or empty.
    """

    name: str
    shape: Shape
    merge: str
    doc: str
    applies: bool = True
    substituted: bool = False
    legacy: str = ""


_FILE = Record({"type": Choice(("file",)), "filename": TEXT}, ("type", "filename"))
_NONE = Record({"type": Choice(("none", "previous"))}, ("type",))


def _checked(entries: Shape) -> Shape:
    """What check-passwd and check-groups may be."""
    data = Record({"type": Choice(("data",)), "entries": entries}, ("type", "entries"))
    return Either((_NONE, _FILE, data))


_IDS = MapOf(Either((NUMBER, ListOf(NUMBER, 1))))
_METADATA_TARGET = Choice(("inline", "detached", "disabled"))
_FIELDS = (
    # --- what a tree has
    Field(
        "packages",
        TEXTS,
        APPEND,
        "packages to install; several names per entry",
        legacy="bootstrap_packages",
    ),
    Field(
        "repo-packages",
        ListOf(Record({"repo": TEXT, "packages": TEXTS}, ("repo", "packages"))),
        APPEND,
        "packages that have to come from one repository",
    ),
    Field("repos", TEXTS, APPEND, "ids of repositories to install from"),
    Field(
        "lockfile-repos",
        TEXTS,
        APPEND,
        "repositories only locked packages come from",
    ),
    Field("ostree-layers", TEXTS, APPEND, "overlay folders, applied in order"),
    Field("ostree-override-layers", TEXTS, APPEND, "overlays that may replace files"),
    Field("exclude-packages", TEXTS, APPEND, "packages that may not be installed"),
    Field("recommends", FLAG, FIRST, "install weak dependencies (default: true)"),
    Field("documentation", FLAG, FIRST, "install documentation (default: true)"),
    Field("install-langs", TEXTS, APPEND, "locales kept"),
    Field("units", TEXTS, APPEND, "systemd units to enable"),
    Field(
        "default-target",
        TEXT,
        FIRST,
        "systemd's default target",
        legacy="default_target",
    ),
    Field(
        "add-files",
        ListOf(ListOf(TEXT, 2)),
        APPEND,
        "[source, destination] of files copied into the tree",
    ),
    Field("remove-files", TEXTS, APPEND, "paths deleted after the install"),
    Field(
        "remove-from-packages",
        ListOf(ListOf(TEXT, 1)),
        APPEND,
        "[package, regex…]: files deleted of a package",
    ),
    Field("postprocess", TEXTS, APPEND, "scripts run in the tree, in order"),
    Field("postprocess-script", TEXT, FIRST, "a script file run after postprocess"),
    Field("platform-module", TEXT, FIRST, "the modularity platform", substituted=True),
    Field("cliwrap", FLAG, FIRST, "wrap commands by rpm-ostree's: refused"),
    Field("cliwrap-binaries", TEXTS, APPEND, "which commands are wrapped: refused"),
    # --- how a tree is laid out
    Field("edition", Either((TEXT, NUMBER)), FIRST, "which defaults hold: 2014 or 2024"),
    Field("selinux", FLAG, FIRST, "label with the tree's SELinux policy", applies=False),
    Field("selinux-label-version", NUMBER, FIRST, "how labels are computed", applies=False),
    Field("ignore-devices", FLAG, FIRST, "leave device nodes out", applies=False),
    Field("ima", FLAG, FIRST, "keep IMA signatures of packages: refused", applies=False),
    Field(
        "readonly-executables", FLAG, FIRST, "executables without write permission", applies=False
    ),
    Field(
        "boot-location",
        Choice(("new", "modules", "kernel-install", "both", "legacy")),
        FIRST,
        "modules, or new: in /usr/lib/ostree-boot too",
        applies=False,
        legacy="boot_location",
    ),
    Field("tmp-is-dir", FLAG, FIRST, "/tmp is a folder of the tree", applies=False),
    Field(
        "opt-usrlocal",
        Choice(("var", "root", "state-overlay", "stateoverlay")),
        FIRST,
        "what /opt and /usr/local are",
        applies=False,
    ),
    Field("machineid-compat", FLAG, FIRST, "ship an empty machine-id", applies=False),
    Field("container", FLAG, FIRST, "the tree does not boot: refused", applies=False),
    Field("initramfs-args", TEXTS, APPEND, "arguments for dracut", applies=False),
    Field("no-initramfs", FLAG, FIRST, "make no initramfs", applies=False),
    Field(
        "rpmdb",
        Choice(("bdb", "b-d-b", "sqlite", "ndb", "target", "host")),
        FIRST,
        "the package database's format",
        applies=False,
    ),
    Field(
        "rpmdb-normalize",
        FLAG,
        FIRST,
        "make the package database reproducible: always done",
        applies=False,
    ),
    # --- users and groups
    Field("etc-group-members", TEXTS, APPEND, "groups whose members are in /etc", applies=False),
    Field("preserve-passwd", FLAG, FIRST, "keep the last commit's ids", applies=False),
    Field("check-passwd", _checked(_IDS), FIRST, "the expected users", applies=False),
    Field(
        "check-groups",
        _checked(MapOf(NUMBER)),
        FIRST,
        "the expected groups",
        applies=False,
    ),
    Field("ignore-removed-users", TEXTS, APPEND, "users that may go", applies=False),
    Field("ignore-removed-groups", TEXTS, APPEND, "groups that may go", applies=False),
    Field("sysusers", Choice(("compose-auto", "compose-forced")), FIRST, "who makes users"),
    # --- versions, commits, tools
    Field("releasever", VARIABLE, FIRST, "$releasever in repositories; a variable too"),
    Field("basearch", TEXT, FIRST, "the architecture; a variable too"),
    Field(
        "mutate-os-release",
        TEXT,
        FIRST,
        "text in os-release the version replaces",
        substituted=True,
    ),
    Field(
        "automatic-version-prefix",
        TEXT,
        FIRST,
        "rpm-ostree's own version scheme",
        applies=False,
        substituted=True,
        legacy="automatic_version_prefix",
    ),
    Field("automatic-version-suffix", TEXT, FIRST, "what stands before its count", applies=False),
    Field("ref", TEXT, FIRST, "the OSTree ref", applies=False, substituted=True),
    Field(
        "rojig",
        Record(
            {"name": TEXT, "summary": TEXT, "license": TEXT, "description": TEXT},
            ("name", "summary", "license"),
        ),
        FIRST,
        "name and summary of the old RPM form",
        applies=False,
        substituted=True,
    ),
    Field("gpg-key", TEXT, FIRST, "who signs the commit", applies=False, legacy="gpg_key"),
    Field("container-cmd", TEXTS, FIRST, "the image's command", applies=False),
    Field("metadata", MapOf(Anything()), UNION, "free values for tools", substituted=True),
    Field(
        "add-commit-metadata",
        MapOf(Anything()),
        UNION,
        "values for the commit",
        applies=False,
        substituted=True,
    ),
    Field("repo-metadata", _METADATA_TARGET, FIRST, "where repositories are named", applies=False),
    Field(
        "advisories-metadata", _METADATA_TARGET, FIRST, "where advisories are named", applies=False
    ),
    Field("variables", MapOf(VARIABLE), UNION, "values for conditional-include"),
    Field("repovars", MapOf(TEXT), UNION, "variables in .repo files"),
)
FIELDS: dict[str, Field] = {field.name: field for field in _FIELDS}
LEGACY: dict[str, str] = {field.legacy: field.name for field in _FIELDS if field.legacy}
STRUCTURE = ("include", "conditional-include", "arch-include")
ARCHES = ("x86_64", "aarch64", "ppc64le", "s390x")
KNOWN = (*FIELDS, *LEGACY, *STRUCTURE, *(f"packages-{arch}" for arch in ARCHES))
