"""Runs under dnf's own interpreter: solve or pick requests, install files. JSON in, JSON out.

Not imported by strata: `import dnf` belongs to the system's Python. Progress goes to stderr as
`progress DONE TOTAL NAME` lines. An expected failure is an answer with `error`, status 0.
"""

import json
import os
import sys
from typing import Any

import dnf
import dnf.callback
import dnf.exceptions


def make_base(task: dict[str, Any]) -> Any:
    base = dnf.Base()
    conf = base.conf
    conf.installroot = task["root"]
    conf.cachedir = task["cachedir"]
    conf.persistdir = os.path.join(task["cachedir"], "persist")
    conf.logdir = os.path.join(task["cachedir"], "log")
    os.makedirs(conf.logdir, exist_ok=True)
    conf.history_record = False
    conf.plugins = False
    conf.gpgcheck = False
    conf.localpkg_gpgcheck = False
    conf.install_weak_deps = task.get("weak_deps", False)
    conf.tsflags = [] if task.get("documentation", True) else ["nodocs"]
    if task.get("test"):
        conf.tsflags += ["test"]
    conf.substitutions["arch"] = task["arch"]
    conf.substitutions["basearch"] = task["arch"]
    conf.substitutions["releasever"] = "unset"
    conf.zchunk = False
    return base


def add_repos(base: Any, task: dict[str, Any]) -> None:
    for description in task["repos"]:
        repo = dnf.repo.Repo(description["id"], base.conf)
        repo.baseurl = [description["baseurl"]]
        repo.priority = description["priority"]
        repo.metadata_expire = 0
        repo.gpgcheck = False
        repo.skip_if_unavailable = False
        base.repos.add(repo)


def nevra_of(package: Any) -> str:
    epoch = f"{package.epoch}:" if package.epoch else ""
    return f"{package.name}-{epoch}{package.version}-{package.release}.{package.arch}"


def solve(task: dict[str, Any]) -> dict[str, Any]:
    base = make_base(task)
    add_repos(base, task)
    installed_root = task["installed"]
    base.fill_sack(load_system_repo=installed_root)
    installed: dict[str, Any] = {}
    if installed_root:
        # What is in the base stays as it is: candidates of the same name are not looked at.
        installed = {package.name: package for package in base.sack.query().installed()}
        base.sack.add_excludes(base.sack.query().available().filterm(name=list(installed)))
    if task["exclude"]:
        base.sack.add_excludes(base.sack.query().available().filterm(name__glob=task["exclude"]))
    missing = []
    wanted = []
    for request in task["requests"]:
        text = request["text"]
        subject = dnf.subject.Subject(text)
        if installed_root and subject.get_best_query(base.sack).installed():
            continue
        try:
            base.install(text, strict=True)
        except dnf.exceptions.MarkingError:
            missing.append(request)
            continue
        wanted.append(request)
    if missing:
        return {"error": "not-found", "requests": missing}
    try:
        base.resolve()
    except dnf.exceptions.DepsolveError as error:
        return {"error": "unsolvable", "message": str(error)}
    return {"packages": describe(base, wanted)}


def describe(base: Any, wanted: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The packages to install, each with the line that named it or the package that needs it."""
    chosen = list(base.transaction.install_set)
    query = base.sack.query().filterm(pkg=chosen).apply()
    reasons: dict[Any, dict[str, str]] = {}
    queue = []
    for request in wanted:
        found = dnf.subject.Subject(request["text"]).get_best_query(base.sack, query=query)
        for package in sorted(found):
            if package not in reasons:
                reasons[package] = {"source": request["source"]}
                queue.append(package)
    while queue:
        package = queue.pop(0)
        needed = list(package.requires) + list(package.recommends)
        for other in sorted(query.filter(provides=needed)) if needed else ():
            if other not in reasons:
                reasons[other] = {"required-by": nevra_of(package)}
                queue.append(other)
    return [row_of(package, reasons.get(package, {})) for package in chosen]


def row_of(package: Any, reason: dict[str, str]) -> dict[str, Any]:
    kind, digest = package.returnIdSum()
    return {
        "nevra": nevra_of(package),
        "repo": package.reponame,
        "location": package.location,
        "checksum": [kind, digest],
        "size": package.downloadsize,
        **reason,
    }


def pick(task: dict[str, Any]) -> dict[str, Any]:
    """The newest package of each request as it is, without what it depends on."""
    base = make_base(task)
    add_repos(base, task)
    base.fill_sack(load_system_repo=False)
    priorities = {repo["id"]: (repo["priority"], at) for at, repo in enumerate(task["repos"])}
    picked, missing = {}, []
    for request in task["requests"]:
        found = dnf.subject.Subject(request["text"]).get_best_query(base.sack).available()
        found = found.filter(arch=[task["arch"], "noarch"])
        if not found:
            missing.append(request)
            continue
        first = min(priorities[package.reponame][0] for package in found)
        best = max(package for package in found if priorities[package.reponame][0] == first)
        same = [package for package in found if nevra_of(package) == nevra_of(best)]
        package = min(same, key=lambda each: priorities[each.reponame])
        picked[nevra_of(package)] = row_of(package, {"source": request["source"]})
    if missing:
        return {"error": "not-found", "requests": missing}
    return {"packages": list(picked.values())}


class Progress(dnf.callback.TransactionProgress):  # type: ignore[misc]
    """One line on stderr for each package whose files are in place."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def progress(
        self, package: Any, action: int, ti_done: int, ti_total: int, ts_done: int, ts_total: int
    ) -> None:
        if ti_done == ti_total and action == dnf.callback.PKG_INSTALL:
            self.done += 1
            sys.stderr.write(f"progress {self.done} {ts_total}\n")

    def error(self, message: str) -> None:
        sys.stderr.write(message + "\n")


def install(task: dict[str, Any]) -> dict[str, Any]:
    base = make_base(task)
    base.fill_sack(load_system_repo=task["installed"], load_available_repos=False)
    packages = base.add_remote_rpms(task["files"], strict=True)
    for package in packages:
        base.package_install(package, strict=True)
    try:
        base.resolve()
    except dnf.exceptions.DepsolveError as error:
        return {"error": "unsolvable", "message": str(error)}
    going = [str(package) for package in base.transaction.remove_set]
    if going:
        return {"error": "unsolvable", "message": "this would remove " + ", ".join(going)}
    count = len(base.transaction.install_set)
    try:
        base.do_transaction(display=Progress())
    except dnf.exceptions.Error as error:
        return {"error": "failed", "message": str(error)}
    return {"installed": count}


def main() -> None:
    task = json.load(sys.stdin)
    try:
        answer = {"solve": solve, "pick": pick, "install": install}[task["task"]](task)
    except dnf.exceptions.RepoError as error:
        answer = {"error": "repository", "message": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
