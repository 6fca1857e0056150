"""Our own rules: what the layers of a product's image owe each other."""

from __future__ import annotations

import configparser
from collections import Counter
from collections.abc import Iterator

from strata.container.labels import METALAYER
from strata.core.text import shown
from strata.inspect.layers import node_packages
from strata.inspect.lint import FATAL, WARNING, Finding, Rule, Subject
from strata.inspect.osrelease import PATH, PRODUCT, look, node_changes
from strata.rpm.inventory import PKGLIST_PATH

_OS_RELEASE = f"/{PATH}"
_OFF = ("0", "false", "no", "off")
# Links that systemd's own tmpfiles make, and that packages of the field ship.
_LINKS = ("/var/run", "/var/lock", "/var/mail")


def _base_node_package(subject: Subject) -> Iterator[Finding]:
    base = subject.packages if subject.base_packages is None else subject.base_packages
    for nevra in node_packages(base or (), subject.node_only):
        yield Finding(
            f"{nevra} belongs to the node layer and is in the base",
            "take it out of the base's treefile: it is versioned with the product, not with the OS",
        )


def _ready(subject: Subject) -> str:
    if not subject.node_only:
        return "--node-only does not say which packages are the node layer's"
    return "" if subject.packages is not None else "the image has no package database"


def _metalayer(subject: Subject) -> Iterator[Finding]:
    path = f"/{PKGLIST_PATH}"
    if subject.problem:
        hint = f"write the package list last again, or set the label {METALAYER} to false"
        yield Finding(subject.problem, hint, path)
    if subject.listed is None or subject.packages is None:
        return
    listed, there = Counter(subject.listed), Counter(subject.packages)
    wrong = sorted(((listed - there) + (there - listed)).elements())
    if wrong:
        more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
        message = f"the package list and the package database differ: {wrong[0]}{more}"
        yield Finding(message, "write the package list after the last package is installed", path)


def _base_pyc(subject: Subject) -> Iterator[Finding]:
    base, files = subject.image.base, subject.files
    for path, old in base.items():
        new = files.get(path)
        if not path.endswith(".pyc") or (new and new.digest == old.digest):
            continue
        source = _source(path)
        before, after = base.get(source), files.get(source)
        if before and (after is None or after.digest != before.digest):
            continue  # the module itself was replaced or removed, and this with it
        verb = "removes" if new is None else "rewrites"
        yield Finding(
            f"a derived layer {verb} {path}, which the base compiled",
            "keep python from writing it (PYTHONDONTWRITEBYTECODE=1) where packages install",
            path,
        )


def _source(path: str) -> str:
    """The module that a .pyc was compiled from: X/__pycache__/a.TAG.pyc and X/a.pyc are X/a.py."""
    folder, _, name = path.rpartition("/")
    if folder.endswith("/__pycache__"):
        return f"{folder.rpartition('/')[0]}/{name.split('.')[0]}.py"
    return path[:-1]


def _state_folders(subject: Subject) -> Iterator[Finding]:
    for folder in ("/var", "/run", "/tmp"):
        for path, file in subject.below(folder):
            if file.kind != "dir" and not (path in _LINKS and file.kind == "link"):
                yield Finding(
                    f"{path} is in the image, where only empty folders may be",
                    "a machine has its own: make it by tmpfiles.d, or ship it below /usr",
                    path,
                )


def _os_release(subject: Subject) -> Iterator[Finding]:
    base, here = (
        look(contents.get(_OS_RELEASE, b""))
        for contents in (subject.base_contents, subject.contents)
    )
    for change in node_changes(base, here):
        hint = f"a node layer adds {PRODUCT} and nothing else: consumers read the base's values"
        yield Finding(f"a derived layer changes os-release: {change}", hint, _OS_RELEASE)


def _repositories(subject: Subject) -> Iterator[Finding]:
    for path in sorted(filter(_is_repo_file, subject.contents)):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(subject.contents[path].decode("utf-8"))
        except (configparser.Error, UnicodeDecodeError):
            yield Finding(f"{path} is no .repo file", "dnf stops at it: take it out", path)
            continue
        for section in parser.sections():
            if parser[section].get("enabled", "1").strip().lower() not in _OFF:
                yield Finding(
                    f"the repository {shown(section)} of {path} is enabled",
                    "a machine without that network cannot override packages: enabled=0",
                    path,
                )


def _is_repo_file(path: str) -> bool:
    return path.startswith("/etc/yum.repos.d/") and path.endswith(".repo")


RULES = (
    Rule(
        "base-node-package",
        FATAL,
        "no package of the node layer is in the base",
        "strata, R0.1",
        _base_node_package,
        ready=_ready,
    ),
    Rule(
        "metalayer",
        FATAL,
        "the last layer is the package list when the label says so, and is true",
        "strata, R3.7 and R3.8",
        _metalayer,
    ),
    Rule(
        "base-pyc",
        FATAL,
        "derived layers leave the base's .pyc as they are",
        "strata, R3.3",
        _base_pyc,
    ),
    Rule(
        "state-folders",
        FATAL,
        "/var, /run and /tmp hold empty folders alone",
        "strata",
        _state_folders,
    ),
    Rule(
        "enabled-repository",
        WARNING,
        "no repository is enabled: host overrides work without a network",
        "strata, R3.6 and R3.17",
        _repositories,
        _is_repo_file,
    ),
    Rule(
        "node-os-release",
        FATAL,
        f"derived layers add {PRODUCT} to the base's os-release, and nothing else",
        "strata, R2.4",
        _os_release,
        lambda path: path == _OS_RELEASE,
        lambda subject: (
            "" if subject.base_contents.get(_OS_RELEASE) else "no base has an os-release"
        ),
    ),
)
