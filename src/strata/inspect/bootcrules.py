"""The rules of `bootc container lint`, on the files of an image. Source: bootc's lints.rs.

bootc checks `var-tmpfiles` on a running root alone; here tmpfiles.d is read without applying it.
"""

from __future__ import annotations

from collections.abc import Iterator

import tomllib

from strata.core.errors import DefinitionError
from strata.inspect.composefs import PREPARE_ROOT, read_composefs
from strata.inspect.lint import FATAL, WARNING, Finding, Rule, Subject

_API_FOLDERS = ("dev", "proc", "run", "sys", "tmp", "var")
_KARGS = "/usr/lib/bootc/kargs.d/"
_PREPARE_ROOT = f"/{PREPARE_ROOT}"
_SYSUSERS = ("/usr/lib/sysusers.d/", "/etc/sysusers.d/")
_TMPFILES = ("/usr/lib/tmpfiles.d/", "/etc/tmpfiles.d/")
_ON = ("1", "yes", "true", "maybe", "signed", "verity")


def _var_run(subject: Subject) -> Iterator[Finding]:
    file = subject.files.get("/var/run")
    if file and file.kind != "link":
        yield Finding(
            "/var/run is not a link", "remove it, or make it a link to ../run", "/var/run"
        )


def _buildah_injected(subject: Subject) -> Iterator[Finding]:
    for path in ("/etc/hostname", "/etc/resolv.conf"):
        file = subject.files.get(path)
        if file and file.kind == "file" and not file.size_bytes:
            message = f"{path} is an empty file, as container tools leave it behind"
            yield Finding(message, f"remove it in the last build step: rm {path}", path)


def _etc_usretc(subject: Subject) -> Iterator[Finding]:
    if "/etc" in subject.files and "/usr/etc" in subject.files:
        hint = "put configuration into /etc; /usr/etc is made of it on the machine"
        yield Finding("/usr/etc is there beside /etc", hint, "/usr/etc")


def _bootc_kargs(subject: Subject) -> Iterator[Finding]:
    for path, data in subject.contents.items():
        problem = _kargs_problem(data) if _is_kargs(path) else ""
        if problem:
            hint = 'write kargs = ["NAME=VALUE"], and match-architectures where needed'
            yield Finding(f"{path} {problem}", hint, path)


def _is_kargs(path: str) -> bool:
    return path.startswith(_KARGS) and path.endswith(".toml") and "/" not in path[len(_KARGS) :]


def _kargs_problem(data: bytes) -> str:
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return f"is not TOML: {error}"
    unknown = sorted(values.keys() - {"kargs", "match-architectures"})
    if unknown:
        return f"has {unknown[0]}, which is no key of it"
    if "kargs" not in values:
        return "has no kargs"
    for key, value in values.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return f"has {key} that is not a list of texts"
    return ""


def _kernel(subject: Subject) -> Iterator[Finding]:
    folder = "/usr/lib/modules"
    found = [
        path.split("/")[4]
        for path, file in subject.below(folder)
        if path.count("/") == 5 and path.endswith("/vmlinuz") and file.kind == "file"
    ]
    if len(found) > 1:
        message = f"{folder} has {len(found)} kernels: {', '.join(found)}"
        yield Finding(message, "remove the package of the one that is not to be booted", folder)


def _utf8(subject: Subject) -> Iterator[Finding]:
    hint = "rename it: names and links of OSTree are UTF-8"
    for path, file in subject.files.items():
        if not _is_utf8(path):
            yield Finding(f"the name {path} is not UTF-8", hint, path)
        elif not _is_utf8(file.target):
            yield Finding(f"{path} is a link to {file.target}, which is not UTF-8", hint, path)


def _is_utf8(name: str) -> bool:
    # Bytes that were not UTF-8 are lone surrogates, which cannot be encoded.
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _api_base_directories(subject: Subject) -> Iterator[Finding]:
    for name in _API_FOLDERS:
        file = subject.files.get(f"/{name}")
        if file is None or file.kind != "dir":
            state = "is missing" if file is None else "is not a folder"
            yield Finding(f"/{name} {state}", f"make it an empty folder: mkdir /{name}", f"/{name}")


def _baseimage_composefs(subject: Subject) -> Iterator[Finding]:
    problem = _composefs_problem(subject)
    if problem:
        hint = "write [composefs] and enabled = true"
        yield Finding(f"{_PREPARE_ROOT} {problem}", hint, _PREPARE_ROOT)


def _composefs_problem(subject: Subject) -> str:
    if _PREPARE_ROOT not in subject.contents:
        return "is missing, so composefs is not enabled"
    try:
        enabled = read_composefs(subject.contents[_PREPARE_ROOT].decode("utf-8", "replace"))
    except DefinitionError as error:
        return error.message
    return "" if enabled.lower() in _ON else "does not enable composefs"


def _baseimage_root(subject: Subject) -> Iterator[Finding]:
    sysroot, ostree = subject.files.get("/sysroot"), subject.files.get("/ostree")
    if sysroot is None or sysroot.kind != "dir":
        yield Finding("/sysroot is not a folder", "make it: mkdir /sysroot", "/sysroot")
    if ostree is None or ostree.kind != "link" or ostree.target != "sysroot/ostree":
        hint = "make it: ln -s sysroot/ostree /ostree"
        yield Finding("/ostree is not a link to sysroot/ostree", hint, "/ostree")


def _var_log(subject: Subject) -> Iterator[Finding]:
    for path, file in subject.below("/var/log"):
        if file.kind == "file" and file.size_bytes:
            message = f"{path} is a log of the build, {file.size_bytes} bytes"
            yield Finding(message, "remove it in the last build step", path)


def _var_tmpfiles(subject: Subject) -> Iterator[Finding]:
    known = {"/var/tmp"}
    for path, data in subject.contents.items():
        if _is_config(path, _TMPFILES):
            known |= {fields[1].rstrip("/") for fields in _fields(data) if len(fields) > 1}
    for path, file in subject.below("/var"):
        if file.kind in ("dir", "link") and path not in known:
            message = f"{path} is in the image, but no tmpfiles.d entry makes it on a machine"
            yield Finding(message, "write a tmpfiles.d entry for it", path)


def _sysusers(subject: Subject) -> Iterator[Finding]:
    users, groups = {"root"}, {"root"}
    for path, data in subject.contents.items():
        for fields in _fields(data) if _is_config(path, _SYSUSERS) else ():
            kind, name = fields[0].rstrip("!"), fields[1] if len(fields) > 1 else ""
            if kind == "u":
                users.add(name)
            if kind in ("u", "g"):
                groups.add(name)
    for path, known, what in (("/etc/passwd", users, "user"), ("/etc/group", groups, "group")):
        names = (line.split(":")[0] for line in _lines(subject.contents.get(path, b"")))
        missing = [name for name in names if name and name[0] not in "+-" and name not in known]
        if missing:
            message = f"{path} has {what}s that no sysusers.d entry makes: {_some(missing)}"
            yield Finding(message, f"write a sysusers.d entry for each {what}", path)


def _is_config(path: str, folders: tuple[str, ...]) -> bool:
    return path.startswith(folders) and path.endswith(".conf")


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").splitlines()


def _fields(data: bytes) -> Iterator[list[str]]:
    for line in _lines(data):
        fields = line.split()
        if fields and not fields[0].startswith("#"):
            yield fields


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _nonempty_boot(subject: Subject) -> Iterator[Finding]:
    hint = "kernels belong to /usr/lib/modules; /boot is the machine's"
    yield from _nonempty(subject, "/boot", hint)


def _nonempty_run_tmp(subject: Subject) -> Iterator[Finding]:
    for folder in ("/run", "/tmp"):
        hint = f"empty it in the last build step: a machine mounts its own {folder}"
        yield from _nonempty(subject, folder, hint)


def _nonempty(subject: Subject, folder: str, hint: str) -> Iterator[Finding]:
    found = [path for path, _ in subject.below(folder)]
    if found:
        yield Finding(f"{folder} is not empty: {_some(found)}", hint, found[0])


_BY = "bootc container lint"
RULES = (
    Rule("var-run", FATAL, "/var/run is a link", _BY, _var_run),
    Rule(
        "buildah-injected",
        WARNING,
        "/etc/hostname and /etc/resolv.conf are not empty files",
        _BY,
        _buildah_injected,
    ),
    Rule("etc-usretc", FATAL, "/etc and /usr/etc are not both there", _BY, _etc_usretc),
    Rule("bootc-kargs", FATAL, "kernel arguments in kargs.d parse", _BY, _bootc_kargs, _is_kargs),
    Rule("kernel", FATAL, "there is one kernel at most", _BY, _kernel),
    Rule("utf8", FATAL, "names and targets of links are UTF-8", _BY, _utf8),
    Rule(
        "api-base-directories",
        FATAL,
        "/dev, /proc, /run, /sys, /tmp and /var are folders",
        _BY,
        _api_base_directories,
    ),
    Rule(
        "baseimage-composefs",
        WARNING,
        "composefs is enabled",
        _BY,
        _baseimage_composefs,
        lambda path: path == _PREPARE_ROOT,
    ),
    Rule("baseimage-root", FATAL, "/sysroot and /ostree are there", _BY, _baseimage_root),
    Rule("var-log", WARNING, "there are no logs in /var/log", _BY, _var_log),
    Rule(
        "var-tmpfiles",
        WARNING,
        "tmpfiles.d makes what is in /var",
        _BY,
        _var_tmpfiles,
        lambda path: _is_config(path, _TMPFILES),
    ),
    Rule(
        "sysusers",
        WARNING,
        "sysusers.d makes all users and groups",
        _BY,
        _sysusers,
        lambda path: path in ("/etc/passwd", "/etc/group") or _is_config(path, _SYSUSERS),
    ),
    Rule("nonempty-boot", WARNING, "/boot is empty", _BY, _nonempty_boot),
    Rule("nonempty-run-tmp", WARNING, "/run and /tmp are empty", _BY, _nonempty_run_tmp),
)
